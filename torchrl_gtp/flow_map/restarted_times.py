"""A schedule of times that starts again and again during training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchrl_gtp.flow_map.noise_levels import NoiseLevels
from torchrl_gtp.flow_map.time_sampling import FlowMapTimes, KarrasGridTimes, TimeSampler

__all__ = ["RestartedTimes"]


@dataclass(frozen=True)
class RestartedTimes:
    """Runs the schedule of another time sampler several times over one training.

    The published code of Consistency-AC (arXiv 2309.16984) counts the steps of its curriculum
    anew in every period of 50,000 updates between two evaluations, so that a training of
    2,000,000 updates has 40 of them. With ``periods=1`` the schedule runs once, as in the
    publications on consistency models.

    Args:
        time_sampler (TimeSampler): the schedule of one period. Defaults to ``KarrasGridTimes()``.
        periods (float): the number of periods, at least 1: all updates over those of a period. The
            last one may be cut short. Defaults to ``1.0``.

    Raises:
        ValueError: unless ``periods`` is finite and at least 1.

    Examples:
        >>> times = RestartedTimes(KarrasGridTimes(first=10, last=10), periods=40)
        >>> times(torch.rand(8, 2), torch.tensor(0.51), NoiseLevels()).t.shape
        torch.Size([8, 1])
    """

    time_sampler: TimeSampler = field(default_factory=KarrasGridTimes)
    periods: float = 1.0

    def __post_init__(self) -> None:
        """Checks the options."""
        if not 1.0 <= self.periods < math.inf:
            raise ValueError(f"periods must be finite and at least 1, got {self.periods}.")

    def __call__(
        self, uniform: Tensor, progress: Tensor, noise_levels: NoiseLevels
    ) -> FlowMapTimes:
        """Turns uniform draws into times; see :class:`TimeSampler`."""
        return self.time_sampler(uniform, self._in_period(progress), noise_levels)

    def start(self, uniform: Tensor, progress: Tensor, noise_levels: NoiseLevels) -> Tensor:
        """Gives ``t`` alone; see :class:`TimeSampler`."""
        return self.time_sampler.start(uniform, self._in_period(progress), noise_levels)

    def _in_period(self, progress: Tensor) -> Tensor:
        # The end of training is the end of its last period, not the start of one more.
        return torch.where(progress >= 1, progress, (progress * self.periods).frac())
