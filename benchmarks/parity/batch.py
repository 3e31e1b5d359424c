"""One batch of transitions, as our losses read it and as the published programs do."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torch import Tensor

__all__ = ["ACTION_DIM", "BATCH_SIZE", "GAMMA", "OBSERVATION_DIM", "Memory", "make_batch"]

BATCH_SIZE = 32
OBSERVATION_DIM = 5
ACTION_DIM = 3
GAMMA = 0.99


def make_batch(batch_size: int = BATCH_SIZE) -> TensorDict:
    """Draws transitions in the default dtype; a quarter of them end their episode.

    Observations and actions are numbers that single precision holds too, because the published
    programs make single precision of an observation before they act on it.
    """

    def rounded(values: Tensor) -> Tensor:
        return values.float().to(values.dtype)

    terminated = torch.rand(batch_size, 1) < 0.25
    return TensorDict(
        {
            "observation": rounded(torch.randn(batch_size, OBSERVATION_DIM)),
            "action": rounded(2 * torch.rand(batch_size, ACTION_DIM) - 1),
            "next": {
                "observation": rounded(torch.randn(batch_size, OBSERVATION_DIM)),
                "reward": torch.randn(batch_size, 1),
                "done": terminated,
                "terminated": terminated.clone(),
            },
        },
        batch_size=[batch_size],
    )


class Memory:
    """Stands for the replay buffer of a published program.

    Args:
        batch: what each draw gives; ``None`` for fresh transitions in each.
    """

    def __init__(self, batch: TensorDict | None = None) -> None:
        self.batch = batch

    def sample(self, batch_size: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Gives observation, action, next observation, reward, and 1 where it goes on, else 0."""
        batch = make_batch(batch_size) if self.batch is None else self.batch
        following = batch["next"]
        goes_on = 1 - following["terminated"].to(batch["action"].dtype)
        return (
            batch["observation"],
            batch["action"],
            following["observation"],
            following["reward"],
            goes_on,
        )
