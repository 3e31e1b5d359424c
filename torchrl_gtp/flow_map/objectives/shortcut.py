"""The shortcut term: one jump must do what two frozen half jumps do."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchrl_gtp.flow_map.errors import TimeWeight, check_time_weight, weighted_square
from torchrl_gtp.flow_map.flow_map import FlowMap
from torchrl_gtp.flow_map.linear_path import DyadicTimes, path_time
from torchrl_gtp.flow_map.noise_levels import NoiseLevels
from torchrl_gtp.flow_map.objectives.base import Draw, Teacher, TermInputs
from torchrl_gtp.flow_map.time_sampling import TimeSampler, check_time_sampler

__all__ = ["Shortcut"]


@dataclass(frozen=True)
class Shortcut:
    """The self-consistency of shortcut models (arXiv 2410.12557).

    The jump from t to s is compared with two frozen jumps, from t to u and from u to s. Nothing
    here knows the data: the way down to steps of size 0 is the denoising term's, which must stand
    beside this one. The error is that of the end point, ``phi`` against
    ``(Phi^- - (s / t) a_t) / (1 - s / t)``; under the weight ``"velocity"`` that is the error of
    the mean velocity on the linear path, as published.

    No step is half as long as the smallest: as published, the two halves of that one follow the
    denoiser ``phi^-(., t, t)``, which the denoising term trains.

    Args:
        time_sampler (TimeSampler): gives (t, u, s) with ``t > u > s``; only ``DyadicTimes`` has a
            smallest step. Defaults to ``DyadicTimes()``.
        time_weight ("edm", "noise", "velocity" or "none"): see
            :func:`~torchrl_gtp.flow_map.flow_error`. Defaults to ``"velocity"``.

    Raises:
        ValueError: for another ``time_weight``.
        TypeError: if ``time_sampler`` gives no (t, u, s).
    """

    time_sampler: TimeSampler = field(default_factory=DyadicTimes)
    time_weight: TimeWeight = "velocity"

    def __post_init__(self) -> None:
        """Checks the options."""
        check_time_sampler(self.time_sampler)
        check_time_weight(self.time_weight)

    def draws(self, action_dim: int) -> dict[str, Draw]:
        """Lists the draws; see :class:`Term`."""
        return {"times": Draw("uniform", (2,)), "noise": Draw("normal", (action_dim,))}

    def __call__(self, flow_map: FlowMap, teacher: Teacher, inputs: TermInputs) -> Tensor:
        """Computes the errors; see :class:`Term`."""
        condition, dtype = inputs.condition, inputs.action.dtype
        t, u, s = self.time_sampler(inputs.draws["times"], inputs.progress, flow_map.noise_levels)
        action_t = inputs.action + t.to(dtype) * inputs.draws["noise"]
        is_smallest = self._is_smallest(t, s, flow_map.noise_levels)

        def half_jump(noisy: Tensor, start: Tensor, end: Tensor) -> Tensor:
            towards = torch.where(is_smallest, start, end)
            levels = start.to(dtype), towards.to(dtype)
            endpoint = teacher.endpoint(noisy.to(dtype), *levels, condition)
            return (end / start) * noisy + (1 - end / start) * endpoint

        reached = half_jump(half_jump(action_t, t, u), u, s)
        target = (reached - (s / t) * action_t) / (1 - s / t)
        residual = flow_map.endpoint(action_t, t.to(dtype), s.to(dtype), condition) - target
        return weighted_square(residual, t, flow_map.sigma_data, self.time_weight, inputs.valid)

    def _is_smallest(self, t: Tensor, s: Tensor, noise_levels: NoiseLevels) -> Tensor:
        if not isinstance(self.time_sampler, DyadicTimes):
            return torch.zeros_like(t, dtype=torch.bool)
        whole = noise_levels.sigma_max / (1 + noise_levels.sigma_max)
        # The next step is twice as long: the middle of both is far from any rounding.
        return path_time(t) - path_time(s) < 1.5 * whole / self.time_sampler.num_steps
