"""Checks of tensordict keys that users give."""

from __future__ import annotations

from collections.abc import Sequence

from tensordict.utils import NestedKey, unravel_key


def checked_keys(observation_keys: Sequence[NestedKey]) -> list[NestedKey]:
    """Returns the keys as a list.

    Raises:
        ValueError: if there is none, or for a plain string, which would be read letter by letter.

    Examples:
        >>> checked_keys(("observation", ("sensors", "speed")))
        ['observation', ('sensors', 'speed')]
    """
    if isinstance(observation_keys, str) or not observation_keys:
        raise ValueError(
            "observation_keys must be a non-empty sequence of keys such as ('observation',), got "
            f"{observation_keys!r}."
        )
    return [unravel_key(key) for key in observation_keys]
