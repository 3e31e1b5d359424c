"""Jumps and solvers, ways from noise to an action, as objects that an actor holds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from torchrl_gtp.flow_map.flow_map import FlowMap
from torchrl_gtp.flow_map.linear_path import linear_path_times
from torchrl_gtp.flow_map.noise_levels import NoiseLevels
from torchrl_gtp.flow_map.sampling import OdeMethod, few_step_sample, ode_sample

__all__ = ["JumpSampler", "JumpSpacing", "OdeSampler", "Sampler", "Spacing", "sampling_times"]

JumpSpacing = Literal["karras", "linear"]
# Jumps have no use for EDM's level at sigma_min, which spends an evaluation on next to nothing.
Spacing = Literal["karras", "linear", "edm"]


class Sampler(Protocol):
    """What an actor needs of a sampler: a function of tensors, without state."""

    def evaluations(self, num_steps: int) -> int:
        """Returns the number of network evaluations of K steps: the most where samples differ."""
        ...

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
        """Takes noise to data.

        Args:
            flow_map (FlowMap): the flow map.
            noise (Tensor): standard normal noise [..., A].
            condition (Tensor, optional): condition [..., C].
            num_steps (int): the number of steps K.
            start (Tensor, optional): actions [..., A] for a warm start from ``start + t z``.
            start_level (float or Tensor, optional): its noise level t, [] or [..., 1].
            bounds (pair of Tensor, optional): the bounds of an action, each [A], for samplers that
                clip denoised actions on the way.
            stochastic (bool): whether samplers that draw noise on the way do so; without it they
                are functions of ``noise``. Defaults to ``True``.

        Returns:
            Tensor: actions [..., A], not clamped.
        """
        ...


@dataclass(frozen=True)
class JumpSampler:
    """K jumps of the flow map, deterministic ones by default (paper, eq. 12); K evaluations.

    Args:
        spacing ("karras" or "linear"): the times of the jumps: Karras levels, or equal distances
            on the linear path, as shortcut models and mean flow have. Defaults to ``"karras"``.
        times (sequence of float, optional): the noise levels ``t_1 > ... > t_{K-1}`` between the
            ends, for one number of jumps K, as :func:`~torchrl_gtp.flow_map.fit_times` finds them;
            in the place of a spacing. A warm start from a level below leaves them out. Defaults to
            ``None``: the times of the spacing.
        gamma (float): share of the noise (of its standard deviation) that is drawn afresh between
            the jumps, in [0, 1], as CTM does (arXiv 2310.02279); see :func:`few_step_sample`. What
            0.9 is worth was measured (``docs/few_step_quality.md``). Without ``stochastic``
            sampling it counts as 0, so that a map which was trained to jump to the data alone
            needs :class:`ConsistencySampler`, not 1. Defaults to ``0.0``: no noise is added.

    Raises:
        ValueError: for another ``spacing`` or a ``gamma`` out of range; if ``times`` are not
            positive and strictly decreasing, or given together with a spacing; in a call, if they
            do not begin below ``sigma_max`` or are for another number of jumps.

    Examples:
        >>> import torch
        >>> from torchrl_gtp.flow_map import MLPBackbone
        >>> flow_map = FlowMap(MLPBackbone(action_dim=2))
        >>> JumpSampler()(flow_map, torch.randn(8, 2), None, num_steps=5).shape
        torch.Size([8, 2])
        >>> JumpSampler(times=(1.0, 0.2))(flow_map, torch.randn(8, 2), None, num_steps=3).shape
        torch.Size([8, 2])
    """

    spacing: JumpSpacing = "karras"
    times: Sequence[float] | None = None
    gamma: float = 0.0

    def __post_init__(self) -> None:
        """Checks the options."""
        _check_spacing(self.spacing, get_args(JumpSpacing))
        if not 0.0 <= self.gamma <= 1.0:
            raise ValueError(f"gamma must lie in [0, 1], got {self.gamma}.")
        if self.times is not None:
            # A config gives a list, which has no hash.
            times = tuple(float(time) for time in self.times)
            object.__setattr__(self, "times", times)
            _check_times(times, self.spacing)

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
        levels = flow_map.noise_levels
        if self.times is None:
            times = sampling_times(self.spacing, levels, num_steps, start_level, noise)
        else:
            times = _with_ends(self.times, levels, num_steps, start_level, noise)
        gamma = self.gamma if stochastic else 0.0
        return few_step_sample(flow_map, noise, condition, times, start, gamma=gamma)


def _with_ends(
    between: Sequence[float],
    noise_levels: NoiseLevels,
    num_steps: int,
    start_level: float | Tensor | None,
    noise: Tensor,
) -> Tensor:
    if len(between) + 1 != num_steps:
        raise ValueError(
            f"JumpSampler(times={between}) is for num_steps={len(between) + 1}, got "
            f"num_steps={num_steps}. Set num_steps, or give num_steps - 1 times."
        )
    if between and between[0] >= noise_levels.sigma_max:
        raise ValueError(
            f"times must lie below sigma_max={noise_levels.sigma_max}, where the jumps start; got "
            f"{between}."
        )
    start, end = noise_levels.jump_times(
        1, start=start_level, dtype=noise.dtype, device=noise.device
    )
    # From a lower start the jumps to levels above it stay where they are.
    return torch.stack([start, *(start.clamp_max(time) for time in between), end])


@dataclass(frozen=True)
class OdeSampler:
    """An ODE solver on the denoiser: how diffusion and flow matching sample.

    An Euler step is the same on the linear path and in noise levels, and is the DDIM step of
    diffusion models. Heun's step is not: ``"heun"`` is that of EDM, which averages the velocities
    of ``a_t``, and ``"linear_heun"`` that of flow matching, which averages those of ``x_r``.

    Args:
        method ("euler", "heun" or "linear_heun"): K evaluations, or 2 K - 1 of Heun's method.
            Defaults to ``"heun"``.
        spacing ("karras", "linear" or "edm"): the times of the steps: the Karras levels of jumps,
            equal distances on the linear path, or EDM's own grid, whose last level before 0 is
            ``sigma_min``. Defaults to ``"karras"``.

    Raises:
        ValueError: for another ``method`` or ``spacing``.

    Examples:
        As published, EDM with 18 steps and flow matching with 10:

        >>> edm, flow_matching = OdeSampler("heun", "edm"), OdeSampler("linear_heun", "linear")
        >>> edm.evaluations(18), flow_matching.evaluations(10)
        (35, 19)
    """

    method: OdeMethod = "heun"
    spacing: Spacing = "karras"

    def __post_init__(self) -> None:
        """Checks the options."""
        if self.method not in get_args(OdeMethod):
            raise ValueError(f"method must be one of {get_args(OdeMethod)}, got {self.method!r}.")
        _check_spacing(self.spacing, get_args(Spacing))

    def evaluations(self, num_steps: int) -> int:
        """Returns K for Euler's method and 2 K - 1 for Heun's, whose last step is Euler's."""
        return num_steps if self.method == "euler" else 2 * num_steps - 1

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
        times = sampling_times(self.spacing, flow_map.noise_levels, num_steps, start_level, noise)
        return ode_sample(flow_map, noise, condition, times, self.method, start)


