"""Samplers that always draw noise on the way: DDPM's and that of consistency models."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
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

    This is algorithm 1 of arXiv 2303.01469; K evaluations.

    Args:
        levels (sequence of float, optional): the K noise levels, decreasing. Consistency-AC (arXiv
            2309.16984) has ``(80.0, 2.0)``. K is then their number. Defaults to ``None``: Karras
            levels for any K.

    Raises:
        ValueError: unless the levels are finite, positive and decreasing.

    Examples:
        >>> ConsistencySampler().evaluations(2)
        2
    """

    levels: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Checks the levels, and makes them a tuple, as which they compare and hash."""
        if self.levels is None:
            return
        levels = tuple(float(level) for level in self.levels)
        falling = all(upper > lower for upper, lower in itertools.pairwise((*levels, 0.0)))
        if not levels or not falling or levels[0] == float("inf"):
            raise ValueError(
                f"levels must be finite, positive and decreasing noise levels, got {levels}."
            )
        object.__setattr__(self, "levels", levels)

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
            ValueError: with ``levels``, for another number of steps, or for a warm start.
        """
        if self.levels is None:
            times = sampling_times("karras", flow_map.noise_levels, num_steps, start_level, noise)
        else:
            if num_steps != len(self.levels):
                raise ValueError(
                    f"num_steps must be {len(self.levels)}, the number of levels={self.levels}; "
                    f"got {num_steps}. Set actor.num_steps (in a loss policy_num_steps), or leave "
                    "out levels."
                )
            if start_level is not None:
                raise ValueError("A ConsistencySampler with levels has no warm start: leave them.")
            # Filled on the device: a copy from the host could not be captured in a graph.
            times = torch.stack([noise.new_full((), level) for level in (*self.levels, 0.0)])
        draw = torch.randn_like if stochastic else torch.zeros_like
        return consistency_sample(flow_map, noise, condition, times, start, draw=draw)
