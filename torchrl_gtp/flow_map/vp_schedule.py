"""The variance-preserving schedule of DDPM policies in terms of noise levels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from torchrl_gtp.flow_map.noise_levels import NoiseLevels

__all__ = ["VPSchedule"]


@dataclass(frozen=True)
class VPSchedule:
    """The discrete variance-preserving schedule of Diffusion-QL (arXiv 2208.06193).

    DDPM noises by ``x_i = sqrt(abar_i) a + sqrt(1 - abar_i) z``, which is
    ``sqrt(abar_i) a_t`` at the noise level ``t_i = sqrt((1 - abar_i) / abar_i)``. The schedule has

    ``-ln abar_i = beta_min i / T + (beta_max - beta_min) i^2 / (2 T^2)``.

    The levels are its own and may lie above ``sigma_max``: the flow map does not bound its times.

    Args:
        num_levels (int): the number T of levels. Defaults to ``5``.
        beta_min (float): first rate of the noise. Defaults to ``0.1``.
        beta_max (float): last rate of the noise. Defaults to ``10.0``.

    Raises:
        ValueError: unless ``num_levels >= 1`` and ``0 < beta_min <= beta_max``, finite.

    Examples:
        >>> VPSchedule().betas()
        tensor([0.1959, 0.4588, 0.6358, 0.7549, 0.8350])
        >>> VPSchedule().times(2)
        tensor([12.4508,  1.1393,  0.0000])
    """

    num_levels: int = 5
    beta_min: float = 0.1
    beta_max: float = 10.0

    def __post_init__(self) -> None:
        """Checks the options."""
        if self.num_levels < 1:
            raise ValueError(f"num_levels must be at least 1, got {self.num_levels}.")
        if not 0.0 < self.beta_min <= self.beta_max < math.inf:
            raise ValueError(
                "VPSchedule needs 0 < beta_min <= beta_max < inf, got "
                f"beta_min={self.beta_min} and beta_max={self.beta_max}."
            )

    def betas(self) -> Tensor:
        """Returns the variances ``beta_i = 1 - abar_i / abar_{i-1}``, shape [T]."""
        exponent = self._exponent(torch.arange(self.num_levels + 1.0))
        return -torch.expm1(-exponent.diff())

    def level(self, index: Tensor) -> Tensor:
        """Computes the noise level ``t_i`` of indices i in 0 (data) to T, of any shape."""
        return torch.expm1(self._exponent(index)).sqrt()

    def times(
        self,
        num_steps: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Returns ``t_T > ... > 0``, K + 1 levels: all of them, or K of T spread evenly.

        Raises:
            ValueError: unless ``1 <= num_steps <= num_levels``.
        """
        if not 1 <= num_steps <= self.num_levels:
            raise ValueError(
                f"num_steps must lie in [1, {self.num_levels}], the number of levels of the "
                f"schedule; got {num_steps}. Train with VPSchedule(num_levels={num_steps})."
            )
        dtype = dtype or torch.get_default_dtype()
        # On the device from the start: a copy from the host could not be captured in a graph.
        precise = torch.promote_types(dtype, torch.float32)
        steps = num_steps + 1
        index = torch.linspace(self.num_levels, 0, steps, dtype=precise, device=device).round()
        return self.level(index).to(dtype)

    def start(self, uniform: Tensor, progress: Tensor, noise_levels: NoiseLevels) -> Tensor:
        """Gives a uniformly drawn level; see :class:`~torchrl_gtp.flow_map.StartSampler`."""
        # The draw may round up to 1.
        return self.level((uniform * self.num_levels).floor().clamp_max(self.num_levels - 1) + 1)

    def _exponent(self, index: Tensor) -> Tensor:
        share = index / self.num_levels
        return self.beta_min * share + 0.5 * (self.beta_max - self.beta_min) * share.square()
