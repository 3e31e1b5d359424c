"""From noise to an action: jumps of the flow map, solvers and samplers on its denoiser."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from torchrl_gtp.flow_map.flow_map import FlowMap

__all__ = [
    "OdeMethod",
    "ancestral_sample",
    "consistency_sample",
    "few_step_sample",
    "ode_sample",
    "solve_ode",
]

OdeMethod = Literal["euler", "heun", "linear_heun"]


def few_step_sample(
    flow_map: FlowMap,
    noise: Tensor,
    condition: Tensor | None,
    times: Tensor,
    start: Tensor | None = None,
    *,
    gamma: float = 0.0,
    draw: Callable[[Tensor], Tensor] = torch.randn_like,
) -> Tensor:
    """Takes noise to data in K jumps, deterministic ones by default (paper, eq. 12).

    With ``start`` it is a warm start: the jumps begin at ``start + t_0 z``, for instance at the
    action before with a little noise.

    With ``gamma > 0`` each jump but the last goes further, from ``t_i`` to
    ``sqrt(1 - gamma^2) t_{i+1}``, and fresh noise takes it back to ``t_{i+1}`` (arXiv 2310.02279,
    algorithm 3). The noise covers errors of the jump before, which a deterministic jump would
    carry on. With ``gamma = 1`` all jumps end at the data: that is how consistency models sample
    (arXiv 2303.01469, algorithm 1). Where two times are equal nothing is done.

    Args:
        flow_map (FlowMap): the flow map.
        noise (Tensor): standard normal noise [..., A]; it is scaled by ``times[0]`` here.
        condition (Tensor, optional): condition [..., C].
        times (Tensor): decreasing times ``t_0 > ... > t_K`` [K + 1], as made by
            :meth:`NoiseLevels.jump_times`; or one row for each sample, [K + 1, ..., 1].
        start (Tensor, optional): actions [..., A] to start from. Defaults to zero, which is right
            for ``t_0 = sigma_max``.
        gamma (float): share of the noise that is drawn afresh, in [0, 1]: that of its standard
            deviation, so that its square is that of the variance. Defaults to ``0.0``: no noise is
            added between the jumps.
        draw (callable): draws that noise like a tensor. Defaults to ``torch.randn_like``.

    Returns:
        Tensor: actions [..., A], not clamped.

    Raises:
        ValueError: if ``gamma`` is out of range.

    Examples:
        >>> from torchrl_gtp.flow_map import MLPBackbone
        >>> flow_map = FlowMap(MLPBackbone(action_dim=2))
        >>> times = flow_map.noise_levels.jump_times(5)
        >>> few_step_sample(flow_map, torch.randn(8, 2), None, times).shape
        torch.Size([8, 2])
    """
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma must lie in [0, 1], got {gamma}.")
    action = times[0] * noise
    if start is not None:
        action = start + action
    last = times.shape[0] - 2
    for i, (t, s) in enumerate(itertools.pairwise(times)):
        shape = (*action.shape[:-1], 1)
        is_noised = gamma > 0 and i < last
        # A warm start from below a level stays where it is.
        end = torch.where(s < t, math.sqrt(1 - gamma**2) * s, s) if is_noised else s
        action = flow_map(action, t.expand(shape), end.expand(shape), condition)
        if is_noised:
            action = action + torch.where(s < t, gamma * s, 0.0) * draw(action)
    return action


def solve_ode(
    denoiser: Callable[[Tensor, Tensor], Tensor],
    action_t: Tensor,
    times: Tensor,
    method: OdeMethod = "heun",
    *,
    to_data: bool = False,
) -> Tensor:
    """Integrates the probability-flow ODE ``da/dt = (a_t - E[a | a_t]) / t`` (paper, eq. 1).

    Args:
        denoiser (callable): ``denoiser(a_t, t) -> E[a | a_t]`` with t of shape [..., 1].
        action_t (Tensor): actions [..., A] at noise level ``times[0]``.
        times (Tensor): decreasing times [N + 1], or one row for each sample [N + 1, ..., 1]. From
            a time of 0 on nothing changes.
        method ("euler", "heun" or "linear_heun"): Euler's method, of first order, or Heun's, of
            second: for ``a_t`` as in EDM, or for the linear path of flow matching,
            ``x_r = a_t / (1 + t)`` with ``r = t / (1 + t)``. Euler's is the same for both. The step
            to ``t = 0`` is an Euler step in all, because the denoiser tells no velocity there
            (arXiv 2206.00364, algorithm 1). Defaults to ``"heun"``.
        to_data (bool): whether the last time is known to be 0, which saves Heun's method the
            evaluation that an Euler step does not need. Defaults to ``False``.

    Returns:
        Tensor: actions [..., A] at noise level ``times[-1]``.

    Raises:
        ValueError: for another ``method``.

    Examples:
        >>> gaussian_denoiser = lambda action_t, t: action_t / (1 + t**2)
        >>> times = torch.linspace(1.0, 0.0, 65)
        >>> solve_ode(gaussian_denoiser, torch.ones(1, 1), times).item()  # exact: sqrt(1 / 2)
        0.707...
    """
    if method not in get_args(OdeMethod):
        raise ValueError(f"method must be one of {get_args(OdeMethod)}, got {method!r}.")
    action = action_t
    last = times.shape[0] - 2
    for i, (t, s) in enumerate(itertools.pairwise(times)):
        shape = (*action.shape[:-1], 1)
        start, end = t.expand(shape), s.expand(shape)
        velocity = (action - denoiser(action, start)) / torch.where(start > 0, start, 1.0)
        euler = action + (end - start) * velocity
        if method == "euler" or (to_data and i == last):
            action = euler
            continue
        # Which times are 0 cannot be asked: reading a tensor would stall an accelerator.
        safe_end = torch.where(end > 0, end, 1.0)
        end_velocity = (euler - denoiser(euler, safe_end)) / safe_end
        if method == "heun":
            average = 0.5 * (velocity + end_velocity)
        else:
            # With x_r = a_t / (1 + t) the velocity dx/dr is (1 + t) da/dt - a_t. Between an Euler
            # step's ends it changes by (1 + s) times the change of da/dt, and the step from r,
            # times 1 + s, is (s - t) / (1 + t).
            share = 0.5 * (1 + end) / (1 + start)
            average = velocity + share * (end_velocity - velocity)
        heun = action + (end - start) * average
        action = torch.where(end > 0, heun, euler)
    return action


def ode_sample(
    flow_map: FlowMap,
    noise: Tensor,
    condition: Tensor | None,
    times: Tensor,
    method: OdeMethod = "heun",
    start: Tensor | None = None,
) -> Tensor:
    """Takes noise to data with an ODE solver on the flow map's denoiser.

    This is how a diffusion or flow-matching policy samples; it uses only the diagonal
    ``phi(., t, t)`` of the flow map and serves as the comparison for the jumps.

    Args:
        flow_map (FlowMap): the flow map.
        noise (Tensor): standard normal noise [..., A]; it is scaled by ``times[0]`` here.
        condition (Tensor, optional): condition [..., C].
        times (Tensor): decreasing times [N + 1] that end with 0; see :func:`solve_ode`.
        method ("euler" or "heun"): the solver, with N or 2 N - 1 network evaluations. Defaults
            to ``"heun"``.
        start (Tensor, optional): actions [..., A] for a warm start; see :func:`few_step_sample`.

    Returns:
        Tensor: actions [..., A], not clamped.

    Examples:
        >>> from torchrl_gtp.flow_map import MLPBackbone
        >>> flow_map = FlowMap(MLPBackbone(action_dim=2))
        >>> times = flow_map.noise_levels.jump_times(40)
        >>> ode_sample(flow_map, torch.randn(8, 2), None, times).shape
        torch.Size([8, 2])
    """

    def denoiser(action_t: Tensor, t: Tensor) -> Tensor:
        return flow_map.denoise(action_t, t, condition)

    action = times[0] * noise if start is None else start + times[0] * noise
    return solve_ode(denoiser, action, times, method, to_data=True)


def ancestral_sample(
    flow_map: FlowMap,
    noise: Tensor,
    condition: Tensor | None,
    times: Tensor,
    *,
    bounds: tuple[Tensor, Tensor] | None = None,
    draw: Callable[[Tensor], Tensor] = torch.randn_like,
) -> Tensor:
    """Takes noise to data through the posteriors ``p(a_s | a_t, a)`` (DDPM, arXiv 2006.11239).

    In noise levels the posterior of two levels ``t > s`` has the mean
    ``(s / t)^2 a_t + (1 - (s / t)^2) a`` and the variance ``s^2 (1 - (s / t)^2)``; the denoised
    action takes the place of a.

    Args:
        flow_map (FlowMap): the flow map, of which only the denoiser is used.
        noise (Tensor): standard normal noise [..., A], as of ``x_T``; it is scaled by
            ``sqrt(1 + t_0^2)`` here, because ``a_t = x_t sqrt(1 + t^2)``.
        condition (Tensor, optional): condition [..., C].
        times (Tensor): decreasing times [N + 1] that end with 0, as made by
            :meth:`VPSchedule.times`.
        bounds (pair of Tensor, optional): each denoised action is clipped to them, [A] each.
        draw (callable): draws noise like a tensor. Defaults to ``torch.randn_like``.

    Returns:
        Tensor: actions [..., A].

    Examples:
        >>> from torchrl_gtp.flow_map import MLPBackbone, VPSchedule
        >>> flow_map = FlowMap(MLPBackbone(action_dim=2))
        >>> ancestral_sample(flow_map, torch.randn(8, 2), None, VPSchedule().times(5)).shape
        torch.Size([8, 2])
    """
    action = (1 + times[0].square()).sqrt() * noise
    last = times.shape[0] - 2
    for i, (t, s) in enumerate(itertools.pairwise(times)):
        denoised = flow_map.denoise(action, t.expand(*action.shape[:-1], 1), condition)
        if bounds is not None:
            denoised = denoised.clamp(*bounds)
        if i == last:
            return denoised
        kept = (s / t).square()
        mean = kept * action + (1 - kept) * denoised
        action = mean + s * (1 - kept).sqrt() * draw(action)
    return action


def consistency_sample(
    flow_map: FlowMap,
    noise: Tensor,
    condition: Tensor | None,
    times: Tensor,
    start: Tensor | None = None,
    *,
    draw: Callable[[Tensor], Tensor] = torch.randn_like,
) -> Tensor:
    """Jumps to the data and noises again, K times (arXiv 2303.01469, algorithm 1).

    Args:
        flow_map (FlowMap): the flow map, of which only ``Phi(., t, 0)`` is used.
        noise (Tensor): standard normal noise [..., A]; it is scaled by ``times[0]`` here.
        condition (Tensor, optional): condition [..., C].
        times (Tensor): decreasing times [K + 1] that end with 0.
        start (Tensor, optional): actions [..., A] for a warm start; see :func:`few_step_sample`.
        draw (callable): draws noise like a tensor. Defaults to ``torch.randn_like``.

    Returns:
        Tensor: actions [..., A].

    Examples:
        >>> from torchrl_gtp.flow_map import MLPBackbone
        >>> flow_map = FlowMap(MLPBackbone(action_dim=2))
        >>> times = flow_map.noise_levels.jump_times(2)
        >>> consistency_sample(flow_map, torch.randn(8, 2), None, times).shape
        torch.Size([8, 2])
    """
    return few_step_sample(flow_map, noise, condition, times, start, gamma=1.0, draw=draw)
