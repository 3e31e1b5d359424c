"""The default network behind a flow map: an MLP with embeddings of both times."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchrl.modules import MLP

__all__ = ["MLPBackbone", "TimeEmbedding"]


class TimeEmbedding(nn.Module):
    """Fourier features of a scaled log noise level, followed by a small MLP.

    Args:
        embedding_dim (int): size of the embedding, even.
        max_frequency (float): highest frequency, in cycles per unit of the input. The inputs
            ``ln(t) / 4`` span about two units, and high frequencies train worse on a small MLP.
            Defaults to ``2.0``.

    Raises:
        ValueError: if ``embedding_dim`` is odd or not positive.

    Examples:
        >>> TimeEmbedding(16)(torch.zeros(5, 1)).shape
        torch.Size([5, 16])
    """

    frequencies: Tensor

    def __init__(self, embedding_dim: int, max_frequency: float = 2.0) -> None:
        super().__init__()
        if embedding_dim < 2 or embedding_dim % 2:
            raise ValueError(f"embedding_dim must be a positive even number, got {embedding_dim}.")
        self.max_frequency = max_frequency
        self.register_buffer("frequencies", torch.empty(embedding_dim // 2))
        self.mlp = nn.Sequential(
            nn.Linear(embedding_dim, 2 * embedding_dim),
            nn.Mish(),
            nn.Linear(2 * embedding_dim, embedding_dim),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fills in the fixed frequencies, geometric from 1/16 of the highest one up to it."""
        exponents = torch.linspace(-4.0, 0.0, self.frequencies.numel())
        with torch.no_grad():
            self.frequencies.copy_(2 * math.pi * self.max_frequency * torch.exp2(exponents))

    def forward(self, log_level: Tensor) -> Tensor:
        """Embeds ``log_level`` [..., 1] into [..., embedding_dim]."""
        phase = log_level * self.frequencies
        return self.mlp(torch.cat([phase.sin(), phase.cos()], -1))


class MLPBackbone(nn.Module):
    """An MLP over the scaled action, both time embeddings and the condition.

    Three layers of 256 and 16-dimensional time embeddings are those of Diffusion-QL (arXiv
    2208.06193) and its successors, which have Mish; ``t`` and ``s`` have embeddings of their own.
    Hidden layers start with weights of variance ``2 / fan_in`` (arXiv 1502.01852): with
    PyTorch's smaller ones the signal fades from layer to layer, the network begins almost linear,
    and a denoiser may not leave the linear solution for thousands of updates.

    Args:
        action_dim (int): size A of an action.
        condition_dim (int): size C of the condition; 0 for an unconditional map. Defaults to
            ``0``.
        hidden_sizes (sequence of int): widths of the hidden layers. Defaults to
            ``(256, 256, 256)``.
        activation (type of nn.Module): activation class. Defaults to ``nn.ReLU``.
        time_embedding_dim (int): size of each time embedding. Defaults to ``16``.

    Examples:
        >>> backbone = MLPBackbone(action_dim=2, condition_dim=4)
        >>> action, time = torch.zeros(8, 2), torch.zeros(8, 1)
        >>> backbone(action, time, time, torch.zeros(8, 4)).shape
        torch.Size([8, 2])
    """

    def __init__(
        self,
        action_dim: int,
        condition_dim: int = 0,
        *,
        hidden_sizes: Sequence[int] = (256, 256, 256),
        activation: type[nn.Module] = nn.ReLU,
        time_embedding_dim: int = 16,
    ) -> None:
        super().__init__()
        if action_dim < 1 or condition_dim < 0:
            raise ValueError(
                "action_dim must be at least 1 and condition_dim at least 0, got "
                f"action_dim={action_dim} and condition_dim={condition_dim}."
            )
        self.action_dim = action_dim
        self.condition_dim = condition_dim
        self.embed_t = TimeEmbedding(time_embedding_dim)
        self.embed_s = TimeEmbedding(time_embedding_dim)
        self.trunk = MLP(
            in_features=action_dim + condition_dim + 2 * time_embedding_dim,
            out_features=action_dim,
            num_cells=list(hidden_sizes),
            activation_class=activation,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the weights of the hidden layers."""
        *hidden, _ = (layer for layer in self.trunk.modules() if isinstance(layer, nn.Linear))
        for layer in hidden:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")

    def forward(
        self, action: Tensor, log_t: Tensor, log_s: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """Computes the raw network output.

        Args:
            action (Tensor): preconditioned noisy action [..., A].
            log_t (Tensor): scaled log of the start level [..., 1].
            log_s (Tensor): scaled log of the end level [..., 1].
            condition (Tensor, optional): condition [..., C]; required iff ``condition_dim > 0``.

        Returns:
            Tensor: network output [..., A].

        Raises:
            ValueError: if the last dimension of ``action`` or ``condition`` is not the expected
                one.
        """
        if action.shape[-1] != self.action_dim:
            raise ValueError(
                f"action has {action.shape[-1]} dimensions, but the backbone was built for "
                f"action_dim={self.action_dim} (shape {tuple(action.shape)})."
            )
        condition_dim = 0 if condition is None else condition.shape[-1]
        if condition_dim != self.condition_dim:
            raise ValueError(
                f"condition has {condition_dim} dimensions, but the backbone was built for "
                f"condition_dim={self.condition_dim}. Check the observation keys."
            )
        inputs = [action, self.embed_t(log_t), self.embed_s(log_s)]
        if condition is not None:
            inputs.append(condition)
        return self.trunk(torch.cat(inputs, -1))
