"""A start of sampling with the mean and the spread that noisy data have there."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchrl_gtp.flow_map.flow_map import FlowMap
from torchrl_gtp.flow_map.samplers import JumpSampler, Sampler
from torchrl_gtp.flow_map.stochastic_samplers import AncestralSampler

__all__ = ["MatchedStart"]


@dataclass(frozen=True)
class MatchedStart:
    """Begins at ``sigma_max`` as noisy data do, for one more evaluation of the denoiser.

    Samplers start at pure noise ``sigma_max z``. Noisy data ``a + sigma_max z`` have the mean of
    the data besides, under each condition, and their spread. At a small ``sigma_max``, which few
    jumps need, that is no small difference: a deterministic sampler carries it on to the actions,
    and too many of them go to the modes on the side of 0 (the flaw of a noise that does not end at
    zero signal, arXiv 2305.08891). This one starts at ``sigma_max z + D(sigma_max z / 2)`` with
    the denoiser D at ``sigma_max``.

    That is a step of the generative ODE from infinite noise. There its solution is
    ``a_t / t = z + integral from t to infinity of D(a_r, r) / r^2 dr``; for data of mean m and
    covariance C the denoiser on the way is ``m + C z / r`` at large r, and the integral
    ``(m + C z / (2 t)) / t``. ``D(sigma_max z / 2)`` is ``m + C z / (2 sigma_max)`` but for a share
    ``C / sigma_max^2`` of the mean: the start has the right covariance to first order in that
    share, and all of the mean but it. It needs a map whose denoiser has been trained: GTP, CTM,
    shortcut models, diffusion or flow matching; not consistency training or mean flow.

    A warm start from a level below ``sigma_max`` stays as it is. If the level is one number it
    costs no further evaluation; a tensor of levels does, since some of a batch may start cold. At
    ``sigma_max``, or without a level, a given start is replaced.

    Args:
        sampler (Sampler): how the steps go on from there. Defaults to ``JumpSampler()``.

    Raises:
        TypeError: for a sampler with levels of its own, an :class:`AncestralSampler` or a
            :class:`ConsistencySampler` with ``levels``, or for what is no sampler.

    Examples:
        >>> from torchrl_gtp.flow_map import MLPBackbone
        >>> flow_map = FlowMap(MLPBackbone(action_dim=2))
        >>> sampler = MatchedStart(JumpSampler())
        >>> sampler(flow_map, torch.randn(8, 2), None, num_steps=2).shape
        torch.Size([8, 2])
        >>> sampler.evaluations(num_steps=2)
        3
    """

    sampler: Sampler = field(default_factory=JumpSampler)

    def __post_init__(self) -> None:
        """Checks the sampler."""
        known = callable(self.sampler) and hasattr(self.sampler, "evaluations")
        own_levels = getattr(self.sampler, "levels", None) is not None
        refused = isinstance(self.sampler, (type, AncestralSampler, MatchedStart))
        if not known or own_levels or refused:
            raise TypeError(
                "sampler must be one that starts at sigma_max, such as JumpSampler() or "
                f"OdeSampler(), got {self.sampler!r}."
            )

    def evaluations(self, num_steps: int) -> int:
        """Returns one more than those of the sampler."""
        return self.sampler.evaluations(num_steps) + 1

    def start(self, flow_map: FlowMap, noise: Tensor, condition: Tensor | None) -> Tensor:
        """Computes what the first level of noise is added to: ``D(sigma_max z / 2)``.

        Args:
            flow_map (FlowMap): the flow map.
            noise (Tensor): standard normal noise [..., A].
            condition (Tensor, optional): condition [..., C].

        Returns:
            Tensor: the ``start`` [..., A] of the sampler.

        Examples:
            >>> from torchrl_gtp.flow_map import MLPBackbone
            >>> flow_map = FlowMap(MLPBackbone(action_dim=2))
            >>> MatchedStart().start(flow_map, torch.randn(8, 2), None).shape
            torch.Size([8, 2])
        """
        sigma_max = flow_map.noise_levels.sigma_max
        level = noise.new_full((*noise.shape[:-1], 1), sigma_max)
        return flow_map.denoise(0.5 * sigma_max * noise, level, condition)

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
        sigma_max = flow_map.noise_levels.sigma_max
        if start_level is None or isinstance(start_level, Tensor) or start_level >= sigma_max:
            cold = self.start(flow_map, noise, condition)
            if isinstance(start_level, Tensor):
                warm = torch.zeros_like(cold) if start is None else start
                is_cold = (start_level >= sigma_max).to(noise.device)
                cold = torch.where(is_cold, cold, warm)
            start = cold
        return self.sampler(
            flow_map,
            noise,
            condition,
            num_steps,
            start=start,
            start_level=start_level,
            bounds=bounds,
            stochastic=stochastic,
        )
