"""Our networks with the weights of networks in flax, and theirs within ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchrl_gtp.flow_map import LNResNetBackbone

__all__ = ["FlaxNetwork", "copy_layers", "copy_residual_network", "to_torch"]


def to_torch(array: Any) -> Tensor:
    """Copies an array of jax or numpy."""
    return torch.from_numpy(np.array(array))


class FlaxNetwork(nn.Module):
    """A flax network ``eps(o, x, i)`` as one ``eps(x, i, o)`` of PyTorch, without gradient.

    Args:
        function: called with numpy arrays o, x and i, the last as [N, 1].
    """

    def __init__(self, function: Callable[[np.ndarray, np.ndarray, np.ndarray], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, noisy: Tensor, index: Tensor, condition: Tensor) -> Tensor:
        """Predicts the noise of noisy actions [N, A] at indices [N]."""
        arrays = (entry.detach().numpy() for entry in (condition, noisy, index.unsqueeze(-1)))
        return to_torch(self.function(*arrays))


def copy_layers(network: nn.Module, layers: Sequence[Mapping[str, Any]]) -> None:
    """Copies dense layers into the linear layers of a network, in their order."""
    linear = [part for part in network.modules() if isinstance(part, nn.Linear)]
    for ours, theirs in zip(linear, layers, strict=True):
        with torch.no_grad():
            # Flax multiplies from the right.
            ours.weight.copy_(to_torch(theirs["kernel"]).T)
            ours.bias.copy_(to_torch(theirs["bias"]))


def copy_residual_network(backbone: LNResNetBackbone, params: Mapping[str, Any]) -> None:
    """Copies the published residual network into the trunk of ours."""
    blocks = [params[f"MLPResNetBlock_{i}"] for i in range(len(backbone.trunk) - 3)]
    hidden = [block[name] for block in blocks for name in ("Dense_0", "Dense_1")]
    copy_layers(backbone.trunk, [params["Dense_0"], *hidden, params["Dense_1"]])
    norms = [part for part in backbone.trunk.modules() if isinstance(part, nn.LayerNorm)]
    for norm, block in zip(norms, blocks, strict=True):
        with torch.no_grad():
            norm.weight.copy_(to_torch(block["LayerNorm_0"]["scale"]))
            norm.bias.copy_(to_torch(block["LayerNorm_0"]["bias"]))
