"""From noise to an action: few jumps of the flow map, or an ODE solver on its denoiser."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from torchrl_gtp.flow_map.flow_map import FlowMap

__all__ = ["few_step_sample", "ode_sample", "solve_ode"]


def few_step_sample(
    flow_map: FlowMap,
    noise: Tensor,
    condition: Tensor | None,
    times: Tensor,
    start: Tensor | None = None,
) -> Tensor:
    """Takes noise to data in K deterministic jumps (paper, eq. 12).

    With ``start`` it is a warm start: the jumps begin at ``start + t_0 z``, for instance at the
    action before with a little noise.

    Args:
        flow_map (FlowMap): the flow map.
        noise (Tensor): standard normal noise [..., A]; it is scaled by ``times[0]`` here. No
            noise is added between the jumps.
        condition (Tensor, optional): condition [..., C].
        times (Tensor): decreasing times ``t_0 > ... > t_K`` [K + 1], as made by
            :meth:`NoiseLevels.jump_times`; or one row for each sample, [K + 1, ..., 1].
        start (Tensor, optional): actions [..., A] to start from. Defaults to zero, which is right
            for ``t_0 = sigma_max``.

    Returns:
        Tensor: actions [..., A], not clamped.

    Examples:
        >>> from torchrl_gtp.flow_map import MLPBackbone
        >>> flow_map = FlowMap(MLPBackbone(action_dim=2))
        >>> times = flow_map.noise_levels.jump_times(5)
        >>> few_step_sample(flow_map, torch.randn(8, 2), None, times).shape
        torch.Size([8, 2])
    """
    action = times[0] * noise
    if start is not None:
        action = start + action
    for t, s in itertools.pairwise(times):
        shape = (*action.shape[:-1], 1)
        action = flow_map(action, t.expand(shape), s.expand(shape), condition)
    return action


def solve_ode(
    denoiser: Callable[[Tensor, Tensor], Tensor],
    action_t: Tensor,
    times: Tensor,
    method: Literal["euler", "heun"] = "heun",
) -> Tensor:
    """Integrates the probability-flow ODE ``da/dt = (a_t - E[a | a_t]) / t`` (paper, eq. 1).

    Args:
        denoiser (callable): ``denoiser(a_t, t) -> E[a | a_t]`` with t of shape [..., 1].
        action_t (Tensor): actions [..., A] at noise level ``times[0]``.
        times (Tensor): decreasing times [N + 1], all positive but for the last, which may be 0.
        method ("euler" or "heun"): a solver of first or of second order. The step to ``t = 0``
            is an Euler step in both, because the velocity is not defined there
            (arXiv 2206.00364, algorithm 1). Defaults to ``"heun"``.

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
    if method not in ("euler", "heun"):
        raise ValueError(f"method must be 'euler' or 'heun', got {method!r}.")
    action = action_t
    last = times.shape[0] - 2
    for i, (t, s) in enumerate(itertools.pairwise(times)):
        shape = (*action.shape[:-1], 1)
        start, end = t.expand(shape), s.expand(shape)
        velocity = (action - denoiser(action, start)) / start
        euler = action + (end - start) * velocity
        if method == "euler":
            action = euler
            continue
        # Only the last time may be 0; a tensor test per step would stall an accelerator.
        safe_end = torch.where(end > 0, end, 1.0) if i == last else end
        corrected = 0.5 * (velocity + (euler - denoiser(euler, safe_end)) / safe_end)
        heun = action + (end - start) * corrected
        action = torch.where(end > 0, heun, euler) if i == last else heun
    return action


def ode_sample(
    flow_map: FlowMap,
    noise: Tensor,
    condition: Tensor | None,
    times: Tensor,
    method: Literal["euler", "heun"] = "heun",
) -> Tensor:
    """Takes noise to data with an ODE solver on the flow map's denoiser.

    This is how a diffusion or flow-matching policy samples; it uses only the diagonal
    ``phi(., t, t)`` of the flow map and serves as the comparison for the jumps.

    Args:
        flow_map (FlowMap): the flow map.
        noise (Tensor): standard normal noise [..., A]; it is scaled by ``times[0]`` here.
        condition (Tensor, optional): condition [..., C].
        times (Tensor): decreasing times [N + 1]; see :func:`solve_ode`.
        method ("euler" or "heun"): the solver. Defaults to ``"heun"``.

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

    return solve_ode(denoiser, times[0] * noise, times, method)
