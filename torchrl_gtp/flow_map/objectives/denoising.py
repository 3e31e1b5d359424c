"""The denoising term: it trains the diagonal ``phi(., t, t)`` of the flow map."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from torchrl_gtp.flow_map.errors import TimeWeight, check_time_weight, flow_error
from torchrl_gtp.flow_map.flow_map import FlowMap
from torchrl_gtp.flow_map.objectives.base import Draw, Teacher, TermInputs
from torchrl_gtp.flow_map.time_sampling import LogNormalTimes, StartSampler, check_time_sampler

__all__ = ["Denoising"]


@dataclass(frozen=True)
class Denoising:
    """The error of the denoiser, ``||a - phi(a_t, t, t)||^2`` (paper, eq. 8).

    Diffusion, DDPM and flow matching are this term; they differ in where t falls and in the
    weight, which decides whether the error is that of the denoiser, of the predicted noise or of
    the velocity on the linear path.

    Args:
        time_sampler (StartSampler): gives t. Defaults to ``LogNormalTimes()``.
        time_weight ("edm", "noise", "velocity" or "none"): see
            :func:`~torchrl_gtp.flow_map.flow_error`. Defaults to ``"edm"``.

    Raises:
        ValueError: for another ``time_weight``.
        TypeError: if ``time_sampler`` gives no t.
    """

    time_sampler: StartSampler = field(default_factory=LogNormalTimes)
    time_weight: TimeWeight = "edm"

    def __post_init__(self) -> None:
        """Checks the options."""
        check_time_sampler(self.time_sampler, start_only=True)
        check_time_weight(self.time_weight)

    def draws(self, action_dim: int) -> dict[str, Draw]:
        """Lists the draws; see :class:`Term`."""
        return {"time": Draw("uniform", (1,)), "noise": Draw("normal", (action_dim,))}

    def __call__(self, flow_map: FlowMap, teacher: Teacher, inputs: TermInputs) -> Tensor:
        """Computes the errors; see :class:`Term`."""
        t = self.time_sampler.start(inputs.draws["time"], inputs.progress, flow_map.noise_levels)
        return flow_error(
            flow_map,
            inputs.action,
            inputs.draws["noise"],
            t,
            inputs.condition,
            time_weight=self.time_weight,
            valid=inputs.valid,
        )
