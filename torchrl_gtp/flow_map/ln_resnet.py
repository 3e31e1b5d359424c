"""A residual network with layer normalisation behind a flow map, as IDQL has it."""

from __future__ import annotations

from torch import Tensor, nn

from torchrl_gtp.flow_map.backbone import MLPBackbone

__all__ = ["LNResNetBackbone"]


class LNResNetBackbone(MLPBackbone):
    """An MLP of residual blocks over the same inputs as those of :class:`MLPBackbone`.

    This is the network of IDQL (arXiv 2304.10573, appendix): blocks
    ``x + Linear_h(activation(Linear_4h(LayerNorm(Dropout(x)))))`` between a linear layer to the
    width h and one from it. Of the publication differ the embeddings of the times, which are those
    of :class:`MLPBackbone`, and the initial values, which are those of the layers.

    Dropout is active in training mode only: call ``actor.eval()`` before acting with an actor that
    was made by hand; those that a loss hands out are in evaluation mode.

    Args:
        action_dim (int): size A of an action.
        condition_dim (int): size C of the condition; 0 for an unconditional map. Defaults to
            ``0``.
        hidden_dim (int): the width h. Defaults to ``256``.
        num_blocks (int): the number of residual blocks. Defaults to ``3``.
        dropout (float): the probability that a number is dropped, in [0, 1). Defaults to ``0.1``.
        activation (type of nn.Module): activation class. Defaults to ``nn.Mish``.
        time_embedding_dim (int): size of each time embedding. Defaults to ``16``.

    Raises:
        ValueError: if a size is smaller than 1, or ``dropout`` out of range.

    Examples:
        >>> import torch
        >>> backbone = LNResNetBackbone(action_dim=2, condition_dim=4)
        >>> action, time = torch.zeros(8, 2), torch.zeros(8, 1)
        >>> backbone(action, time, time, torch.zeros(8, 4)).shape
        torch.Size([8, 2])
    """

    def __init__(
        self,
        action_dim: int,
        condition_dim: int = 0,
        *,
        hidden_dim: int = 256,
        num_blocks: int = 3,
        dropout: float = 0.1,
        activation: type[nn.Module] = nn.Mish,
        time_embedding_dim: int = 16,
    ) -> None:
        if hidden_dim < 1 or num_blocks < 1:
            raise ValueError(
                f"hidden_dim and num_blocks must be at least 1, got hidden_dim={hidden_dim} and "
                f"num_blocks={num_blocks}."
            )
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}.")
        super().__init__(
            action_dim, condition_dim, hidden_sizes=(), time_embedding_dim=time_embedding_dim
        )
        # In place of the layers of the base class; its inputs and their checks stay.
        self.trunk = nn.Sequential(
            nn.Linear(action_dim + condition_dim + 2 * time_embedding_dim, hidden_dim),
            *(_Block(hidden_dim, dropout, activation) for _ in range(num_blocks)),
            activation(),
            nn.Linear(hidden_dim, action_dim),
        )

    def reset_parameters(self) -> None:
        """Leaves the layers as they are: normalised blocks need no other weights than theirs."""


class _Block(nn.Module):
    """``x + Linear_h(activation(Linear_4h(LayerNorm(Dropout(x)))))``."""

    def __init__(self, hidden_dim: int, dropout: float, activation: type[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(dropout),
            nn.LayerNorm(hidden_dim, eps=1e-6),
            nn.Linear(hidden_dim, 4 * hidden_dim),
            activation(),
            nn.Linear(4 * hidden_dim, hidden_dim),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [..., h] to [..., h]."""
        return inputs + self.layers(inputs)
