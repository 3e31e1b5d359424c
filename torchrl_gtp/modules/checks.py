"""Checks of numbers that several modules take."""

from __future__ import annotations

import operator

__all__ = ["checked_chunk_length", "checked_num_steps"]


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


def _checked_count(value: int, meaning: str) -> int:
    # Integers of other libraries count, truth values do not.
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise ValueError(f"{meaning} of at least 1; got {value!r}.")
    return operator.index(value)
