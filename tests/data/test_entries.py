"""Entries of a buffer that are added and written back: of every tensor storage, and of no other."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import (
    ImmutableDatasetWriter,
    LazyMemmapStorage,
    LazyTensorStorage,
    ListStorage,
    ReplayBuffer,
    TensorDictReplayBuffer,
    TensorStorage,
)
from torchrl.data.replay_buffers import SliceSampler

from torchrl_gtp.data import AdvantageWeightedSampler, copy_entry, write_entry

MAKERS = {
    "ram": lambda data: LazyTensorStorage(20),
    "full": lambda data: LazyTensorStorage(len(data)),
    "memmap": lambda data: LazyMemmapStorage(20),
    "dataset": lambda data: TensorStorage(data),
    "mapped dataset": lambda data: TensorStorage(data.memmap()),
}


def transitions(count=12):
    return TensorDict(
        {
            "observation": torch.arange(count).float().unsqueeze(-1),
            "action": torch.zeros(count, 2),
            "next": {"reward": torch.ones(count, 1)},
        },
        [count],
    )


def make_buffer(name, **options):
    data = transitions()
    storage = MAKERS[name](data)
    options = {"batch_size": 5, **options}
    if "dataset" in name:
        options["writer"] = ImmutableDatasetWriter()
    buffer = TensorDictReplayBuffer(storage=storage, **options)
    if "dataset" not in name:
        buffer.extend(data)
    return buffer


@pytest.mark.parametrize("name", MAKERS)
def test_improved_actions_stay_beside_those_of_the_data(name):
    buffer = make_buffer(name)
    copy_entry(buffer, "action", "improved_action")
    seen = set()
    for value in (1.0, 2.0):
        batch = buffer.sample()
        batch["improved_action"] = torch.full_like(batch["action"], value)
        write_entry(buffer, batch, "improved_action")
        stored = buffer[:]
        assert (stored["improved_action"][batch["index"]] == value).all()
        seen |= set(batch["index"].tolist())
    others = [index for index in range(12) if index not in seen]
    assert (stored["improved_action"][others] == 0).all() and others
    assert (stored["action"] == 0).all()
    assert torch.equal(stored["observation"], transitions()["observation"])


@pytest.mark.parametrize("name", ["ram", "memmap"])
def test_transitions_added_later_bring_the_entry(name):
    buffer = make_buffer(name)
    copy_entry(buffer, "action", "improved_action")
    new = transitions(20)
    new["improved_action"] = torch.full((20, 2), 7.0)
    buffer.extend(new)
    assert (buffer[:]["improved_action"] == 7).all()


def test_storages_of_two_dimensions():
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(20, ndim=2), batch_size=5)
    buffer.extend(transitions().reshape(3, 4))
    copy_entry(buffer, "action", "improved_action")
    batch = buffer.sample()
    batch["improved_action"] += 1.0
    write_entry(buffer, batch, "improved_action")
    # The index is that of the storage, which keeps time first.
    again = buffer.storage[:]["improved_action"]
    assert (again[tuple(batch["index"].unbind(-1))] == 1).all()
    drawn = {tuple(index) for index in batch["index"].tolist()}
    assert again.sum() == 2 * len(drawn)


def trajectories():
    """Of 4, 5 and 3 steps."""
    return transitions().set("episode", torch.tensor([0] * 4 + [1] * 5 + [2] * 3))


@pytest.mark.parametrize("reshaped", [False, True])
@pytest.mark.parametrize("slice_len", [1, 3])
def test_slices_of_trajectories(slice_len, reshaped):
    sampler = SliceSampler(slice_len=slice_len, traj_key="episode")
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(12), sampler=sampler, batch_size=6)
    buffer.extend(trajectories())
    batch = buffer.sample()
    if reshaped:
        batch = batch.reshape(-1, slice_len)
    batch["action"] = batch["observation"].expand(*batch.shape, 2) + 1
    write_entry(buffer, batch, "action")
    drawn = batch["observation"].flatten().long()
    expected = torch.zeros(12, 2)
    expected[drawn] = drawn.unsqueeze(-1) + 1.0
    assert torch.equal(buffer[:]["action"], expected)


def test_the_padding_of_short_slices_is_not_written():
    sampler = SliceSampler(slice_len=8, traj_key="episode", strict_length=False, pad_output=True)
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(12), sampler=sampler, batch_size=48)
    buffer.extend(trajectories())
    batch = buffer.sample()
    mask = batch["collector", "mask"]
    assert not mask.all()
    batch["action"] = torch.where(mask.reshape(-1, 1), 1.0, float("nan")).expand(-1, 2)
    write_entry(buffer, batch, "action")
    drawn = batch["observation"][mask.flatten()].flatten().long()
    expected = torch.zeros(12, 2)
    expected[drawn] = 1.0
    assert torch.equal(buffer[:]["action"], expected)


def test_shapes_that_do_not_fit_are_refused():
    buffer = make_buffer("ram")
    batch = buffer.sample()
    with pytest.raises(ValueError, match=r"'action'.*\(5, 2\).*got \(5, 1\)"):
        write_entry(buffer, batch.clone().set("action", torch.zeros(5, 1)), "action")
    batch["index"] = batch["index"].unsqueeze(-1).expand(5, 2)
    with pytest.raises(ValueError, match=r"'index'.*\(5, 1\).*got \(5, 2\)"):
        write_entry(buffer, batch, "action")


def test_weights_of_a_sampler_stay():
    buffer = make_buffer("ram", sampler=AdvantageWeightedSampler())
    buffer.update_priority(torch.arange(12), torch.linspace(1.0, 2.0, 12))
    before = buffer.sampler.weights
    write_entry(buffer, buffer.sample(), "action")
    assert torch.equal(buffer.sampler.weights, before)


def test_nested_entries():
    buffer = make_buffer("ram")
    copy_entry(buffer, ("next", "reward"), ("shaped", "reward"))
    batch = buffer.sample()
    batch["shaped", "reward"] = batch["next", "reward"] + 1
    write_entry(buffer, batch, ("shaped", "reward"))
    assert (buffer[:]["shaped", "reward"][batch["index"]] == 2).all()
    assert (buffer[:]["next", "reward"] == 1).all()


def test_what_cannot_be_written():
    listed = ReplayBuffer(storage=ListStorage(10))
    with pytest.raises(TypeError, match="must be a TensorStorage.*got ListStorage"):
        copy_entry(listed, "action", "improved_action")
    with pytest.raises(TypeError, match="must be a TensorStorage"):
        write_entry(listed, transitions(), "action")
    empty = TensorDictReplayBuffer(storage=LazyTensorStorage(10))
    with pytest.raises(ValueError, match="buffer is empty"):
        copy_entry(empty, "action", "improved_action")
    buffer = make_buffer("ram")
    with pytest.raises(KeyError, match="no entry 'deed' to copy"):
        copy_entry(buffer, "deed", "improved_action")
    with pytest.raises(KeyError, match="has an entry 'action' already"):
        copy_entry(buffer, "observation", "action")
    with pytest.raises(KeyError, match="batch has no entry 'index'"):
        write_entry(buffer, transitions(), "action")
    batch = buffer.sample()
    with pytest.raises(KeyError, match="batch has no entry 'improved_action'"):
        write_entry(buffer, batch, "improved_action")
    with pytest.raises(KeyError, match="buffer has no entry 'improved_action'"):
        write_entry(buffer, batch.set("improved_action", batch["action"]), "improved_action")
