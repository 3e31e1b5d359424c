"""The first success of an episode with a sparse reward."""

from __future__ import annotations

from torch import Tensor


def steps_to_success(rewards: Tensor, dataset_id: str, episode: int) -> int:
    """Counts the steps of an episode up to its first success, that step included.

    A success is a reward of 1; every other reward has to be 0, so that a dense reward is not taken
    for a sparse one.

    Args:
        rewards (Tensor): the environment's own rewards, before any transform, shape ``[T]``.
        dataset_id (str): for the messages.
        episode (int): the episode's number, for the messages.

    Returns:
        the number of steps; ``T`` for an episode without success.

    Raises:
        ValueError: if a reward is neither 0 nor 1.

    Examples:
        >>> import torch
        >>> steps_to_success(torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0]), "name-v0", episode=0)
        3
        >>> steps_to_success(torch.tensor([0.0, 0.0]), "name-v0", episode=1)
        2
    """
    success = rewards == 1
    other = ~success & (rewards != 0)
    if other.any():
        step = int(other.nonzero()[0])
        raise ValueError(
            f"cut_after_success=True needs rewards of 0 and 1, but in dataset {dataset_id!r}, "
            f"episode {episode}, step {step} the reward is {float(rewards[step]):.3g}. Load the "
            "dataset with cut_after_success=False."
        )
    return int(success.nonzero()[0]) + 1 if success.any() else len(rewards)
