"""Checks of a dataset's content, episode by episode."""

from __future__ import annotations

import torch
from torch import Tensor
from torchrl.data import Bounded

# Actions may leave their bounds by this much (times the bound, where that is larger than 1).
ACTION_TOLERANCE = 1e-6


def check_episode(
    dataset_id: str, episode: int, observations: Tensor, actions: Tensor, rewards: Tensor
) -> None:
    """Checks that the lengths of an episode agree and that its numbers are finite.

    Args:
        dataset_id (str): for the messages.
        episode (int): the episode's number, for the messages.
        observations (Tensor): shape ``[T + 1, O]``.
        actions (Tensor): shape ``[T, A]``.
        rewards (Tensor): shape ``[T]``.

    Raises:
        ValueError: if a length does not fit or a number is not finite.

    Examples:
        >>> nan = torch.tensor([[0.0], [float("nan")]])
        >>> check_episode("name-v0", 3, nan, torch.zeros(1, 2), torch.zeros(1))
        Traceback (most recent call last):
        ...
        ValueError: dataset 'name-v0', episode 3, step 1: observation [nan] is not finite.
    """
    steps = len(rewards)
    if len(observations) != steps + 1 or len(actions) != steps:
        raise ValueError(
            f"dataset {dataset_id!r}, episode {episode}: {steps} rewards need {steps} actions and "
            f"{steps + 1} observations, got {len(actions)} and {len(observations)}."
        )
    for name, values in (("observation", observations), ("action", actions), ("reward", rewards)):
        finite = values.isfinite().flatten(1).all(-1) if values.ndim > 1 else values.isfinite()
        if not finite.all():
            step = int((~finite).nonzero()[0])
            raise ValueError(
                f"dataset {dataset_id!r}, episode {episode}, step {step}: {name} "
                f"{values[step].tolist()} is not finite."
            )


class ActionBoundsCheck:
    """Counts, over the whole dataset, the actions that leave their bounds.

    Args:
        action_spec (Bounded): the bounds, shape ``[A]``.

    Examples:
        >>> check = ActionBoundsCheck(Bounded(-1.0, 1.0, (2,)))
        >>> check.add(torch.tensor([[0.0, 1.0], [0.0, -1.5]]), episode=0)
        >>> try:
        ...     check.raise_if_any("name-v0")
        ... except ValueError as error:
        ...     print(error)  # doctest: +ELLIPSIS
        dataset 'name-v0': 1 of 2 actions leave their bounds, by up to 0.5 (episode 0, step 1)...
    """

    def __init__(self, action_spec: Bounded) -> None:
        self._low = action_spec.space.low
        self._high = action_spec.space.high
        self._seen = 0
        self._outside = 0
        self._worst = (0.0, 0, 0)

    def add(self, actions: Tensor, episode: int) -> None:
        """Adds the actions of an episode, shape ``[T, A]``."""
        below = self._low - actions - ACTION_TOLERANCE * self._low.abs().clamp_min(1.0)
        above = actions - self._high - ACTION_TOLERANCE * self._high.abs().clamp_min(1.0)
        excess = torch.maximum(below, above).amax(-1)
        self._seen += len(actions)
        self._outside += int((excess > 0).sum())
        if len(actions):
            largest, step = excess.max(0)
            self._worst = max(self._worst, (float(largest), episode, int(step)))

    def raise_if_any(self, dataset_id: str) -> None:
        """Raises a ``ValueError`` if an action was outside."""
        if self._outside:
            excess, episode, step = self._worst
            raise ValueError(
                f"dataset {dataset_id!r}: {self._outside} of {self._seen} actions leave their "
                f"bounds, by up to {excess:.3g} (episode {episode}, step {step}). Clip them with "
                "clip_actions=True."
            )
