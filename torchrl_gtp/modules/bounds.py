"""The bounds of an action, given or read from a spec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Bounded, Composite, TensorSpec, Unbounded

__all__ = ["action_bounds", "checked_bounds"]


def action_bounds(spec: TensorSpec, action_key: NestedKey) -> tuple[Tensor, Tensor]:
    """Reads the bounds [A] from a spec, which may be batched and nested in a ``Composite``.

    Args:
        spec (TensorSpec): the spec of a continuous action, or a ``Composite`` that holds it.
        action_key (NestedKey): its entry in the ``Composite``.

    Returns:
        tuple of Tensor: lower and upper bounds, infinite for an ``Unbounded`` spec.

    Raises:
        ValueError: if the spec is not that of one continuous vector, or has no such entry.

    Examples:
        >>> action_bounds(Bounded(-1, 2, (3,)), "action")
        (tensor([-1., -1., -1.]), tensor([2., 2., 2.]))
    """
    batch_dims = 0
    if isinstance(spec, Composite):
        if action_key not in spec.keys(True, True):
            raise ValueError(
                f"action_spec has no entry {action_key!r}, only {list(spec.keys(True, True))}."
            )
        path = action_key if isinstance(action_key, tuple) else (action_key,)
        batch_dims = len((spec[path[:-1]] if len(path) > 1 else spec).shape)
        spec = spec[action_key]
    if not isinstance(spec, (Bounded, Unbounded)) or not spec.dtype.is_floating_point:
        raise ValueError(
            "action_spec must be Bounded or Unbounded with a floating-point dtype, because a "
            f"flow map generates continuous actions; got {spec}."
        )
    if len(spec.shape) != batch_dims + 1:
        raise ValueError(
            f"action_spec must describe one vector [A], got shape {tuple(spec.shape)}"
            + (f" with {batch_dims} batch dimensions." if batch_dims else ".")
            + " For chunks give the spec of one action, and chunk_length."
        )
    action_dim = spec.shape[-1]
    if isinstance(spec, Unbounded):
        bound = torch.full((action_dim,), torch.inf)
        return -bound, bound
    space = cast(Bounded, spec).space
    return space.low.reshape(-1, action_dim)[0].cpu(), space.high.reshape(-1, action_dim)[0].cpu()


def checked_bounds(
    spec: TensorSpec | None,
    action_key: NestedKey,
    low: Tensor | Sequence[float] | None,
    high: Tensor | Sequence[float] | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Returns the bounds [A], from a spec or as given, as tensors of their own.

    Args:
        spec (TensorSpec, optional): as for :func:`action_bounds`; exclusive with the bounds.
        action_key (NestedKey): its entry in a ``Composite``.
        low (Tensor or sequence of float, optional): lower bounds [A].
        high (Tensor or sequence of float, optional): upper bounds [A].
        dtype (torch.dtype): the dtype of the result.

    Returns:
        tuple of Tensor: lower and upper bounds.

    Raises:
        ValueError: if neither or both of ``spec`` and the bounds are given, if a lower bound is
            not below its upper bound, or as :func:`action_bounds`.

    Examples:
        >>> checked_bounds(None, "action", [-1.0], [1.0], torch.float64)
        (tensor([-1.], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    if spec is not None and low is None and high is None:
        low, high = action_bounds(spec, action_key)
    elif spec is not None or low is None or high is None:
        raise ValueError(
            "The bounds must come either from action_spec or from both low and high, got "
            f"action_spec={spec}, low={low} and high={high}."
        )
    low, high = torch.as_tensor(low, dtype=dtype), torch.as_tensor(high, dtype=dtype)
    if low.ndim != 1 or low.shape != high.shape or not bool((low < high).all()):
        raise ValueError(
            "low and high must be vectors of one shape [A] with low < high everywhere, got "
            f"low={low.tolist()} and high={high.tolist()}."
        )
    return low.clone(), high.clone()
