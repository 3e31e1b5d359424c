"""Pairs of times (t, s) that are drawn alike, as mean flow draws them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from torchrl_gtp.flow_map.noise_levels import NoiseLevels
from torchrl_gtp.flow_map.time_sampling import FlowMapTimes, LogNormalTimes

__all__ = ["PairedLogNormalTimes"]


@dataclass(frozen=True)
class PairedLogNormalTimes:
    """Two log-normal levels, the larger as ``t`` and the smaller as ``s``; often ``s = t``.

    Mean flow (arXiv 2505.13447) draws logit-normal times on the linear path. Because
    ``t = r / (1 - r)``, the logit of r is ``ln t``: these are log-normal noise levels.

    Args:
        mean (float): mean of ``ln t``. Defaults to ``-0.4``.
        std (float): standard deviation of ``ln t``. Defaults to ``1.0``.
        equal_share (float): share of samples with ``s = t``, in [0, 1). Defaults to ``0.75``.

    Raises:
        ValueError: for options outside the ranges above.

    Examples:
        >>> times = PairedLogNormalTimes()(torch.rand(8, 2), torch.tensor(0.0), NoiseLevels())
        >>> bool((times.s <= times.t).all()), bool((times.u == times.t).all())
        (True, True)
    """

    mean: float = -0.4
    std: float = 1.0
    equal_share: float = 0.75

    def __post_init__(self) -> None:
        """Checks the options."""
        if not (math.isfinite(self.mean) and 0.0 < self.std < math.inf):
            raise ValueError(
                f"mean must be finite and std positive, got mean={self.mean} and std={self.std}."
            )
        if not 0.0 <= self.equal_share < 1.0:
            raise ValueError(f"equal_share must lie in [0, 1), got {self.equal_share}.")

    def __call__(
        self, uniform: Tensor, progress: Tensor, noise_levels: NoiseLevels
    ) -> FlowMapTimes:
        """Turns uniform draws into times; see :class:`TimeSampler`."""
        # One draw decides whether s = t and, stretched again, where the second level falls.
        second, share = uniform[..., 1:], self.equal_share
        is_equal = second < share
        stretched = torch.where(is_equal, second / share, (second - share) / (1 - share))
        one = self.start(uniform[..., :1], progress, noise_levels)
        other = self.start(stretched, progress, noise_levels)
        t = torch.maximum(one, other)
        return FlowMapTimes(t, t, torch.where(is_equal, t, torch.minimum(one, other)))

    def start(self, uniform: Tensor, progress: Tensor, noise_levels: NoiseLevels) -> Tensor:
        """Gives ``t`` alone; see :class:`TimeSampler`."""
        return LogNormalTimes(self.mean, self.std).start(uniform, progress, noise_levels)
