"""How far a flow map contradicts itself: an estimate of the error of a jump without data."""

from __future__ import annotations

import torch
from torch import Tensor

from torchrl_gtp.flow_map.evaluation_mode import evaluation_mode
from torchrl_gtp.flow_map.flow_map import FlowMap

__all__ = ["jump_error", "rms_distance"]


def rms_distance(first: Tensor, second: Tensor) -> Tensor:
    """Computes the root mean square over action dimensions of a difference.

    Args:
        first (Tensor): actions [..., A].
        second (Tensor): actions [..., A].

    Returns:
        Tensor: distances [..., 1], in the units of one action dimension.

    Examples:
        >>> rms_distance(torch.zeros(1, 2), torch.tensor([[1.0, 7.0]]))
        tensor([[5.]])
    """
    return (first - second).square().mean(-1, keepdim=True).sqrt()


def jump_error(
    flow_map: FlowMap,
    action_t: Tensor,
    t: Tensor,
    s: Tensor,
    condition: Tensor | None = None,
) -> Tensor:
    """Estimates the error of a jump: one jump ``t -> s`` against two half jumps ``t -> m -> s``.

    The exact flow map is a semigroup, ``Phi(Phi(a_t, t, m), m, s) = Phi(a_t, t, s)``. Where a
    network is not, one of both ways is off by at least half their distance. It costs three network
    evaluations and needs no data. An error that both ways share stays unseen. The flow map is
    evaluated as it acts, without dropout, whatever mode it is in.

    The level m lies midway in the Karras spacing between t and s. For that, levels below
    ``sigma_min`` count as ``sigma_min``, as on the grid of
    :meth:`~torchrl_gtp.flow_map.NoiseLevels.jump_times`: from ``sigma_max`` to 0 the estimate is
    the distance between the samples of one and of two jumps.

    Args:
        flow_map (FlowMap): the flow map.
        action_t (Tensor): noisy actions [..., A] at noise level t.
        t (Tensor): their noise level [..., 1].
        s (Tensor): the noise level to go to [..., 1], in [0, t].
        condition (Tensor, optional): condition [..., C].

    Returns:
        Tensor: root mean square over the action dimensions, for each sample [..., 1].

    Examples:
        >>> from torchrl_gtp.flow_map import MLPBackbone
        >>> flow_map = FlowMap(MLPBackbone(action_dim=2))
        >>> t = torch.full((8, 1), 3.0)
        >>> jump_error(flow_map, t * torch.randn(8, 2), t, torch.zeros(8, 1)).shape
        torch.Size([8, 1])
    """
    smallest = t.clamp_max(flow_map.noise_levels.sigma_min)
    m = flow_map.noise_levels.between(t, torch.maximum(s, smallest), 2)[1]
    with evaluation_mode(flow_map):
        in_halves = flow_map(flow_map(action_t, t, m, condition), m, s, condition)
        return rms_distance(flow_map(action_t, t, s, condition), in_halves)
