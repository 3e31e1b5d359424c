"""The mean-flow term: the derivative of a flow map along its own trajectories is zero."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchrl_gtp.flow_map.errors import num_valid, robust_weight, weighted_square
from torchrl_gtp.flow_map.flow_map import FlowMap
from torchrl_gtp.flow_map.objectives.base import Draw, Teacher, TermInputs
from torchrl_gtp.flow_map.paired_times import PairedLogNormalTimes
from torchrl_gtp.flow_map.time_sampling import TimeSampler, check_time_sampler

__all__ = ["MeanFlow"]


@dataclass(frozen=True)
class MeanFlow:
    """The mean-flow identity (arXiv 2505.13447), which needs no teacher.

    With the mean velocity ``U`` over [s, t] of the linear path, the identity is
    ``U = v - (r_t - r_s) dU/dr``, whose derivative runs along the path of the sample. Its right
    side is the target, without gradient. In terms of the end point that reads

    ``phi - (1 + t) / (1 + s) * ((s / t) (phi - a) + (t - s) dphi/dt)``

    with ``dphi/dt`` the derivative in the direction ``(z, 1)`` of ``(a_t, t)``, a forward-mode
    derivative (``torch.func.jvp``). At ``s = t`` the target is the clean action: this is flow
    matching. The end point's error is weighted by ``(1 + t)^2 / t^2``, which makes it the error of
    ``U``.

    Args:
        time_sampler (TimeSampler): gives t and s. Defaults to ``PairedLogNormalTimes()``.
        robust_power (float): exponent of the adaptive weight ``1 / (error + 0.001)^power``, in
            [0, 1], where ``error`` is its mean over the action dimensions that are not padded.
            With the published value the loss stays near their number while it learns. Defaults
            to ``1.0``.

    Raises:
        ValueError: if ``robust_power`` is out of range.
        TypeError: if ``time_sampler`` gives no (t, s).
    """

    time_sampler: TimeSampler = field(default_factory=PairedLogNormalTimes)
    robust_power: float = 1.0

    def __post_init__(self) -> None:
        """Checks the options."""
        check_time_sampler(self.time_sampler)
        if not 0.0 <= self.robust_power <= 1.0:
            raise ValueError(f"robust_power must lie in [0, 1], got {self.robust_power}.")

    def draws(self, action_dim: int) -> dict[str, Draw]:
        """Lists the draws; see :class:`Term`."""
        return {"times": Draw("uniform", (2,)), "noise": Draw("normal", (action_dim,))}

    def __call__(self, flow_map: FlowMap, teacher: Teacher, inputs: TermInputs) -> Tensor:
        """Computes the errors; see :class:`Term`."""
        action, noise, condition = inputs.action, inputs.draws["noise"], inputs.condition
        t, _, s = self.time_sampler(inputs.draws["times"], inputs.progress, flow_map.noise_levels)
        start, end = t.to(action.dtype), s.to(action.dtype)

        def endpoint(action_t: Tensor, level: Tensor) -> Tensor:
            return flow_map.endpoint(action_t, level, end, condition)

        # Along the path of the sample da_t/dt = z.
        point, direction = (action + start * noise, start), (noise, torch.ones_like(start))
        derivative = torch.func.jvp(endpoint, point, direction)
        phi, rate = derivative[0], derivative[1]
        identity = (s / t) * (phi - action) + (t - s) * rate
        target = (phi - (1 + t) / (1 + s) * identity).detach()
        error = weighted_square(phi - target, t, flow_map.sigma_data, "velocity", inputs.valid)
        if self.robust_power:
            mean_error = error / num_valid(action, inputs.valid)
            error = error * robust_weight(mean_error, self.robust_power, 0.001)
        return error
