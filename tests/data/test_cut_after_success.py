"""Episodes end, terminated, with their first success."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torchrl_gtp.data import AffineReward, load_minari

# Of the episodes of 4, 1, 6 and 3 steps, what is left of each, and whether it reached the goal.
REWARDS = ([0, 1, 0, 1], [1], [0, 0, 0, 0, 0, 1], [0, 0, 0])
KEPT = (2, 1, 6, 3)
REACHED = (True, True, True, False)


@pytest.fixture(params=["hdf5", "arrow"])
def sparse_dataset(make_dataset, request):
    def rewards(episodes):
        for episode, values in zip(episodes, REWARDS, strict=True):
            episode["rewards"] = np.array(values, dtype=np.float64)

    return make_dataset(
        lengths=(4, 1, 6, 3),
        terminated=(False,) * 4,
        truncated=(True,) * 4,
        edit=rewards,
        data_format=request.param,
    )


@pytest.mark.parametrize("storage", ["ram", "memmap"])
def test_what_comes_after_the_first_success_is_dropped(sparse_dataset, storage, tmp_path):
    buffer = load_minari(
        "test/small-v0", cut_after_success=True, storage=storage, scratch_dir=tmp_path
    )
    data = buffer[:]
    assert len(buffer) == sum(KEPT) == 12
    expected = {"observation": [], "next": [], "action": [], "reward": [], "episode": []}
    for episode, kept in zip(sparse_dataset.iterate_episodes(), KEPT, strict=True):
        expected["observation"].append(episode.observations[:kept])
        expected["next"].append(episode.observations[1 : kept + 1])
        expected["action"].append(episode.actions[:kept])
        expected["reward"].append(episode.rewards[:kept, None])
        expected["episode"].append(np.full(kept, episode.id))
    for key, entry in (
        ("observation", "observation"),
        ("next", ("next", "observation")),
        ("action", "action"),
        ("reward", ("next", "reward")),
        ("episode", "episode"),
    ):
        values = torch.from_numpy(np.concatenate(expected[key])).to(data[entry].dtype)
        assert torch.equal(data[entry], values), entry


def test_a_success_terminates_and_a_time_limit_truncates(sparse_dataset):
    data = load_minari("test/small-v0", cut_after_success=True)[:]
    ends = torch.tensor(KEPT).cumsum(0) - 1
    for key, flags in (
        ("terminated", REACHED),
        ("truncated", [not reached for reached in REACHED]),
        ("done", [True] * 4),
    ):
        expected = torch.zeros(12, 1, dtype=torch.bool)
        expected[ends, 0] = torch.tensor(flags)
        assert torch.equal(data["next", key], expected), key


def test_metadata_speak_of_what_is_left(sparse_dataset):
    metadata = load_minari("test/small-v0", cut_after_success=True).metadata
    assert (metadata.num_steps, metadata.num_episodes) == (12, 4)
    assert metadata.behavior_returns.tolist() == [1, 1, 1, 0]
    assert load_minari("test/small-v0").metadata.behavior_returns.tolist() == [2, 1, 1, 0]


def test_reference_scores_of_whole_episodes_are_left_out(make_dataset, caplog):
    def rewards(episodes):
        for episode, values in zip(episodes, REWARDS, strict=True):
            episode["rewards"] = np.array(values, dtype=np.float64)

    for name, references, kept in (
        ("test/long-v0", (0.5, 40.0), (None, None)),
        ("test/short-v0", (0.0, 0.9), (0.0, 0.9)),
        ("D4RL/maze2d-umaze-v1", None, (None, None)),  # in D4RL's table 23.85 and 161.86
        ("D4RL/antmaze/umaze-v1", None, (0.0, 1.0)),
    ):
        dataset = make_dataset(
            name,
            lengths=(4, 1, 6, 3),
            terminated=(False,) * 4,
            truncated=(True,) * 4,
            edit=rewards,
        )
        if references is not None:
            scores = dict(zip(("ref_min_score", "ref_max_score"), references, strict=True))
            dataset.storage.update_metadata(scores)
        caplog.clear()
        metadata = load_minari(name, cut_after_success=True).metadata
        assert (metadata.ref_min_score, metadata.ref_max_score) == kept, name
        assert ("those of whole episodes" in caplog.text) == (kept == (None, None))
    metadata = load_minari("test/long-v0").metadata
    assert (metadata.ref_min_score, metadata.ref_max_score) == (0.5, 40.0)
    options = {"cut_after_success": True, "reference_scores": (0.0, 1.0)}
    metadata = load_minari("test/long-v0", **options).metadata
    assert (metadata.ref_min_score, metadata.ref_max_score) == (0.0, 1.0)


def test_success_is_read_from_the_raw_reward(sparse_dataset):
    iql = AffineReward(shift=-1.0)
    buffer = load_minari("test/small-v0", cut_after_success=True, reward_transform=iql)
    data = buffer[:]
    assert len(buffer) == 12
    assert torch.equal(data["next", "reward"] == 0, data["next", "terminated"])


def test_normalization_is_that_of_what_is_left(sparse_dataset):
    buffer = load_minari("test/small-v0", cut_after_success=True, normalize_observations=True)
    raw = load_minari("test/small-v0", cut_after_success=True)[:]["observation"]
    torch.testing.assert_close(buffer.metadata.observation_loc, raw.mean(0))


def test_dense_rewards_are_refused(make_dataset, tmp_path):
    def nearly_sparse(episodes):
        for episode in episodes:
            episode["rewards"] = np.zeros_like(episode["rewards"])
        episodes[2]["rewards"][4] = 0.5

    make_dataset(edit=nearly_sparse)
    with pytest.raises(ValueError, match=r"episode 2, step 4 the reward is 0\.5.*=False"):
        load_minari("test/small-v0", cut_after_success=True, storage="memmap", scratch_dir=tmp_path)
    assert not list(tmp_path.glob("torchrl_gtp-*"))