def _check_times(times: Sequence[float], spacing: JumpSpacing) -> None:
    if spacing != "karras":
        raise ValueError(
            f"times take the place of a spacing: leave out spacing={spacing!r} or times={times}."
        )
    if not all(t > s for t, s in itertools.pairwise((math.inf, *times, 0.0))):
        raise ValueError(
            "times must be finite, positive and strictly decreasing noise levels, without the "
            f"ends sigma_max and 0; got {times}."
        )


def _check_spacing(spacing: str, accepted: Sequence[str]) -> None:
    if spacing not in accepted:
        raise ValueError(f"spacing must be one of {accepted}, got {spacing!r}.")


def sampling_times(
    spacing: Spacing,
    noise_levels: NoiseLevels,
    num_steps: int,
    start_level: float | Tensor | None,
    noise: Tensor,
) -> Tensor:
    """Returns the K + 1 times of a sampler, [K + 1, *S] for a start level of shape S.

    Args:
        spacing ("karras", "linear" or "edm"): Karras levels, equal distances on the linear path,
            or EDM's grid.
        noise_levels (NoiseLevels): the range of noise levels.
        num_steps (int): the number of steps K.
        start_level (float or Tensor, optional): the first time, ``sigma_max`` for ``None``.
        noise (Tensor): gives dtype and device.

    Examples:
        >>> import torch
        >>> sampling_times("linear", NoiseLevels(sigma_max=3.0), 3, None, torch.zeros(1))
        tensor([3.0000, 1.0000, 0.3333, 0.0000])
    """
    grid = noise_levels.edm_times if spacing == "edm" else noise_levels.jump_times
    times = grid(num_steps, start=start_level, dtype=noise.dtype, device=noise.device)
    return linear_path_times(times[0], num_steps) if spacing == "linear" else times
