"""The buffer holds what Minari itself returns."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from torchrl.data.datasets.utils import load_dataset
from torchrl.data.replay_buffers.samplers import SliceSampler

from torchrl_gtp.data import AffineReward, MinariMetadata, load_minari


def box(size: int, dtype: type = np.float64) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (size,), dtype)


DICT = spaces.Dict({"observation": box(3), "achieved_goal": box(2), "desired_goal": box(2)})
NESTED = spaces.Dict(
    {"observation": box(3), "goal": spaces.Dict({"kettle": box(1), "burner": box(2)})}
)


def as_minari_returns(dataset: minari.MinariDataset, vector) -> dict[str, np.ndarray]:
    """Everything that Minari iterates over, `vector` making the observation of an episode."""
    parts: dict[str, list] = {}
    for episode in dataset.iterate_episodes():
        observations = vector(episode.observations)
        for key, value in {
            "observation": observations[:-1],
            "next": observations[1:],
            "action": episode.actions,
            "reward": episode.rewards,
            "terminated": episode.terminations,
            "truncated": episode.truncations,
            "episode": np.full(len(episode), episode.id),
        }.items():
            parts.setdefault(key, []).append(value)
    return {key: np.concatenate(value) for key, value in parts.items()}


@pytest.mark.parametrize("storage", ["ram", "memmap"])
@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize(
    ("space", "keys", "vector"),
    [
        (box(3), None, lambda o: o),
        (box(3, np.float32), ["observation"], lambda o: o),
        (DICT, None, lambda o: np.concatenate([o["observation"], o["desired_goal"]], -1)),
        (
            DICT,
            ["desired_goal", "observation"],
            lambda o: np.concatenate([o["desired_goal"], o["observation"]], -1),
        ),
        (
            NESTED,
            [("goal", "kettle"), "observation"],
            lambda o: np.concatenate([o["goal"]["kettle"], o["observation"]], -1),
        ),
    ],
    ids=["flat", "flat-float32", "dict", "dict-reordered", "nested"],
)
def test_equals_minari_element_by_element(
    make_dataset, space, keys, vector, data_format, storage, tmp_path
):
    dataset = make_dataset(observation_space=space, data_format=data_format)
    buffer = load_minari(
        "test/small-v0", observation_keys=keys, storage=storage, scratch_dir=tmp_path
    )
    expected = as_minari_returns(dataset, vector)
    data = buffer[:]
    assert len(buffer) == dataset.total_steps == 11
    for key, value in (
        ("observation", expected["observation"]),
        (("next", "observation"), expected["next"]),
        ("action", expected["action"]),
        (("next", "reward"), expected["reward"][:, None]),
    ):
        assert data[key].dtype == torch.float32
        np.testing.assert_array_equal(data[key].numpy(), value.astype(np.float32))
    for key in ("terminated", "truncated"):
        assert data["next", key].dtype == torch.bool
        np.testing.assert_array_equal(data["next", key].squeeze(-1).numpy(), expected[key])
    np.testing.assert_array_equal(data["episode"].numpy(), expected["episode"])


def test_batch_has_the_shapes_that_losses_expect(make_dataset):
    make_dataset()
    buffer = load_minari("test/small-v0", batch_size=32)
    batch = buffer.sample()
    shapes = {
        "observation": (3,),
        "action": (2,),
        "episode": (),
        **dict.fromkeys(("done", "terminated", "truncated"), (1,)),
        ("next", "observation"): (3,),
        ("next", "reward"): (1,),
        **{("next", key): (1,) for key in ("done", "terminated", "truncated")},
    }
    for key, shape in shapes.items():
        assert batch[key].shape == (32, *shape)
    assert not any(batch[key].any() for key in ("done", "terminated", "truncated"))


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_episode_boundaries(make_dataset, data_format):
    dataset = make_dataset(data_format=data_format)
    data = load_minari("test/small-v0")[:]
    ends = torch.tensor([3, 4, 10])
    done = data["next", "done"].squeeze(-1)
    assert done.nonzero().squeeze(-1).tolist() == ends.tolist()
    assert data["next", "terminated"].squeeze(-1).nonzero().tolist() == [[3]]
    assert data["next", "truncated"].squeeze(-1).nonzero().tolist() == [[4], [10]]
    for end, episode in zip(ends.tolist(), dataset.iterate_episodes(), strict=True):
        own_last = torch.from_numpy(episode.observations[-1]).float()
        assert torch.equal(data["next", "observation"][end], own_last)
    inside = ~done[:-1]
    assert torch.equal(data["next", "observation"][:-1][inside], data["observation"][1:][inside])


def test_an_episode_without_an_end_counts_as_truncated(make_dataset):
    make_dataset(terminated=(False,) * 3, truncated=(False,) * 3)
    data = load_minari("test/small-v0")[:]
    assert data["next", "truncated"].squeeze(-1).nonzero().squeeze(-1).tolist() == [3, 4, 10]
    assert not data["next", "terminated"].any()


def test_a_single_episode_loads(make_dataset):
    make_dataset(lengths=(5,), terminated=(False,), truncated=(True,))
    buffer = load_minari("test/small-v0")
    assert buffer.metadata.num_episodes == 1
    assert buffer[:]["next", "done"].sum() == 1


def test_metadata(make_dataset):
    dataset = make_dataset(observation_space=DICT)
    metadata = load_minari("test/small-v0").metadata
    assert isinstance(metadata, MinariMetadata)
    assert metadata.dataset_id == "test/small-v0"
    assert metadata.observation_keys == ("observation", "desired_goal")
    assert metadata.observation_dim == 5
    assert metadata.action_spec.shape == (2,)
    assert metadata.action_spec.dtype == torch.float32
    assert (metadata.action_spec.space.low == -1).all()
    assert (metadata.num_steps, metadata.num_episodes) == (11, 3)
    assert metadata.env_spec is None
    assert metadata.max_episode_steps is None
    assert metadata.ref_min_score is None
    returns = [episode.rewards.sum() for episode in dataset.iterate_episodes()]
    torch.testing.assert_close(metadata.behavior_returns, torch.tensor(returns).float())


def test_reference_scores_of_the_data_set_win_over_the_table(make_dataset):
    dataset = make_dataset("D4RL/hopper/own-v0")
    assert load_minari("D4RL/hopper/own-v0").metadata.ref_max_score == 3234.3
    dataset.storage.update_metadata({"ref_min_score": 1.0, "ref_max_score": 3.0})
    metadata = load_minari("D4RL/hopper/own-v0").metadata
    assert (metadata.ref_min_score, metadata.ref_max_score) == (1.0, 3.0)


def test_evaluation_environment_of_an_old_minari_data_set(make_dataset):
    """gymnasium < 1.0 wrote fields that EnvSpec no longer has."""
    dataset = make_dataset()
    spec = json.loads(EnvSpec("Own-v0", entry_point="own:Env", max_episode_steps=9).to_json())
    spec = {"apply_api_compatibility": False, "autoreset": False, **spec}
    dataset.storage.update_metadata({"eval_env_spec": json.dumps(spec)})
    metadata = load_minari("test/small-v0").metadata
    assert metadata.env_spec == EnvSpec("Own-v0", entry_point="own:Env", max_episode_steps=9)
    assert metadata.max_episode_steps == 9


def test_reward_transform_leaves_behavior_returns_raw(make_dataset):
    make_dataset()
    raw = load_minari("test/small-v0")
    scaled = load_minari("test/small-v0", reward_transform=AffineReward(2.0, -1.0))
    torch.testing.assert_close(scaled[:]["next", "reward"], 2.0 * raw[:]["next", "reward"] - 1.0)
    assert torch.equal(scaled.metadata.behavior_returns, raw.metadata.behavior_returns)


@pytest.mark.parametrize("storage", ["ram", "memmap"])
def test_normalized_observations(make_dataset, storage):
    def freeze_one_dimension(episodes):
        for episode in episodes:
            episode["observations"][:, 1] = 5.0

    make_dataset(edit=freeze_one_dimension)
    raw = load_minari("test/small-v0")[:]
    buffer = load_minari("test/small-v0", normalize_observations=True, storage=storage)
    data, metadata = buffer[:], buffer.metadata
    loc = raw["observation"].mean(0)
    scale = raw["observation"].std(0, correction=0)
    assert scale[1] < 1e-6
    torch.testing.assert_close(metadata.observation_loc, loc)
    torch.testing.assert_close(metadata.observation_scale, scale.clamp_min(1e-3))
    for key in ("observation", ("next", "observation")):
        expected = (raw[key] - metadata.observation_loc) / metadata.observation_scale
        torch.testing.assert_close(data[key], expected)
    assert data["observation"].mean(0).abs().max() < 1e-5


def test_slice_sampler_keeps_to_episodes(make_dataset):
    make_dataset(lengths=(4, 5, 6))
    sampler = SliceSampler(slice_len=3, traj_key="episode")
    batch = load_minari("test/small-v0", batch_size=30, sampler=sampler).sample().reshape(10, 3)
    assert (batch["episode"] == batch["episode"][:, :1]).all()
    assert torch.equal(batch["next", "observation"][:, :-1], batch["observation"][:, 1:])


def test_the_buffer_is_read_only(make_dataset):
    make_dataset()
    buffer = load_minari("test/small-v0")
    with pytest.raises(RuntimeError):
        buffer.extend(buffer[:])


def test_memmap_files_live_in_scratch_dir_and_go_with_the_buffer(make_dataset, tmp_path):
    make_dataset()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    buffer = load_minari("test/small-v0", storage="memmap", scratch_dir=scratch)
    assert list(scratch.rglob("*.memmap"))
    assert buffer[:].is_memmap()
    del buffer
    gc.collect()
    assert not list(scratch.iterdir())


def test_registered_with_torchrl(make_dataset):
    make_dataset()
    buffer = load_dataset("gtp_minari:test/small-v0", batch_size=7)
    assert buffer.sample().shape == (7,)


def test_remote_data_set_goes_through_minari(make_dataset, minari_root: Path, monkeypatch):
    """Up to the wire: Minari's download puts the files where it always does."""
    make_dataset("test/remote-v0")
    (minari_root / "test" / "remote-v0").rename(minari_root / ".wire")
    asked = []

    def download(dataset_id: str) -> None:
        asked.append(dataset_id)
        (minari_root / ".wire").rename(minari_root / "test" / "remote-v0")

    monkeypatch.setattr("minari.storage.hosting.download_dataset", download)
    assert len(load_minari("test/remote-v0")) == 11
    assert asked == ["test/remote-v0"]
