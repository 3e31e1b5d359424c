"""The squared errors that train a flow map, one value per sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from torchrl_gtp.flow_map.flow_map import FlowMap
from torchrl_gtp.flow_map.precision import at_least_single
from torchrl_gtp.flow_map.preconditioning import edm_time_weight
from torchrl_gtp.flow_map.time_sampling import FlowMapTimes

__all__ = [
    "TimeWeight",
    "check_time_weight",
    "consistency_error",
    "flow_error",
    "num_valid",
    "robust_weight",
    "weighted_square",
]

TimeWeight = Literal["edm", "noise", "velocity", "none"]


def check_time_weight(time_weight: str, *further: str) -> None:
    """Raises a ``ValueError`` unless it is a ``TimeWeight``, or one of ``further``."""
    accepted = (*get_args(TimeWeight), *further)
    if time_weight not in accepted:
        raise ValueError(f"time_weight must be one of {accepted}, got {time_weight!r}.")


def flow_error(
    flow_map: FlowMap,
    action: Tensor,
    noise: Tensor,
    t: Tensor,
    condition: Tensor | None = None,
    *,
    time_weight: TimeWeight = "edm",
    valid: Tensor | None = None,
) -> Tensor:
    """Computes the denoising error ``||a - phi(a_t, t, t)||^2`` with ``a_t = a + t z`` (eq. 8).

    Args:
        flow_map (FlowMap): the map in training.
        action (Tensor): clean actions a [..., A].
        noise (Tensor): standard normal noise z [..., A].
        t (Tensor): noise levels [..., 1], positive.
        condition (Tensor, optional): condition [..., C].
        time_weight ("edm", "noise", "velocity" or "none"): ``"edm"`` multiplies the error by
            ``1 / c_out(t)^2``; ``"noise"`` by ``1 / t^2``, which makes it the error of the
            predicted noise ``(a_t - phi) / t`` (DDPM, arXiv 2006.11239); ``"velocity"`` by
            ``(1 + t)^2 / t^2``, which makes it the error of the velocity on the linear path (flow
            matching, arXiv 2210.02747); ``"none"`` is the paper's plain squared error. Defaults
            to ``"edm"``.
        valid (Tensor, optional): boolean mask [..., A] of the action dimensions that count, false
            where a chunk of actions is padded.

    Returns:
        Tensor: errors [...], summed over the action dimensions.

    Examples:
        >>> from torchrl_gtp.flow_map import MLPBackbone
        >>> flow_map, action = FlowMap(MLPBackbone(action_dim=2)), torch.zeros(8, 2)
        >>> flow_error(flow_map, action, torch.randn(8, 2), torch.ones(8, 1)).shape
        torch.Size([8])
    """
    level = t.to(action.dtype)
    residual = action - flow_map.denoise(action + level * noise, level, condition)
    return weighted_square(residual, t, flow_map.sigma_data, time_weight, valid)


def consistency_error(
    flow_map: FlowMap,
    teacher: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor],
    action: Tensor,
    noise: Tensor,
    times: FlowMapTimes,
    condition: Tensor | None = None,
    *,
    time_weight: TimeWeight = "edm",
    valid: Tensor | None = None,
) -> Tensor:
    """Computes the consistency error ``||Phi(a_t, t, s) - teacher(a_u, u, s)||^2`` (eq. 7).

    Both ``a_t = a + t z`` and ``a_u = a + u z`` lie on the line through the clean action with the
    SAME noise z: that is the closed-form score approximation of the paper (eq. 6).

    Args:
        flow_map (FlowMap): the map in training.
        teacher (callable): the frozen map ``teacher(a_u, u, s, condition)``; it must not carry a
            gradient.
        action (Tensor): clean actions a [..., A].
        noise (Tensor): standard normal noise z [..., A].
        times (FlowMapTimes): noise levels ``t > u >= s``, each [..., 1].
        condition (Tensor, optional): condition [..., C].
        time_weight ("edm", "noise", "velocity" or "none"): as for :func:`flow_error`. Defaults to
            ``"edm"``.
        valid (Tensor, optional): boolean mask [..., A] of the action dimensions that count, false
            where a chunk of actions is padded.

    Returns:
        Tensor: errors [...], summed over the action dimensions.

    Examples:
        >>> from torchrl_gtp.flow_map import MLPBackbone
        >>> flow_map, action = FlowMap(MLPBackbone(action_dim=2)), torch.zeros(8, 2)
        >>> times = FlowMapTimes(torch.ones(8, 1), torch.full((8, 1), 0.9), torch.zeros(8, 1))
        >>> teacher = torch.no_grad()(flow_map.forward)
        >>> consistency_error(flow_map, teacher, action, torch.randn(8, 2), times).shape
        torch.Size([8])
    """
    t, u, s = (level.to(action.dtype) for level in times)
    target = teacher(action + u * noise, u, s, condition).detach()
    residual = flow_map(action + t * noise, t, s, condition) - target
    return weighted_square(residual, times.t, flow_map.sigma_data, time_weight, valid)


def robust_weight(error: Tensor, power: float, scale: float = 0.01) -> Tensor:
    """Computes the adaptive weight ``1 / (error + scale)^power`` of a squared error.

    With ``power = 0.5`` the weighted error grows like its root, so that few samples with a large
    error no longer dominate the batch; ``power = 0`` is the plain squared error.

    Args:
        error (Tensor): squared errors of any shape.
        power (float): exponent, in [0, 1].
        scale (float): errors well below it are not levelled. Defaults to ``0.01``.

    Returns:
        Tensor: weights of the shape of ``error``, without gradient.

    Examples:
        >>> robust_weight(torch.tensor([0.03, 0.15]), power=0.5)
        tensor([5.0000, 2.5000])
    """
    return (error.detach() + scale) ** -power


def num_valid(action: Tensor, valid: Tensor | None) -> Tensor | int:
    """Counts the action dimensions that count, of each sample.

    Args:
        action (Tensor): actions [..., A].
        valid (Tensor, optional): boolean mask [..., A] of the dimensions that count.

    Returns:
        Tensor or int: the numbers [...] in the type of ``action``, at least 1; A where there is no
        mask.

    Examples:
        >>> valid = torch.tensor([[True, False], [True, True], [False, False]])
        >>> num_valid(torch.zeros(3, 2), valid), num_valid(torch.zeros(3, 2), None)
        (tensor([1., 2., 1.]), 2)
    """
    return action.shape[-1] if valid is None else valid.sum(-1).clamp_min(1).to(action.dtype)


def weighted_square(
    residual: Tensor,
    t: Tensor,
    sigma_data: Tensor,
    time_weight: TimeWeight,
    valid: Tensor | None = None,
) -> Tensor:
    """Computes the squared norm of residuals [..., A] under the weight of their times [..., 1].

    Args:
        residual (Tensor): residuals of denoised actions or end points [..., A].
        t (Tensor): noise levels [..., 1], positive.
        sigma_data (Tensor): standard deviation of clean actions, [] or [A].
        time_weight ("edm", "noise", "velocity" or "none"): as for :func:`flow_error`.
        valid (Tensor, optional): boolean mask [..., A] of the action dimensions that count.

    Returns:
        Tensor: errors [...], in single precision at least: in half precision squares and weights
        at small noise levels would leave its range.

    Examples:
        >>> weighted_square(torch.ones(1, 2), torch.ones(1, 1), torch.tensor(0.5), "velocity")
        tensor([8.])
    """
    square, t = at_least_single(residual).square(), at_least_single(t)
    if time_weight == "edm":
        square = square * edm_time_weight(t, at_least_single(sigma_data))
    elif time_weight == "noise":
        square = square / t.square()
    elif time_weight == "velocity":
        square = square * ((1 + t) / t).square()
    if valid is not None:
        square = torch.where(valid, square, 0.0)
    return square.sum(-1)
