"""Deterministic ways from noise to an action, as objects that an actor holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from torch import Tensor

from torchrl_gtp.flow_map.flow_map import FlowMap
from torchrl_gtp.flow_map.linear_path import linear_path_times
from torchrl_gtp.flow_map.noise_levels import NoiseLevels
from torchrl_gtp.flow_map.sampling import few_step_sample, ode_sample

__all__ = ["JumpSampler", "OdeSampler", "Sampler", "Spacing", "sampling_times"]

Spacing = Literal["karras", "linear"]


class Sampler(Protocol):
    """What an actor needs of a sampler: a function of tensors, without state."""

    def evaluations(self, num_steps: int) -> int:
        """Returns the number of network evaluations of K steps."""
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
                go on with the mean. Defaults to ``True``.

        Returns:
            Tensor: actions [..., A], not clamped.
        """
        ...


@dataclass(frozen=True)
class JumpSampler:
    """K deterministic jumps of the flow map (paper, eq. 12); K evaluations.

    Args:
        spacing ("karras" or "linear"): the times of the jumps: Karras levels, or equal distances
            on the linear path, as shortcut models and mean flow have. Defaults to ``"karras"``.

    Raises:
        ValueError: for another ``spacing``.

    Examples:
        >>> import torch
        >>> from torchrl_gtp.flow_map import MLPBackbone
        >>> flow_map = FlowMap(MLPBackbone(action_dim=2))
        >>> JumpSampler()(flow_map, torch.randn(8, 2), None, num_steps=5).shape
        torch.Size([8, 2])
    """

    spacing: Spacing = "karras"

    def __post_init__(self) -> None:
        """Checks the options."""
        _check_spacing(self.spacing)

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
        times = sampling_times(self.spacing, flow_map.noise_levels, num_steps, start_level, noise)
        return few_step_sample(flow_map, noise, condition, times, start)


@dataclass(frozen=True)
class OdeSampler:
    """An ODE solver on the denoiser: how diffusion and flow matching sample.

    An Euler step is the same on the linear path and in noise levels, and is the DDIM step of
    diffusion models; a step of Heun's method is that of EDM.

    Args:
        method ("euler" or "heun"): K evaluations, or 2 K - 1. Defaults to ``"heun"``.
        spacing ("karras" or "linear"): the times of the steps. Defaults to ``"karras"``.

    Raises:
        ValueError: for another ``method`` or ``spacing``.

    Examples:
        >>> OdeSampler("heun").evaluations(18), OdeSampler("euler", "linear").evaluations(10)
        (35, 10)
    """

    method: Literal["euler", "heun"] = "heun"
    spacing: Spacing = "karras"

    def __post_init__(self) -> None:
        """Checks the options."""
        if self.method not in ("euler", "heun"):
            raise ValueError(f"method must be 'euler' or 'heun', got {self.method!r}.")
        _check_spacing(self.spacing)

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


def _check_spacing(spacing: str) -> None:
    if spacing not in get_args(Spacing):
        raise ValueError(f"spacing must be one of {get_args(Spacing)}, got {spacing!r}.")


def sampling_times(
    spacing: Spacing,
    noise_levels: NoiseLevels,
    num_steps: int,
    start_level: float | Tensor | None,
    noise: Tensor,
) -> Tensor:
    """Returns the K + 1 times of a sampler, [K + 1, *S] for a start level of shape S.

    Args:
        spacing ("karras" or "linear"): Karras levels, or equal distances on the linear path.
        noise_levels (NoiseLevels): the range of noise levels.
        num_steps (int): the number of steps K.
        start_level (float or Tensor, optional): the first time, ``sigma_max`` for ``None``.
        noise (Tensor): gives dtype and device.

    Examples:
        >>> import torch
        >>> sampling_times("linear", NoiseLevels(sigma_max=3.0), 3, None, torch.zeros(1))
        tensor([3.0000, 1.0000, 0.3333, 0.0000])
    """
    times = noise_levels.jump_times(
        num_steps, start=start_level, dtype=noise.dtype, device=noise.device
    )
    return times if spacing == "karras" else linear_path_times(times[0], num_steps)
