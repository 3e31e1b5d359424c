"""The linear path of flow matching in terms of noise levels.

On the linear path ``x_r = (1 - r) a + r z`` with r from 0 (data) to 1 (noise). It is the same ODE
as that of ``a_t = a + t z`` under ``r = t / (1 + t)`` and ``x_r = a_t / (1 + t)``: only the
spacing of times and the weight of an error are its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchrl_gtp.flow_map.noise_levels import NoiseLevels
from torchrl_gtp.flow_map.time_sampling import FlowMapTimes

__all__ = ["DyadicTimes", "LinearPathTimes", "linear_path_times", "noise_level", "path_time"]


def path_time(t: Tensor) -> Tensor:
    """Computes the time ``r = t / (1 + t)`` on the linear path from a noise level.

    Examples:
        >>> path_time(torch.tensor([0.0, 1.0, 3.0]))
        tensor([0.0000, 0.5000, 0.7500])
    """
    return t / (1 + t)


def noise_level(r: Tensor) -> Tensor:
    """Computes the noise level ``t = r / (1 - r)`` from a time on the linear path, below 1.

    Examples:
        >>> noise_level(torch.tensor([0.0, 0.5, 0.75]))
        tensor([0., 1., 3.])
    """
    return r / (1 - r)


def linear_path_times(start: Tensor, num_steps: int) -> Tensor:
    """Returns noise levels from ``start`` to 0 at equal distances on the linear path.

    Args:
        start (Tensor): noise levels of any shape S, non-negative.
        num_steps (int): the number of steps K.

    Returns:
        Tensor: the levels [K + 1, *S].

    Examples:
        >>> linear_path_times(torch.tensor(3.0), 3)
        tensor([3.0000, 1.0000, 0.3333, 0.0000])
    """
    share = torch.linspace(1.0, 0.0, num_steps + 1, dtype=start.dtype, device=start.device)
    levels = noise_level(share.reshape(-1, *(1,) * start.ndim) * path_time(start))
    # The way there and back rounds; a jump must start where the noise was scaled.
    return torch.cat([start[None], levels[1:]])


@dataclass(frozen=True)
class LinearPathTimes:
    """Times that are uniform on the linear path: flow matching (arXiv 2210.02747).

    ``r`` is uniform between 0 and ``sigma_max / (1 + sigma_max)``; the noise level ``r / (1 - r)``
    is kept above ``sigma_min``.

    Examples:
        >>> times = LinearPathTimes()
        >>> uniform = torch.tensor([[0.0], [0.55]])
        >>> times.start(uniform, torch.tensor(0.0), NoiseLevels(sigma_max=10.0))
        tensor([[0.0020],
                [1.0000]])
    """

    def start(self, uniform: Tensor, progress: Tensor, noise_levels: NoiseLevels) -> Tensor:
        """Gives ``t`` alone; see :class:`TimeSampler`."""
        return _level_at(uniform, noise_levels).clamp_min(noise_levels.sigma_min)


@dataclass(frozen=True)
class DyadicTimes:
    """Steps of ``2^-k`` of the linear path with their midpoints (arXiv 2410.12557).

    The step's size is drawn among ``1, 1/2, ..., 1 / num_steps`` and its place among those that
    divide the path; ``t`` and ``s`` are its ends and ``u`` the midpoint of both on the linear path.

    Args:
        num_steps (int): steps of the smallest size that fit in the path, a power of two. Defaults
            to ``64``: the published sizes end with 1/128, whose place a denoiser takes.

    Raises:
        ValueError: if ``num_steps`` is not a power of two.

    Examples:
        >>> times = DyadicTimes()(torch.zeros(1, 2), torch.tensor(0.0), NoiseLevels(sigma_max=3.0))
        >>> [round(level.item(), 4) for level in times]  # the whole path, and its middle
        [3.0, 0.6, 0.0]
    """

    num_steps: int = 64

    def __post_init__(self) -> None:
        """Checks the options."""
        if self.num_steps < 1 or self.num_steps & (self.num_steps - 1):
            raise ValueError(f"num_steps must be a power of two, got {self.num_steps}.")

    def __call__(
        self, uniform: Tensor, progress: Tensor, noise_levels: NoiseLevels
    ) -> FlowMapTimes:
        """Turns uniform draws into times; see :class:`TimeSampler`."""
        largest = self.num_steps.bit_length() - 1
        count = torch.exp2((uniform[..., :1] * (largest + 1)).floor().clamp_max(largest))
        # The draw may round up to 1.
        place = (uniform[..., 1:] * count).floor().minimum(count - 1)
        t, u, s = (_level_at((place + offset) / count, noise_levels) for offset in (1.0, 0.5, 0.0))
        return FlowMapTimes(t, u, s)

    def start(self, uniform: Tensor, progress: Tensor, noise_levels: NoiseLevels) -> Tensor:
        """Gives ``t`` alone, uniform on the linear path; see :class:`TimeSampler`."""
        return LinearPathTimes().start(uniform, progress, noise_levels)


def _level_at(share: Tensor, noise_levels: NoiseLevels) -> Tensor:
    """The noise level at a share of the linear path up to ``sigma_max``."""
    longest = noise_levels.sigma_max / (1 + noise_levels.sigma_max)
    return noise_level(share * longest).clamp_max(noise_levels.sigma_max)
