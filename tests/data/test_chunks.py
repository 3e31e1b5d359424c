"""Chunks of actions from replay buffers: windows, masks, folded rewards."""

from __future__ import annotations

import pickle

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, SliceSampler, TensorDictReplayBuffer
from torchrl.envs.transforms import ActionChunkTransform
from torchrl.objectives.value import TD0Estimator

from torchrl_gtp.data import (
    ActionChunks,
    AdvantageWeightedSampler,
    ChunkTransitions,
    action_chunks,
    load_minari,
)

LENGTH, GAMMA = 3, 0.9


@pytest.fixture
def buffer(make_dataset):
    """Episodes of 4, 1 and 6 steps; the first ends terminated, the others truncated."""
    make_dataset()
    return load_minari("test/small-v0", batch_size=200, **action_chunks(LENGTH, GAMMA))


def test_chunks_against_the_data(buffer):
    data, batch = buffer[:], buffer.sample()
    assert batch.shape == (200,)
    assert batch["action"].shape == (200, LENGTH, 2) and batch["action_is_pad"].shape == (200, 3)
    assert set(batch["anchor_index"].tolist()) == set(range(11))  # also the ends of episodes
    for row in batch:
        anchor = row["anchor_index"].item()
        episode = data["episode"] == data["episode"][anchor]
        last = episode.nonzero().max().item()
        steps = min(LENGTH, last - anchor + 1)
        assert row["steps_to_next_obs"].item() == steps
        assert row["action_is_pad"].tolist() == [k >= steps for k in range(LENGTH)]
        expected = [data["action"][min(anchor + k, last)] for k in range(LENGTH)]
        torch.testing.assert_close(row["action"], torch.stack(expected))
        assert torch.equal(row["observation"], data["observation"][anchor])
        end = data["next"][anchor + steps - 1]
        for key in ("observation", "done", "terminated", "truncated"):
            assert torch.equal(row["next", key], end[key])
        rewards = data["next", "reward"][anchor : anchor + steps, 0]
        expected = sum(GAMMA**k * rewards[k] for k in range(steps))
        torch.testing.assert_close(row["next", "reward"], expected.reshape(1))


def test_value_estimator_discounts_by_the_executed_steps(buffer):
    """TorchRL's target is sum_k gamma^k r + gamma^n (1 - terminated) V."""
    batch = buffer.sample()
    estimator = TD0Estimator(gamma=GAMMA, value_network=None)
    value = torch.full((200, 1), 2.0)
    target = estimator.value_estimate(batch, next_value=value)
    bootstrap = GAMMA ** batch["steps_to_next_obs"] * ~batch["next", "terminated"] * value
    torch.testing.assert_close(target, batch["next", "reward"] + bootstrap)


def test_chunk_of_one_action_is_a_transition(make_dataset):
    make_dataset()
    buffer = load_minari("test/small-v0", batch_size=50, **action_chunks(1, GAMMA))
    batch, data = buffer.sample(), buffer[:]
    expected = data[batch["anchor_index"]]
    assert torch.equal(batch["action"].squeeze(1), expected["action"])
    for key in ("observation", "reward", "done", "terminated"):
        torch.testing.assert_close(batch["next", key], expected["next", key])
    assert not batch["action_is_pad"].any()


def test_weights_belong_to_the_first_transition(make_dataset):
    make_dataset()
    sampler = AdvantageWeightedSampler()
    buffer = load_minari(
        "test/small-v0", batch_size=50, sampler=sampler, **action_chunks(LENGTH, GAMMA)
    )
    batch = buffer.sample()
    assert batch["remaining_weight"].shape == (50,)
    buffer.update_priority(batch["anchor_index"], torch.zeros(50))
    buffer.update_priority(torch.tensor([3]), 5.0)
    kept = sampler.weights
    assert (kept[batch["anchor_index"][batch["anchor_index"] != 3]] == 0).all() and kept[3] == 5


def test_prefetch_memmap_and_pickle(make_dataset, tmp_path):
    make_dataset()
    options = action_chunks(LENGTH, GAMMA)
    buffer = load_minari(
        "test/small-v0", 20, storage="memmap", scratch_dir=tmp_path, prefetch=2, **options
    )
    for _ in range(5):
        assert buffer.sample()["action"].shape == (20, LENGTH, 2)
    assert pickle.loads(pickle.dumps(options["sample_unit"])).length == LENGTH


def test_growing_buffer():
    """Episodes of two steps; the ring of six is written over."""
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(6), batch_size=64, **action_chunks(2, 1.0)
    )
    for step in range(0, 10, 2):
        data = {
            "action": torch.tensor([[step], [step + 1.0]]),
            "next": {"reward": torch.ones(2, 1), "done": torch.tensor([[False], [True]])},
        }
        buffer.extend(TensorDict(data, [2]))
        batch = buffer.sample()
        first, second = batch["action"].squeeze(-1).unbind(-1)
        assert first.max() == step + 1 and first.min() == max(0, step - 4)
        inside = first % 2 == 0
        assert torch.equal(second, torch.where(inside, first + 1, first))
        assert torch.equal(batch["action_is_pad"][:, 1], ~inside)
        assert torch.equal(batch["next", "reward"].squeeze(-1), 1.0 + inside)


def test_slice_sampler_and_action_chunk_transform(make_dataset):
    """TorchRL's own pair: slices of T steps, a chunk for each of their steps."""
    make_dataset(lengths=(4, 7, 6))
    sampler = SliceSampler(slice_len=4, traj_key="episode")
    buffer = load_minari("test/small-v0", batch_size=80, sampler=sampler)
    data, batch = buffer[:], buffer.sample()
    slices = ActionChunkTransform(LENGTH, chunk_key="action_chunk")(batch.reshape(-1, 4))
    chunks, is_pad = slices["action_chunk"], slices["action_is_pad"]
    assert chunks.shape == (20, 4, LENGTH, 2) and is_pad.shape == (20, 4, LENGTH)
    index = slices["index"].reshape(20, 4)
    assert (slices["episode"] == slices["episode"][:, :1]).all()
    for k in range(LENGTH):
        real = ~is_pad[..., k]
        assert torch.equal(real, torch.arange(4).expand(20, 4) + k < 4)  # up to the slice's end
        assert torch.equal(chunks[..., k, :][real], data["action"][index[real] + k])


@pytest.mark.parametrize("length", [0, -1])
def test_bad_length(length):
    with pytest.raises(ValueError, match="length is the number H of actions in a chunk"):
        ActionChunks(length)


def test_other_errors(make_dataset):
    make_dataset()
    with pytest.raises(ValueError, match="gamma is the discount"):
        ChunkTransitions(1.1)
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(8, ndim=2), batch_size=4, sample_unit=ActionChunks(2)
    )
    data = {"action": torch.zeros(2, 4, 1), "next": {"done": torch.zeros(2, 4, 1).bool()}}
    buffer.extend(TensorDict(data, [2, 4]))
    with pytest.raises(ValueError, match="storage of one dimension.*got a storage of 2"):
        buffer.sample()
    buffer = load_minari(
        "test/small-v0",
        batch_size=4,
        sampler=SliceSampler(slice_len=2, traj_key="episode"),
        **action_chunks(LENGTH, GAMMA),
    )
    with pytest.raises(ValueError, match="single transitions, not of slices"):
        buffer.sample()
