"""Data that are not finite are refused before training, by name and number."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import (
    LazyMemmapStorage,
    LazyTensorStorage,
    ListStorage,
    ReplayBuffer,
    TensorDictReplayBuffer,
)

from torchrl_gtp.training import check_finite
from torchrl_gtp.training import finite as module


def make_data(*batch: int) -> TensorDict:
    batch = batch or (10,)
    following = {"observation": torch.randn(*batch, 3), "reward": torch.randn(*batch, 1)}
    following["done"] = torch.zeros(*batch, 1, dtype=torch.bool)
    data = {"observation": torch.randn(*batch, 3), "action": torch.rand(*batch, 2)}
    return TensorDict({**data, "next": following, "name": "walk"}, batch)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_entries_are_named_and_rows_counted(value):
    data = make_data()
    check_finite(data)
    data["action"][[4, 7], 1] = value
    data["next", "reward"][9] = value
    with pytest.raises(
        ValueError, match="'action' is not in 2 of 10 rows, the first at 4"
    ) as error:
        check_finite(data)
    assert "('next', 'reward') is not in 1 of 10 rows, the first at 9" in str(error.value)
    check_finite(data, keys=["observation", ("next", "observation")])
    with pytest.raises(ValueError, match="but 'action' is not in 1 of 10 rows, the first at 7"):
        check_finite(data, mask=torch.arange(10) > 4)


def test_rows_of_several_batch_dimensions_and_of_none():
    data = make_data(4, 5)
    data["observation"][2, 3, 0] = float("nan")
    with pytest.raises(ValueError, match="in 1 of 20 rows, the first at 2, 3"):
        check_finite(data)
    check_finite(data, mask=torch.arange(5).expand(4, 5) != 3)
    check_finite(make_data()[:0])
    loose = TensorDict({"action": torch.tensor([float("nan")])})
    with pytest.raises(ValueError, match="'action' is not in 1 of 1 rows"):
        check_finite(loose)


def test_large_entries_are_read_in_parts(monkeypatch):
    monkeypatch.setattr(module, "_PART", 3)
    data = make_data()
    check_finite(data)
    data["action"][[2, 9]] = float("nan")
    with pytest.raises(ValueError, match="'action' is not in 2 of 10 rows, the first at 2"):
        check_finite(data)


@pytest.mark.parametrize("kind", [ReplayBuffer, TensorDictReplayBuffer])
@pytest.mark.parametrize("storage", [LazyTensorStorage, LazyMemmapStorage, ListStorage])
def test_replay_buffers(kind, storage):
    buffer = kind(storage=storage(100), batch_size=4)
    with pytest.raises(ValueError, match="holds nothing yet"):
        check_finite(buffer)
    data = make_data().exclude("name")
    buffer.extend(data)
    check_finite(buffer)
    data = data.clone()
    data["action"][3] = float("nan")
    buffer.extend(data)
    with pytest.raises(ValueError, match="'action' is not in 1 of 20 rows, the first at 13"):
        check_finite(buffer)


def test_bad_arguments():
    with pytest.raises(KeyError, match="keys names the entry .*q.*, which data lacks"):
        check_finite(make_data(), keys=["q"])
    with pytest.raises(TypeError, match="data must be a tensordict, or a replay buffer .* dict"):
        check_finite({"action": torch.zeros(3)})
    buffer = ReplayBuffer(storage=ListStorage(10))
    buffer.extend([1, 2])
    with pytest.raises(TypeError, match="replay buffer of tensordicts; got list"):
        check_finite(buffer)
