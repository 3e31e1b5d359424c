"""Batches of which a fixed share comes from the dataset and the rest from the environment."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from torchrl.data import (
    ImmutableDatasetWriter,
    LazyTensorStorage,
    ReplayBuffer,
    TensorDictReplayBuffer,
)

# What the losses read; both parts of a batch have to have the same entries.
REPLAY_KEYS = (
    "observation",
    "action",
    ("next", "observation"),
    ("next", "reward"),
    ("next", "done"),
    ("next", "terminated"),
    ("next", "truncated"),
)


class MixedReplayBuffer:
    """A dataset and a ring of the newest online transitions, sampled at a fixed ratio.

    The number of rows of each part is the same in every batch. TorchRL's ``ReplayBufferEnsemble``
    draws that number too, in as many pieces as one has it draw; its ``OfflineToOnlineReplayBuffer``
    does not take a ``TensorDictReplayBuffer`` as dataset.

    Args:
        offline: the dataset, drawn from uniformly; its batch size is that of the mixture.
        capacity: number of online transitions kept.
        offline_fraction: share of the dataset in a batch, in [0, 1]; rounded to whole rows. While
            there are no online transitions the whole batch comes from the dataset.

    Attributes:
        offline: the dataset.
        online: the online transitions.
    """

    def __init__(self, offline: ReplayBuffer, capacity: int, offline_fraction: float) -> None:
        if not 0.0 <= offline_fraction <= 1.0:
            raise ValueError(f"online.offline_fraction must lie in [0, 1], got {offline_fraction}.")
        if capacity < 1:
            raise ValueError(f"online.buffer_size must be at least 1, got {capacity}.")
        batch_size = offline.batch_size
        if batch_size is None:
            raise ValueError("The offline buffer needs a batch_size, that of the mixture.")
        # Without a batch size of its own: each part is asked for as many rows as are its share.
        self.offline = TensorDictReplayBuffer(
            storage=offline.storage, writer=ImmutableDatasetWriter()
        )
        self.online = TensorDictReplayBuffer(storage=LazyTensorStorage(capacity))
        self._batch_size = batch_size
        self._num_offline = round(offline_fraction * batch_size)

    def extend(self, transitions: TensorDictBase) -> None:
        """Add online transitions of any batch shape; the oldest give way when it is full."""
        self.online.extend(transitions.select(*REPLAY_KEYS).reshape(-1))

    def sample(self) -> TensorDictBase:
        """Draw a batch, the rows of the dataset first."""
        num_offline = self._num_offline if len(self.online) else self._batch_size
        parts = [
            buffer.sample(size).select(*REPLAY_KEYS)
            for buffer, size in (
                (self.offline, num_offline),
                (self.online, self._batch_size - num_offline),
            )
            if size
        ]
        return torch.cat(parts)

    def state_dict(self) -> dict[str, Any]:
        """The online transitions and where the next one goes; the dataset is not part of it."""
        return self.online.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to the state of :meth:`state_dict`."""
        self.online.load_state_dict(state)
