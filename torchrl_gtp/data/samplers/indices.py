"""Indices of transitions in a storage."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["flat_index", "last_of_each"]


def flat_index(index: int | Tensor, shape: tuple[int, ...] | None) -> Tensor:
    """Turns indices into positions in the flattened storage.

    Args:
        index (int or Tensor): indices [B], or [B, D] for a storage of D dimensions.
        shape (tuple of int, optional): the shape of a storage of several dimensions.

    Returns:
        Tensor: positions [B], ``int64``, on the CPU.

    Raises:
        IndexError: if a coordinate is out of range. The first one is checked only for its sign,
            because the storage grows along it.

    Examples:
        >>> flat_index(torch.tensor([[1, 0], [2, 1]]), (3, 2))
        tensor([2, 5])
    """
    index = torch.as_tensor(index, dtype=torch.int64).cpu()
    if shape is None:
        return index.reshape(-1)
    index = index.reshape(-1, len(shape))
    if bool((index < 0).any()) or bool((index[:, 1:] >= torch.tensor(shape[1:])).any()):
        raise IndexError(
            f"indices must lie in the storage of shape {shape}, got "
            f"{index.amin(0).tolist()} to {index.amax(0).tolist()}."
        )
    strides = torch.tensor([math.prod(shape[dim + 1 :]) for dim in range(len(shape))])
    return (index * strides).sum(-1)


def last_of_each(index: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the last occurrence of each index.

    Args:
        index (Tensor): indices [B], ``int64``.

    Returns:
        tuple of Tensor: the distinct indices, sorted, and the row of the last of each.

    Examples:
        >>> last_of_each(torch.tensor([7, 3, 7]))
        (tensor([3, 7]), tensor([1, 2]))
    """
    distinct, inverse = torch.unique(index, return_inverse=True)
    row = torch.arange(index.numel())
    return distinct, torch.zeros_like(distinct).scatter_reduce(0, inverse, row, "amax")
