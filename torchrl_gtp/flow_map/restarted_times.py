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
    anew in every period of 50,000 updates between two evaluations: ``period_updates=50_000``,
    which makes 40 periods of a training of 2,000,000 updates. With one period, the default, the
    schedule runs once, as in the publications on consistency models.

    Args:
        time_sampler (TimeSampler): the schedule of one period. Defaults to ``KarrasGridTimes()``.
        periods (float, optional): the number of periods: all updates over those of a period. The
            last one may be cut short, and below 1 the only one is. Defaults to ``None``:
            ``num_updates / period_updates``, or 1 without them.
        period_updates (int, optional): updates of a period, in the place of ``periods``.
        num_updates (int, optional): updates of the whole training, beside ``period_updates``.

    Raises:
        ValueError: unless ``periods`` is positive and finite, for one of ``period_updates`` and
            ``num_updates`` without the other or below 1, or for both beside ``periods``.

    Examples:
        >>> growing = KarrasGridTimes(1, 149, end="data", growth="square_root")
        >>> times = RestartedTimes(growing, period_updates=50_000, num_updates=2_000_000)
        >>> times.num_periods
        40.0
        >>> times(torch.rand(8, 2), torch.tensor(0.51), NoiseLevels()).t.shape
        torch.Size([8, 1])

        A training that is shorter than a period runs through its share of the schedule:

        >>> RestartedTimes(growing, period_updates=50_000, num_updates=10_000).num_periods
        0.2
    """

    time_sampler: TimeSampler = field(default_factory=KarrasGridTimes)
    periods: float | None = None
    period_updates: int | None = None
    num_updates: int | None = None

    def __post_init__(self) -> None:
        """Checks the options."""
        counts = (self.period_updates, self.num_updates)
        if counts == (None, None):
            if not 0.0 < self.num_periods < math.inf:
                raise ValueError(f"periods must be positive and finite, got {self.periods}.")
            return
        if any(count is None or count < 1 for count in counts):
            raise ValueError(
                "period_updates and num_updates go together and are at least 1, got "
                f"period_updates={self.period_updates} and num_updates={self.num_updates}."
            )
        if self.periods is not None:
            raise ValueError(
                f"periods={self.periods} is the number that period_updates={self.period_updates} "
                f"and num_updates={self.num_updates} give: leave it or them out."
            )

    @property
    def num_periods(self) -> float:
        """The number of periods in the whole training."""
        if self.period_updates is not None and self.num_updates is not None:
            return self.num_updates / self.period_updates
        return 1.0 if self.periods is None else self.periods

    def __call__(
        self, uniform: Tensor, progress: Tensor, noise_levels: NoiseLevels
    ) -> FlowMapTimes:
        """Turns uniform draws into times; see :class:`TimeSampler`."""
        return self.time_sampler(uniform, self._in_period(progress), noise_levels)

    def start(self, uniform: Tensor, progress: Tensor, noise_levels: NoiseLevels) -> Tensor:
        """Gives ``t`` alone; see :class:`TimeSampler`."""
        return self.time_sampler.start(uniform, self._in_period(progress), noise_levels)

    def _in_period(self, progress: Tensor) -> Tensor:
        periods = self.num_periods
        # The end of training is the end of its last period, not the start of one more.
        end = torch.full_like(progress, periods - math.ceil(periods) + 1)
        return torch.where(progress >= 1, end, (progress * periods).frac())
