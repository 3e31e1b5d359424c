"""Samplers that draw noise on the way: DDPM's and that of consistency models."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchrl_gtp.flow_map.flow_map import FlowMap
from torchrl_gtp.flow_map.samplers import sampling_times
from torchrl_gtp.flow_map.sampling import ancestral_sample, consistency_sample
from torchrl_gtp.flow_map.vp_schedule import VPSchedule

__all__ = ["AncestralSampler", "ConsistencySampler"]


@dataclass(frozen=True)
class AncestralSampler:
    """DDPM's sampler: noise is drawn again at every level (arXiv 2006.11239); K evaluations.

    Args:
        schedule (VPSchedule): the levels that the flow map was trained on. K must not exceed
            their number. Defaults to ``VPSchedule()``.
        clip (bool): whether denoised actions are clipped to the bounds at every level, as
            Diffusion-QL does. Defaults to ``True``.

    Examples:
        >>> AncestralSampler(VPSchedule(num_levels=5)).evaluations(5)
        5
    """

    schedule: VPSchedule = field(default_factory=VPSchedule)
    clip: bool = True

    def evaluations(self, num_steps: int) -> int:
        """Returns K."""
        return num_steps

    def __call__(
        self,
        flow_map: FlowMap,
        noise: Tensor,
        condition: Tensor | None,
        num_steps: int,
        *,
        start: Tensor | None = None,
        start_level: float | Tensor | None = None,
        bounds: tuple[Tensor, Tensor] | None = None,
        stochastic: bool = True,
    ) -> Tensor:
        """Takes noise to data; see :class:`Sampler`.

        Raises:
            ValueError: for more steps than the schedule has levels, or for a warm start.
        """
        if start is not None or start_level is not None:
            raise ValueError(
                "The levels of a VPSchedule are fixed, so AncestralSampler has no warm start: "
                "leave out start and start_level, or choose the sampler 'jumps', 'euler' or 'heun'."
            )
        times = self.schedule.times(num_steps, device=noise.device, dtype=noise.dtype)
        return ancestral_sample(
            flow_map,
            noise,
            condition,
            times,
            bounds=bounds if self.clip else None,
            draw=torch.randn_like if stochastic else torch.zeros_like,
        )


@dataclass(frozen=True)
class ConsistencySampler:
    """Multistep consistency sampling: jump to the data, noise it again, K times.

    This is algorithm 1 of arXiv 2303.01469 on Karras levels; K evaluations.

    Examples:
        >>> ConsistencySampler().evaluations(2)
        2
    """

    def evaluations(self, num_steps: int) -> int:
        """Returns K."""
        return num_steps

    def __call__(
        self,
        flow_map: FlowMap,
        noise: Tensor,
        condition: Tensor | None,
        num_steps: int,
        *,
        start: Tensor | None = None,
        start_level: float | Tensor | None = None,
        bounds: tuple[Tensor, Tensor] | None = None,
        stochastic: bool = True,
    ) -> Tensor:
        """Takes noise to data; see :class:`Sampler`."""
        times = sampling_times("karras", flow_map.noise_levels, num_steps, start_level, noise)
        draw = torch.randn_like if stochastic else torch.zeros_like
        return consistency_sample(flow_map, noise, condition, times, start, draw=draw)
