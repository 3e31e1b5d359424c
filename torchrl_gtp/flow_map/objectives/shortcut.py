"""The shortcut term: one jump must do what two frozen half jumps do."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from torchrl_gtp.flow_map.errors import TimeWeight, check_time_weight, weighted_square
from torchrl_gtp.flow_map.flow_map import FlowMap
from torchrl_gtp.flow_map.linear_path import DyadicTimes
from torchrl_gtp.flow_map.objectives.base import Draw, Teacher, TermInputs
from torchrl_gtp.flow_map.time_sampling import TimeSampler

__all__ = ["Shortcut"]


@dataclass(frozen=True)
class Shortcut:
    """The self-consistency of shortcut models (arXiv 2410.12557).

    The jump from t to s is compared with two frozen jumps, from t to u and from u to s. Nothing
    here knows the data: the way down to steps of size 0 is the denoising term's, which must stand
    beside this one. The error is that of the end point, ``phi`` against
    ``(Phi^- - (s / t) a_t) / (1 - s / t)``; under the weight ``"velocity"`` that is the error of
    the mean velocity on the linear path, as published.

    Args:
        time_sampler (TimeSampler): gives (t, u, s) with ``t > u > s``. Defaults to
            ``DyadicTimes()``.
        time_weight ("edm", "noise", "velocity" or "none"): see
            :func:`~torchrl_gtp.flow_map.flow_error`. Defaults to ``"velocity"``.

    Raises:
        ValueError: for another ``time_weight``.
    """

    time_sampler: TimeSampler = field(default_factory=DyadicTimes)
    time_weight: TimeWeight = "velocity"

    def __post_init__(self) -> None:
        """Checks the options."""
        check_time_weight(self.time_weight)

    def draws(self, action_dim: int) -> dict[str, Draw]:
        """Lists the draws; see :class:`Term`."""
        return {"times": Draw("uniform", (2,)), "noise": Draw("normal", (action_dim,))}

    def __call__(self, flow_map: FlowMap, teacher: Teacher, inputs: TermInputs) -> Tensor:
        """Computes the errors; see :class:`Term`."""
        condition = inputs.condition
        t, u, s = self.time_sampler(inputs.draws["times"], inputs.progress, flow_map.noise_levels)
        action_t = inputs.action + t * inputs.draws["noise"]
        halfway = teacher(action_t, t, u, condition)
        target = (teacher(halfway, u, s, condition) - (s / t) * action_t) / (1 - s / t)
        residual = flow_map.endpoint(action_t, t, s, condition) - target
        return weighted_square(residual, t, flow_map.sigma_data, self.time_weight, inputs.valid)
