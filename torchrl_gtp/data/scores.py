"""Normalised scores: 0 is a random policy, 100 an expert."""

from __future__ import annotations

import re
from typing import TypeVar

import numpy as np
from torch import Tensor

from torchrl_gtp.data.metadata import MinariMetadata

Returns = TypeVar("Returns", float, np.ndarray, Tensor)

# D4RL's reference returns (random policy, expert), from its d4rl/infos.py.
D4RL_REFERENCE_SCORES: dict[str, tuple[float, float]] = {
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
    "antmaze": (0.0, 1.0),
    "maze2d-umaze": (23.85, 161.86),
    "maze2d-medium": (13.13, 277.39),
    "maze2d-large": (6.7, 273.99),
    "maze2d-umaze-dense": (68.537689, 193.66285642381482),
    "maze2d-medium-dense": (44.264742, 297.4552547777125),
    "maze2d-large-dense": (30.569041, 303.4857382709002),
    "pen": (96.262799, 3076.8331017826877),
    "hammer": (-274.856578, 12794.134825156867),
    "door": (-56.512833, 2880.5693087298737),
    "relocate": (-6.425911, 4233.877797728884),
    "kitchen": (0.0, 4.0),
}
# Minari's namespaces of the tasks above; in other namespaces the names may mean something else.
_NAMESPACES = ("d4rl/", "mujoco/")


def reference_scores(dataset_id: str) -> tuple[float, float] | None:
    """Looks up D4RL's reference returns of a task.

    Args:
        dataset_id (str): a D4RL id (``"hopper-medium-v2"``) or a Minari id of the namespaces
            ``D4RL`` and ``mujoco`` (``"mujoco/hopper/medium-v0"``); the longest task name that it
            begins with counts.

    Returns:
        the returns of a random policy and of an expert, or ``None`` if the task is unknown.

    Reference: Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning",
    https://arxiv.org/abs/2004.07219; its ``d4rl/infos.py``.

    Examples:
        >>> reference_scores("D4RL/antmaze/umaze-v1")
        (0.0, 1.0)
    """
    name = dataset_id.lower()
    for namespace in _NAMESPACES:
        name = name.removeprefix(namespace)
    if "/" in name and name.split("/")[0] not in D4RL_REFERENCE_SCORES:
        return None
    words = re.split(r"[/\-_]", name)
    matches = [
        task for task in D4RL_REFERENCE_SCORES if words[: task.count("-") + 1] == task.split("-")
    ]
    return D4RL_REFERENCE_SCORES[max(matches, key=len)] if matches else None


def normalized_score(
    returns: Returns, reference: MinariMetadata | tuple[float, float] | str
) -> Returns:
    """Computes ``100 (R - R_min) / (R_max - R_min)``.

    Args:
        returns (float, ndarray or Tensor): undiscounted episode returns, any shape, in the unit of
            the environment's own reward (before any reward transform).
        reference (MinariMetadata, (float, float) or str): the two reference returns
            ``(R_min, R_max)``, a dataset's metadata that has them, or the id of a D4RL task.

    Returns:
        the scores, of the type and shape of ``returns``: 0 is a random policy, 100 an expert.

    Raises:
        ValueError: if the reference is unknown or its two returns are equal.

    Reference: Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning",
    https://arxiv.org/abs/2004.07219.

    Examples:
        >>> round(normalized_score(3234.3, "hopper-medium-v2"), 1)
        100.0
        >>> normalized_score(15.0, (10.0, 20.0))
        50.0
    """
    if isinstance(reference, MinariMetadata):
        low, high = reference.ref_min_score, reference.ref_max_score
        if low is None or high is None:
            raise ValueError(
                f"dataset {reference.dataset_id!r} has no reference scores and is no task of "
                "D4RL: pass reference=(R_min, R_max)."
            )
    elif isinstance(reference, str):
        scores = reference_scores(reference)
        if scores is None:
            raise ValueError(
                f"reference={reference!r} is no known task. Accepted are ids that begin with one "
                f"of {sorted(D4RL_REFERENCE_SCORES)}, as 'hopper-medium-v2' or "
                "'mujoco/hopper/medium-v0', or a pair (R_min, R_max)."
            )
        low, high = scores
    else:
        low, high = reference
    if low == high:
        raise ValueError(f"reference must hold two different returns, got {low} twice.")
    return 100.0 * (returns - low) / (high - low)
