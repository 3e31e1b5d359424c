"""Published networks as the backbone of a flow map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from torchrl_gtp.flow_map import VPSchedule
from torchrl_gtp.flow_map.preconditioning import edm_preconditioning

__all__ = ["ConsistencyEndpoint", "NoisePrediction", "PublishedEndpoint"]


class PublishedEndpoint(nn.Module, ABC):
    """A backbone with which the end point of a flow map is that of a published network.

    A flow map gives ``c_skip a_t + c_out backbone(c_in a_t, ...)``. This backbone undoes that:
    it recovers ``a_t``, asks :meth:`endpoint` for the end point D, and returns
    ``(D - c_skip a_t) / c_out``.

    Args:
        network: the published network, with its weights.
        sigma_data: that of the flow map, a number.
    """

    network: Any

    def __init__(self, network: nn.Module, sigma_data: float) -> None:
        super().__init__()
        self.network = network
        self.sigma_data = sigma_data

    @abstractmethod
    def endpoint(self, action_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Computes D [N, A] from noisy actions [N, A], levels [N, 1] and conditions [N, C]."""

    def level(self, log_t: Tensor) -> Tensor:
        """Recovers the noise levels from what a flow map tells a backbone, ``ln(t) / 4``."""
        return (4 * log_t).exp()

    def forward(self, action: Tensor, log_t: Tensor, log_s: Tensor, condition: Tensor) -> Tensor:
        """Computes the output; see :class:`~torchrl_gtp.FlowMap`. All ends s are the data."""
        t = self.level(log_t)
        c_skip, c_out, c_in = edm_preconditioning(t, self.sigma_data)
        action_t = action / c_in
        # The published networks know a single batch dimension.
        rows = [entry.reshape(-1, entry.shape[-1]) for entry in (action_t, t, condition)]
        endpoint = self.endpoint(*rows).reshape(action.shape)
        return (endpoint - c_skip * action_t) / c_out


class NoisePrediction(PublishedEndpoint):
    """The denoiser of a network ``eps(x_i, i, o)`` that predicts the noise of DDPM.

    At the level t of index i the published noisy action is ``x_i = a_t / sqrt(1 + t^2)``, and the
    denoised one ``D = a_t - t eps``.

    Args:
        network: called as ``network(x, i, o)`` with x [N, A], integers i [N] from 0 and o [N, C].
        schedule: the levels that it was trained on.
        sigma_data: that of the flow map. Defaults to ``1.0``, with which the flow map itself
            scales its input to ``x_i``.

    Examples:
        >>> from torchrl_gtp import FlowMap
        >>> class Zero(nn.Module):
        ...     def forward(self, x, index, observation):
        ...         return 0 * x
        >>> flow_map = FlowMap(NoisePrediction(Zero(), VPSchedule()), sigma_data=1.0)
        >>> action, t = torch.ones(1, 2), VPSchedule().times(5)[:1, None]
        >>> torch.allclose(flow_map.denoise(action, t, torch.zeros(1, 3)), action)
        True
    """

    levels: Tensor

    def __init__(self, network: nn.Module, schedule: VPSchedule, sigma_data: float = 1.0) -> None:
        super().__init__(network, sigma_data)
        index = torch.arange(1.0, schedule.num_levels + 1)
        self.register_buffer("levels", schedule.level(index))

    def index(self, t: Tensor) -> Tensor:
        """The index of the nearest level, of the shape of t [N, 1] without its last dimension."""
        return (self.levels - t).abs().argmin(-1)

    def level(self, log_t: Tensor) -> Tensor:
        """Recovers the noise levels as the schedule has them, without the rounding of a log."""
        return self.levels[self.index(super().level(log_t))].unsqueeze(-1)

    def endpoint(self, action_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Computes ``D = a_t - t eps(a_t / sqrt(1 + t^2))``; see the base class."""
        noisy = action_t / (1 + t.square()).sqrt()
        return action_t - t * self.network(noisy, self.index(t), condition)


class ConsistencyEndpoint(PublishedEndpoint):
    """The consistency function of Consistency-AC, with its own skip and output factors.

    Args:
        network: has ``predict_consistency(o, a_t, t)``.
        sigma_data: that of the flow map. Defaults to ``0.5``.
    """

    def __init__(self, network: nn.Module, sigma_data: float = 0.5) -> None:
        super().__init__(network, sigma_data)

    def endpoint(self, action_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Computes the consistency function; see the base class."""
        return self.network.predict_consistency(condition, action_t, t)
