"""Schedules as functions of the progress of training, a tensor."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Schedule", "constant", "cosine", "linear"]

Schedule = Callable[[Tensor], Tensor]
"""Takes the share of training done, a scalar tensor in [0, 1], to a value of that shape."""


def constant(value: float) -> Schedule:
    """Returns a schedule that stays at ``value``."""
    return lambda progress: torch.full_like(progress, value)


def linear(first: float, last: float) -> Schedule:
    """Returns a schedule on a straight line from ``first`` to ``last``.

    Examples:
        >>> linear(1.0, 3.0)(torch.tensor(0.25))
        tensor(1.5000)
    """
    return lambda progress: first + (last - first) * progress


def cosine(first: float, last: float = 0.0) -> Schedule:
    """Returns a schedule on half a cosine from ``first`` to ``last``.

    Examples:
        >>> cosine(1.0)(torch.tensor(0.5))
        tensor(0.5000)
    """
    return lambda progress: last + 0.5 * (first - last) * (1 + torch.cos(math.pi * progress))
