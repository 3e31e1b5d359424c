"""The bounds of an action, read from a spec."""

from __future__ import annotations

from typing import cast

import torch
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Bounded, Composite, TensorSpec, Unbounded

__all__ = ["action_bounds"]


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
        )
    action_dim = spec.shape[-1]
    if isinstance(spec, Unbounded):
        bound = torch.full((action_dim,), torch.inf)
        return -bound, bound
    space = cast(Bounded, spec).space
    return space.low.reshape(-1, action_dim)[0].cpu(), space.high.reshape(-1, action_dim)[0].cpu()
