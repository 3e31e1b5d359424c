"""Checks of what users give to the modules."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from tensordict.utils import NestedKey
from torch import Tensor

__all__ = [
    "check_alike",
    "check_input",
    "checked_chunk_length",
    "checked_num_steps",
    "is_capturing",
]


def checked_num_steps(num_steps: int) -> int:
    """Returns the number of jumps K as an ``int``.

    Raises:
        ValueError: unless it is an integer of at least 1.

    Examples:
        >>> import numpy as np
        >>> checked_num_steps(np.int64(3))
        3
    """
    return _checked_count(num_steps, "num_steps is the number of jumps K, an integer")


def checked_chunk_length(chunk_length: int | None) -> int | None:
    """Returns the number H of actions in a chunk as an ``int``, or ``None`` for no chunks.

    Raises:
        ValueError: unless it is ``None`` or an integer of at least 1.

    Examples:
        >>> checked_chunk_length(8), checked_chunk_length(None)
        (8, None)
    """
    if chunk_length is None:
        return None
    return _checked_count(
        chunk_length, "chunk_length is the number H of actions in a chunk, None or an integer"
    )


def check_input(name: str, value: object, device: torch.device, *shapes: tuple[int, ...]) -> None:
    """Checks an input of the actor, if it is a tensor.

    Args:
        name (str): the name of the argument.
        value (object): the argument; what is not a tensor passes.
        device (torch.device): the device of the actor.
        *shapes (tuple of int): the shapes that are accepted. Defaults to all.

    Raises:
        ValueError: if the tensor is on another device or has another shape.
    """
    if not isinstance(value, Tensor):
        return
    if value.device != device:
        raise ValueError(
            f"{name} is on the device {value.device}, but the actor is on {device}: move the actor "
            f"with actor.to({str(value.device)!r}), or the input with .to({str(device)!r})."
        )
    if shapes and value.shape not in shapes:
        raise ValueError(
            f"{name} must have the shape {' or '.join(map(str, shapes))}, got {tuple(value.shape)}."
        )


def is_capturing(device: torch.device) -> bool:
    """Tells whether the code that runs now is being captured in a CUDA graph.

    Compiled code cannot ask: it always answers no.
    """
    # The question itself is an error where there is no CUDA.
    return (
        device.type == "cuda"
        and not torch.compiler.is_compiling()
        and torch.cuda.is_current_stream_capturing()
    )


def check_alike(keys: Sequence[NestedKey], entries: Sequence[Tensor], batch_dims: int) -> None:
    """Checks that entries can be concatenated on their last dimension.

    Args:
        keys (sequence of NestedKey): the names of the entries.
        entries (sequence of Tensor): the entries.
        batch_dims (int): the number of batch dimensions of the tensordict.

    Raises:
        ValueError: if an entry has no dimension after the batch dimensions, or if the entries
            differ in leading dimensions or device.
    """
    first = entries[0]
    for key, entry in zip(keys, entries, strict=True):
        if entry.ndim <= batch_dims:
            raise ValueError(
                f"The observation entry {key!r} has the shape {tuple(entry.shape)}, which leaves "
                f"no dimension for its values after the {batch_dims} batch dimensions: make it "
                "[..., 1]."
            )
        if entry.shape[:-1] != first.shape[:-1]:
            raise ValueError(
                "The observation entries must agree in all dimensions but the last; "
                f"{keys[0]!r} has the shape {tuple(first.shape)} and {key!r} "
                f"{tuple(entry.shape)}."
            )
        if entry.device != first.device:
            raise ValueError(
                f"The observation entries must be on one device; {keys[0]!r} is on {first.device} "
                f"and {key!r} on {entry.device}."
            )


def _checked_count(value: int, meaning: str) -> int:
    # Integers of other libraries count, truth values do not. A compiler makes a symbol of an int,
    # which it cannot ask for attributes; so int comes first.
    is_integer = isinstance(value, int) or hasattr(value, "__index__")
    if isinstance(value, bool) or not is_integer or value < 1:
        raise ValueError(f"{meaning} of at least 1; got {value!r}.")
    return operator.index(value)
