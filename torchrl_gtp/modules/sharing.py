"""Modules that share their tensors with a functional copy."""

from __future__ import annotations

from tensordict import TensorDictBase
from torch import nn

__all__ = ["share_parameters"]


def share_parameters(module: nn.Module, params: TensorDictBase) -> None:
    """Gives a module parameters and buffers that share their memory with ``params``.

    In contrast to ``params.to_module(module)`` the module gets parameters (without gradient) for
    its parameters also where ``params`` holds buffers, as target parameters do; so it can be
    saved, copied, cast and moved like any module.

    Args:
        module (nn.Module): the module; changed in place.
        params (TensorDictBase): tensors by the module's structure.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> source, module = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> share_parameters(module, TensorDict.from_module(source).data)
        >>> _ = torch.nn.init.zeros_(source.bias)
        >>> module.bias.tolist(), module.bias.requires_grad
        ([0.0, 0.0], False)
    """
    values = params.flatten_keys(".")
    # Tied tensors have several names: each is replaced.
    for name, _ in list(module.named_parameters(remove_duplicate=False)):
        owner, _, leaf = name.rpartition(".")
        shared = nn.Parameter(values.get(name).data, requires_grad=False)
        setattr(module.get_submodule(owner), leaf, shared)
    for name, _ in list(module.named_buffers(remove_duplicate=False)):
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, values.get(name).data)
