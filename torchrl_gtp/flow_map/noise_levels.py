"""Noise levels: the range that a flow map is defined on, and grids over it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["NoiseLevels", "doubling_curriculum", "square_root_curriculum"]


@dataclass(frozen=True)
class NoiseLevels:
    """The range of noise levels and its Karras spacing (arXiv 2206.00364, eq. 5).

    Time is the noise level itself: ``a_t = a + t z`` with ``z ~ N(0, I)``, so that ``t = 0`` is
    data and ``t = sigma_max`` is noise.

    Args:
        sigma_min (float): smallest noise level that is told apart from 0. Defaults to ``0.002``.
        sigma_max (float): the level that sampling starts from, as if nothing were left of the data
            there. Defaults to ``3.0``: actions live in [-1, 1], and few jumps get better with
            less to cross. Data whose mean is far from 0 shine through at 3; with many steps they
            take 10. The paper's value is ``80.0``.
        rho (float): curvature of the spacing; larger values put more levels near the data.
            Defaults to ``7.0``.

    Raises:
        ValueError: unless ``0 < sigma_min < sigma_max`` and ``rho >= 1``, all finite.

    Examples:
        >>> [round(time, 3) for time in NoiseLevels(sigma_max=80.0).jump_times(2).tolist()]
        [80.0, 2.515, 0.0]
    """

    sigma_min: float = 0.002
    sigma_max: float = 3.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        """Checks the range."""
        if not 0.0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(
                "NoiseLevels needs 0 < sigma_min < sigma_max < inf, got "
                f"sigma_min={self.sigma_min} and sigma_max={self.sigma_max}."
            )
        if not 1.0 <= self.rho < math.inf:
            raise ValueError(f"NoiseLevels needs a finite rho >= 1, got rho={self.rho}.")

    def at(self, position: Tensor) -> Tensor:
        """Maps positions in [0, 1] to noise levels, from ``sigma_max`` down to ``sigma_min``.

        Args:
            position (Tensor): positions along the Karras spacing; 0 is noise, 1 is data.

        Returns:
            Tensor: noise levels of the same shape, dtype and device.
        """
        return self._spaced(position, self.sigma_max, self.sigma_min)

    def position(self, level: Tensor) -> Tensor:
        """Maps noise levels to positions in [0, 1]: the inverse of :meth:`at`."""
        first = self.sigma_max ** (1 / self.rho)
        return (level ** (1 / self.rho) - first) / (self.sigma_min ** (1 / self.rho) - first)

    def karras(
        self,
        num_levels: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Returns ``num_levels`` Karras levels from ``sigma_max`` to ``sigma_min``, shape [N]."""
        if num_levels < 2:
            raise ValueError(f"num_levels must be at least 2, got {num_levels}.")
        return self.at(torch.linspace(0.0, 1.0, num_levels, device=device, dtype=dtype))

    def jump_times(
        self,
        num_steps: int,
        *,
        start: float | Tensor | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Returns the times ``t_0 > ... > t_K = 0`` of a K-jump sampler (paper, eq. 12).

        These are K + 1 levels, spaced after Karras between ``t_0`` and ``sigma_min``, of which
        the last is replaced by 0, so that the sampler ends on the data.

        Args:
            num_steps (int): the number of jumps K, at least 1.
            start (float or Tensor, optional): the level ``t_0`` to start from, in
                [0, ``sigma_max``]. A tensor may have any shape; its values are clamped to that
                range, because a test of them would stall an accelerator. Below ``sigma_min`` all
                jumps but the last stay at ``t_0``. Defaults to ``sigma_max``.
            device (torch.device, optional): device of the result.
            dtype (torch.dtype, optional): dtype of the result.

        Returns:
            Tensor: the times, shape [K + 1], or [K + 1, *S] for ``start`` of shape S.

        Raises:
            ValueError: if ``num_steps`` is smaller than 1, or ``start`` is a number out of range.

        Examples:
            >>> [round(time, 3) for time in NoiseLevels().jump_times(2, start=1.0).tolist()]
            [1.0, 0.087, 0.0]
        """
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1 jump, got {num_steps}.")
        times = self._below(start, num_steps + 1, device, dtype)
        # Assigned, a 0.0 would be copied from the host, which a CUDA graph does not capture.
        return torch.cat([times[:-1], torch.zeros_like(times[:1])])

    def edm_times(
        self,
        num_steps: int,
        *,
        start: float | Tensor | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Returns the times of EDM's sampler (arXiv 2206.00364, eq. 5 and algorithm 1).

        These are K levels, spaced after Karras from ``t_0`` down to ``sigma_min`` itself, and then
        0; :meth:`jump_times` has no level at ``sigma_min``, and so larger steps before the last.

        Args:
            num_steps (int): the number of steps K, at least 1.
            start (float or Tensor, optional): the level ``t_0``; see :meth:`jump_times`.
            device (torch.device, optional): device of the result.
            dtype (torch.dtype, optional): dtype of the result.

        Returns:
            Tensor: the times, shape [K + 1], or [K + 1, *S] for ``start`` of shape S.

        Raises:
            ValueError: if ``num_steps`` is smaller than 1, or ``start`` is a number out of range.

        Examples:
            >>> [round(time, 3) for time in NoiseLevels(sigma_max=80.0).edm_times(3).tolist()]
            [80.0, 2.515, 0.002, 0.0]
        """
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1 step, got {num_steps}.")
        levels = self._below(start, num_steps, device, dtype)
        return torch.cat([levels, torch.zeros_like(levels[:1])])

    def between(self, start: Tensor, end: Tensor, num_steps: int) -> Tensor:
        """Returns ``num_steps + 1`` levels from ``start`` to ``end``, spaced after Karras.

        Args:
            start (Tensor): noise levels, non-negative, of any shape S.
            end (Tensor): noise levels of the same shape, not above ``start``.
            num_steps (int): the number of steps, at least 1.

        Returns:
            Tensor: the levels [num_steps + 1, *S], ``start`` and ``end`` among them exactly.

        Examples:
            >>> levels = NoiseLevels().between(torch.tensor(2.0), torch.tensor(0.5), 2)
            >>> [round(level, 3) for level in levels.tolist()]
            [2.0, 1.035, 0.5]
        """
        position = torch.linspace(0.0, 1.0, num_steps + 1, dtype=start.dtype, device=start.device)
        inner = self._spaced(position[1:-1].reshape(-1, *(1,) * start.ndim), start, end)
        return torch.cat([start[None], inner, end[None]])

    def _below(
        self,
        start: float | Tensor | None,
        num_levels: int,
        device: torch.device | None,
        dtype: torch.dtype | None,
    ) -> Tensor:
        """Returns levels from ``start`` down to ``sigma_min``; a single one is ``start``."""
        position = torch.linspace(0.0, 1.0, num_levels, device=device, dtype=dtype)
        if start is None:
            return self.at(position)
        if isinstance(start, Tensor):
            start = start.to(device=device, dtype=dtype).clamp(0.0, self.sigma_max)
            end = start.clamp_max(self.sigma_min)
            return self._spaced(position.reshape(-1, *(1,) * start.ndim), start, end)
        if not 0.0 <= start <= self.sigma_max:
            raise ValueError(
                f"start must be a noise level in [0, sigma_max={self.sigma_max}], got {start}."
            )
        return self._spaced(position, start, min(start, self.sigma_min))

    def _spaced(self, position: Tensor, start: float | Tensor, end: float | Tensor) -> Tensor:
        root = start ** (1 / self.rho)
        return (root + position * (end ** (1 / self.rho) - root)) ** self.rho


def doubling_curriculum(progress: Tensor, first: int = 10, last: int = 1280) -> Tensor:
    """Computes the number of grid nodes ``N(k)``, which doubles over training.

    ``N(k) = min(first * 2^floor(k / K'), last) + 1`` with ``K' = floor(K / (log2(last / first) +
    1))`` for update ``k`` of ``K`` (the paper's curriculum, after improved consistency training,
    arXiv 2310.14189). In terms of the progress, a stage lasts ``1 / (log2(last / first) + 1)``;
    both agree exactly for ``progress = k / (K' * (log2(last / first) + 1))``.

    Args:
        progress (Tensor): share of training done, in [0, 1] (values outside are clamped).
        first (int): number of intervals at the start. Defaults to ``10``.
        last (int): number of intervals at the end, ``first`` times a power of two.
            Defaults to ``1280``.

    Returns:
        Tensor: the number of nodes, of the shape, dtype and device of ``progress``. It stays a
        tensor so that a captured graph follows it.

    Raises:
        ValueError: if ``last / first`` is not a power of two.

    Examples:
        >>> import torch
        >>> doubling_curriculum(torch.tensor([0.0, 0.125, 0.25, 1.0]))
        tensor([  11.,   21.,   41., 1281.])
    """
    doublings = _doublings(first, last)
    stage = (progress * (doublings + 1)).floor().clamp(0, doublings)
    return first * torch.exp2(stage) + 1


def square_root_curriculum(progress: Tensor, first: int = 1, last: int = 149) -> Tensor:
    """Computes the number of grid nodes of the first consistency models, which grows as a root.

    ``N(k) = ceil(sqrt(k / K (N_1^2 - N_0^2) + N_0^2))`` for update ``k`` of ``K``, from
    ``N_0 = first + 1`` to ``N_1 = last + 1`` nodes: after arXiv 2303.01469, appendix C, in the
    form of Consistency-AC's published code, which goes from 2 to 150 nodes.

    Args:
        progress (Tensor): share of training done, in [0, 1] (values outside are clamped).
        first (int): number of intervals at the start. Defaults to ``1``.
        last (int): number of intervals at the end, at least ``first``. Defaults to ``149``.

    Returns:
        Tensor: the number of nodes, of the shape, dtype and device of ``progress``.

    Raises:
        ValueError: unless ``1 <= first <= last``.

    Examples:
        >>> import torch
        >>> square_root_curriculum(torch.tensor([0.0, 0.25, 1.0]))
        tensor([  2.,  76., 150.])
    """
    if not 1 <= first <= last:
        raise ValueError(f"1 <= first <= last is needed, got first={first} and last={last}.")
    start, end = (first + 1) ** 2, (last + 1) ** 2
    return (progress.clamp(0, 1) * (end - start) + start).sqrt().ceil()


def _doublings(first: int, last: int) -> int:
    ratio, remainder = divmod(last, first) if first > 0 else (0, 0)
    doublings = ratio.bit_length() - 1
    if remainder or ratio < 1 or ratio != 2**doublings:
        raise ValueError(f"last / first must be a power of two, got {last} / {first}.")
    return doublings
