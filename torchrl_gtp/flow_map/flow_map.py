"""The flow map: the solution map of a generative ODE, as a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchrl_gtp.flow_map.noise_levels import NoiseLevels
from torchrl_gtp.flow_map.preconditioning import edm_preconditioning

__all__ = ["FlowMap"]


class FlowMap(nn.Module):
    """A flow map ``Phi(a_t, t, s)``: it takes an action at noise level t to noise level s.

    The map is written through its end point ``phi`` (paper, eq. 3 and 4),
    ``Phi(a_t, t, s) = (s / t) a_t + (1 - s / t) phi(a_t, t, s)``, and ``phi`` through an
    EDM-preconditioned network. So ``Phi(., t, t)`` is the identity and ``Phi(., t, 0) = phi``
    exactly, whatever the network; and ``phi(a_t, t, t)`` is the denoiser ``E[a | a_t]``.

    Args:
        backbone (nn.Module): a network ``backbone(action, log_t, log_s, condition)`` with the
            shapes of :class:`~torchrl_gtp.flow_map.MLPBackbone`. Its times are
            ``ln(max(t, sigma_min)) / 4``.
        sigma_data (float or Tensor): root mean square of clean actions, positive, a scalar or
            one value per action dimension [A]. Defaults to ``0.5``.
        noise_levels (NoiseLevels, optional): the range of noise levels that the map is defined
            on. Defaults to ``NoiseLevels()``.

    Raises:
        ValueError: if ``sigma_data`` is not finite and positive.

    Examples:
        >>> from torchrl_gtp.flow_map import MLPBackbone
        >>> flow_map = FlowMap(MLPBackbone(action_dim=2, condition_dim=4), sigma_data=0.5)
        >>> action_t, condition = torch.randn(8, 2), torch.randn(8, 4)
        >>> t, s = torch.full((8, 1), 2.0), torch.full((8, 1), 0.5)
        >>> flow_map(action_t, t, s, condition).shape
        torch.Size([8, 2])
        >>> torch.equal(flow_map(action_t, t, t, condition), action_t)
        True
        >>> denoised = flow_map.denoise(action_t, t, condition)
    """

    sigma_data: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        sigma_data: float | Tensor = 0.5,
        noise_levels: NoiseLevels | None = None,
    ) -> None:
        super().__init__()
        sigma_data = torch.as_tensor(sigma_data, dtype=torch.get_default_dtype())
        if not bool((torch.isfinite(sigma_data) & (sigma_data > 0)).all()):
            raise ValueError(
                f"sigma_data must be finite and positive, got {sigma_data.tolist()}. It is the "
                "root mean square of the clean actions."
            )
        self.backbone = backbone
        self.noise_levels = NoiseLevels() if noise_levels is None else noise_levels
        # A buffer, because it belongs to the data: a checkpoint must carry it.
        self.register_buffer("sigma_data", sigma_data.clone())

    def endpoint(
        self, action_t: Tensor, t: Tensor, s: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """Computes the end point ``phi(a_t, t, s)`` (paper, eq. 3).

        Args:
            action_t (Tensor): noisy actions [..., A].
            t (Tensor): noise level of ``action_t`` [..., 1], non-negative.
            s (Tensor): noise level to go to [..., 1], in [0, t].
            condition (Tensor, optional): condition [..., C].

        Returns:
            Tensor: end points [..., A].
        """
        c_skip, c_out, c_in = edm_preconditioning(t, self.sigma_data)
        times = (*action_t.shape[:-1], 1)
        output = self.backbone(
            c_in * action_t,
            self._log_level(t).expand(times),
            self._log_level(s).expand(times),
            condition,
        )
        # Under autocast the network answers in half precision; the map stays in full precision.
        return c_skip * action_t + c_out * output.to(action_t.dtype)

    def denoise(self, action_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Computes the denoiser ``phi(a_t, t, t) = E[a | a_t]`` (paper, eq. 5), [..., A]."""
        return self.endpoint(action_t, t, t, condition)

    def forward(
        self, action_t: Tensor, t: Tensor, s: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """Computes the flow map ``Phi(a_t, t, s)`` (paper, eq. 4).

        Args:
            action_t (Tensor): noisy actions [..., A].
            t (Tensor): noise level of ``action_t`` [..., 1], non-negative.
            s (Tensor): noise level to go to [..., 1], in [0, t].
            condition (Tensor, optional): condition [..., C].

        Returns:
            Tensor: actions at noise level s [..., A].
        """
        # At t = 0 the only s is 0 and the map is the identity. The inner where keeps 0 / 0 out
        # of the backward pass.
        ratio = torch.where(t > 0, s / torch.where(t > 0, t, 1.0), 1.0)
        return ratio * action_t + (1 - ratio) * self.endpoint(action_t, t, s, condition)

    def _log_level(self, level: Tensor) -> Tensor:
        """EDM's ``c_noise``, with levels below ``sigma_min`` (0 among them) as ``sigma_min``."""
        return level.clamp_min(self.noise_levels.sigma_min).log() / 4
