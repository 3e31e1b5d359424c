"""Rows of batches of any shape, and one of each few of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["one_of_each", "rows_of"]


def one_of_each(num_rows: int, rank: Tensor) -> Tensor:
    """Gives the row of the largest rank among each so many rows; the last ones may be fewer.

    At random, for a batch may have a period; and by neighbours, so that a part of a batch that
    another process has is treated as in the whole.

    Args:
        num_rows (int): one of so many rows is taken.
        rank (Tensor): uniform draws in [0, 1), one for each row [N].

    Returns:
        Tensor: the rows that are taken, in their order [ceil(N / num_rows)].

    Examples:
        >>> one_of_each(2, torch.tensor([0.1, 0.9, 0.8, 0.2, 0.5]))
        tensor([1, 2, 4])
    """
    blocks = F.pad(rank, (0, -len(rank) % num_rows), value=-1.0).reshape(-1, num_rows)
    return blocks.argmax(-1) + num_rows * torch.arange(len(blocks), device=rank.device)


def rows_of(entry: Tensor) -> Tensor:
    """Gives the rows of a batch of any shape, [N, D] of [..., D]."""
    return entry.reshape(-1, entry.shape[-1])
