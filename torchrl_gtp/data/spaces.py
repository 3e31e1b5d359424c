"""From gymnasium spaces to the observation vector and the action spec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tensordict import NestedKey, unravel_key
from torchrl.data import Bounded

from torchrl_gtp.keys import checked_keys

_Path = tuple[str, ...]

OBSERVATION = "observation"
_DEFAULT_KEYS = ("observation", "desired_goal")


def select_observation_keys(
    space: gym.Space, observation_keys: Sequence[NestedKey] | None, dataset_id: str
) -> tuple[NestedKey, ...]:
    """Resolves the keys that are concatenated, in order, into the observation vector.

    Args:
        space (gymnasium.Space): the observation space: a ``Box`` or a (nested) ``Dict`` of them.
        observation_keys (sequence of NestedKey, optional): the wanted keys. A key of a nested
            ``Dict`` stands for all of its leaves, in the order of the space. A ``Box`` has one key,
            ``"observation"``. Defaults to everything under ``"observation"`` and
            ``"desired_goal"`` if the space has both, to ``"observation"`` if it has that alone,
            and else to all leaves in the order of the space.
        dataset_id (str): for the messages.

    Returns:
        the keys of the leaves: names, or tuples of names where they are nested.

    Raises:
        KeyError: if a key is not in the space.
        ValueError: if no key is left, or a key is given twice.
        TypeError: if a chosen leaf is not a one-dimensional ``Box`` of ``float32`` or ``float64``.

    Examples:
        >>> import gymnasium as gym, numpy as np
        >>> box = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        >>> space = gym.spaces.Dict({"observation": box, "desired_goal": box, "achieved_goal": box})
        >>> select_observation_keys(space, None, "name-v0")
        ('observation', 'desired_goal')
    """
    leaves = dict(_leaves(space))
    if observation_keys is None:
        wanted: list[_Path] = [(key,) for key in _DEFAULT_KEYS]
        present = [key for key in wanted if any(path[:1] == key for path in leaves)]
        prefixes: list[_Path] = present if wanted[0] in present else [()]
    else:
        prefixes = [_as_path(key) for key in checked_keys(observation_keys)]
    chosen: list[_Path] = []
    for prefix in prefixes:
        found = [path for path in leaves if path[: len(prefix)] == prefix]
        if not found:
            raise KeyError(
                f"dataset {dataset_id!r} has no observation key {_as_key(prefix)!r}: it has "
                f"{[_as_key(path) for path in leaves]}."
            )
        chosen.extend(found)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"observation_keys must name at least one key and none twice, got {observation_keys!r}."
        )
    for path in chosen:
        leaf = leaves[path]
        if (
            not isinstance(leaf, gym.spaces.Box)
            or len(leaf.shape) != 1
            or leaf.dtype not in (np.float32, np.float64)
        ):
            raise TypeError(
                f"dataset {dataset_id!r}: observation {_as_key(path)!r} has the space {leaf}; "
                "only one-dimensional Boxes of float32 or float64 can be loaded. Choose other "
                "observation_keys."
            )
    return tuple(_as_key(path) for path in chosen)


def concatenate(observation: Any, keys: Sequence[NestedKey]) -> np.ndarray:
    """Concatenates the chosen parts of an observation (or of a batch) on the last axis.

    Args:
        observation (ndarray or dict): a flat array or a (nested) dict of arrays.
        keys (sequence of NestedKey): from :func:`select_observation_keys`.

    Returns:
        the vector, ``float32``.

    Examples:
        >>> import numpy as np
        >>> concatenate({"a": np.zeros(1), "b": {"c": np.ones(2)}}, [("b", "c"), "a"])
        array([1., 1., 0.], dtype=float32)
    """
    if not isinstance(observation, dict):
        return np.asarray(observation, dtype=np.float32)
    parts = []
    for key in keys:
        part = observation
        for name in _as_path(key):
            part = part[name]
        parts.append(np.asarray(part, dtype=np.float32))
    return np.concatenate(parts, axis=-1)


def goals_unseen(observations: Any, keys: Sequence[NestedKey]) -> bool:
    """Returns whether the observation vector lacks the quantity that goals are about.

    Environments with goals report it as ``"achieved_goal"``. Most repeat it in ``"observation"``,
    but the ant's position in AntMaze stands in ``"achieved_goal"`` alone.

    Args:
        observations (ndarray or dict): the observations of an episode, with its steps first.
        keys (sequence of NestedKey): what the vector is made of.

    Returns:
        whether a column of ``"achieved_goal"`` resembles none of the vector's columns (mean
        distance over 0.01; environments add noise to one of the two).

    Examples:
        >>> import numpy as np
        >>> steps = np.arange(3.0)[:, None]
        >>> goals_unseen({"observation": 0 * steps, "achieved_goal": steps}, ["observation"])
        True
        >>> goals_unseen({"observation": steps, "achieved_goal": steps}, ["observation"])
        False
    """
    if not isinstance(observations, dict) or "achieved_goal" not in observations:
        return False
    leaves = list(_array_leaves(observations["achieved_goal"]))
    achieved = np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=-1)
    vector = concatenate(observations, keys)
    distance = np.abs(achieved[:, :, None] - vector[:, None, :]).mean(0)
    return bool((distance.min(-1) > 0.01).any())


def make_action_spec(space: gym.Space, dataset_id: str) -> Bounded:
    """Turns a bounded, one-dimensional ``Box`` into a TorchRL spec of ``float32``.

    Args:
        space (gymnasium.Space): the action space.
        dataset_id (str): for the messages.

    Returns:
        the spec, shape ``[A]``.

    Raises:
        TypeError: if the space is discrete or anything else than a bounded vector.

    Examples:
        >>> import gymnasium as gym
        >>> make_action_spec(gym.spaces.Box(-1.0, 1.0, (2,)), "name-v0").shape
        torch.Size([2])
    """
    if (
        not isinstance(space, gym.spaces.Box)
        or len(space.shape) != 1
        or not np.issubdtype(space.dtype, np.floating)
        or not space.is_bounded()
    ):
        raise TypeError(
            f"dataset {dataset_id!r} has the action space {space}; only continuous actions are "
            "supported: a one-dimensional Box with finite bounds."
        )
    return Bounded(
        torch.as_tensor(space.low, dtype=torch.float32),
        torch.as_tensor(space.high, dtype=torch.float32),
        shape=space.shape,
        dtype=torch.float32,
    )


def _leaves(space: gym.Space, prefix: _Path = ()) -> Iterator[tuple[_Path, gym.Space]]:
    if isinstance(space, gym.spaces.Dict):
        for name, child in space.spaces.items():
            yield from _leaves(child, (*prefix, name))
    else:
        yield prefix or (OBSERVATION,), space


def _array_leaves(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, dict):
        for child in value.values():
            yield from _array_leaves(child)
    else:
        yield np.asarray(value, dtype=np.float32)


def _as_path(key: NestedKey) -> _Path:
    key = unravel_key(key)
    return (key,) if isinstance(key, str) else key


def _as_key(path: _Path) -> NestedKey:
    return path[0] if len(path) == 1 else path
