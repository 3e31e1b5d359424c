from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

from recipes.offline_to_online.mixed_buffer import MixedReplayBuffer


def transitions(size: int, mark: float) -> TensorDict:
    flag = torch.zeros(size, 1, dtype=torch.bool)
    following = {
        "observation": torch.full((size, 4), mark),
        "reward": torch.full((size, 1), mark),
        "done": flag,
        "terminated": flag,
        "truncated": flag,
    }
    return TensorDict(
        {
            "observation": torch.full((size, 4), mark),
            "action": torch.full((size, 2), mark),
            "next": following,
        },
        batch_size=[size],
    )


def dataset(batch_size: int = 16) -> TensorDictReplayBuffer:
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(100), batch_size=batch_size)
    # A dataset has entries that the environment does not write.
    buffer.extend(transitions(100, 0.0).set("episode", torch.zeros(100, dtype=torch.int64)))
    return buffer


@pytest.mark.parametrize(
    ("fraction", "rows_of_the_dataset"), [(0.0, 0), (0.25, 4), (0.5, 8), (0.7, 11), (1.0, 16)]
)
def test_every_batch_has_the_same_share(fraction: float, rows_of_the_dataset: int) -> None:
    buffer = MixedReplayBuffer(dataset(), capacity=50, offline_fraction=fraction)
    buffer.extend(transitions(10, 1.0).set("collector", torch.zeros(10, 1)))
    for _ in range(5):
        batch = buffer.sample()
        assert batch.batch_size == torch.Size([16])
        assert (batch["action"][:, 0] == 0).sum() == rows_of_the_dataset
        assert ("next", "terminated") in batch.keys(True)


def test_only_the_dataset_before_the_first_online_transition() -> None:
    buffer = MixedReplayBuffer(dataset(), capacity=50, offline_fraction=0.0)
    assert (buffer.sample()["action"] == 0).all()
    assert len(buffer.sample()) == 16


def test_batched_transitions_and_a_full_ring() -> None:
    buffer = MixedReplayBuffer(dataset(), capacity=6, offline_fraction=0.0)
    for mark in (1.0, 2.0, 3.0):
        buffer.extend(transitions(4, mark).reshape(2, 2))
    assert len(buffer.online) == 6
    assert buffer.online[:]["action"][:, 0].sort().values.tolist() == [2.0] * 2 + [3.0] * 4


def test_state_continues_the_ring() -> None:
    buffer = MixedReplayBuffer(dataset(), capacity=6, offline_fraction=0.0)
    for mark in (1.0, 2.0):
        buffer.extend(transitions(4, mark))
    other = MixedReplayBuffer(dataset(), capacity=6, offline_fraction=0.0)
    other.load_state_dict(buffer.state_dict())
    for part in (buffer, other):
        part.extend(transitions(2, 3.0))
    assert torch.equal(buffer.online[:]["action"], other.online[:]["action"])
    assert sorted(other.online[:]["action"][:, 0].tolist()) == [2.0] * 4 + [3.0] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offline_fraction": 1.5}, r"offline_fraction must lie in \[0, 1\], got 1\.5"),
        ({"offline_fraction": -0.1}, "offline_fraction must lie in"),
        ({"capacity": 0}, "buffer_size must be at least 1, got 0"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixedReplayBuffer(dataset(), **{"capacity": 5, "offline_fraction": 0.5, **options})


def test_dataset_without_batch_size() -> None:
    with pytest.raises(ValueError, match="needs a batch_size"):
        MixedReplayBuffer(TensorDictReplayBuffer(storage=LazyTensorStorage(5)), 5, 0.5)
