"""Each bad input is a clear error, and nothing is left behind."""

from __future__ import annotations

import gc
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from torchrl_gtp.data import load_minari


def box(size: int, dtype: type = np.float64) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (size,), dtype)


@pytest.fixture(params=["ram", "memmap"])
def load(request, tmp_path: Path, minari_root: Path):
    """Loads ``test/small-v0``; afterwards checks that no file is left in the scratch folder."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def load(dataset_id: str = "test/small-v0", **kwargs):
        return load_minari(
            dataset_id, download=False, storage=request.param, scratch_dir=scratch, **kwargs
        )

    yield load
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize("name", ["observation", "action", "reward"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_numbers(make_dataset, load, name, value, data_format):
    def spoil(episodes):
        array = episodes[2][f"{name}s"]
        array[(3, 1) if array.ndim == 2 else 3] = value

    make_dataset(edit=spoil, data_format=data_format)
    with pytest.raises(ValueError, match=rf"test/small-v0.*episode 2, step 3: {name} .*finite"):
        load()


def test_missing_observation_key_names_the_available_ones(make_dataset, load):
    make_dataset(observation_space=spaces.Dict({"a": box(1), "b": spaces.Dict({"c": box(2)})}))
    with pytest.raises(KeyError, match=re.escape("['a', ('b', 'c')]")):
        load(observation_keys=["a", "d"])


@pytest.mark.parametrize("keys", [[], ["a", "a"], ["b", ("b", "c")]])
def test_observation_keys_empty_or_repeated(make_dataset, load, keys):
    make_dataset(observation_space=spaces.Dict({"a": box(1), "b": spaces.Dict({"c": box(2)})}))
    with pytest.raises(ValueError, match="observation_keys"):
        load(observation_keys=keys)


def test_actions_outside_the_bounds_are_counted_and_measured(make_dataset, load):
    def push(episodes):
        episodes[0]["actions"][1] = [1.25, 0.0]
        episodes[2]["actions"][4] = [0.0, -1.5]
        episodes[2]["actions"][5] = [0.0, 1.0 + 5e-7]  # within the tolerance

    make_dataset(edit=push)
    with pytest.raises(ValueError, match=r"2 of 11 actions.*up to 0.5 \(episode 2, step 4\)"):
        load()


def test_clip_actions_is_the_way_out(make_dataset):
    def push(episodes):
        episodes[2]["actions"][4] = [0.25, -1.5]

    make_dataset(edit=push)
    action = load_minari("test/small-v0", clip_actions=True)[:]["action"]
    assert torch.equal(action[9], torch.tensor([0.25, -1.0]))
    assert action.abs().max() <= 1.0


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3),
        spaces.MultiDiscrete([2, 2]),
        spaces.Box(-np.inf, np.inf, (2,), np.float32),
        spaces.Box(-1.0, 1.0, (2, 2), np.float32),
    ],
)
def test_action_space_that_is_no_bounded_vector(make_dataset, load, space):
    make_dataset(action_space=space)
    with pytest.raises(TypeError, match=r"action space .*only continuous actions"):
        load()


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 255, (32, 32, 3), np.uint8),
        spaces.Text(5),
        spaces.Discrete(4),
        spaces.Dict({"observation": spaces.Box(0, 255, (32, 32, 3), np.uint8)}),
    ],
    ids=["image", "text", "discrete", "image-in-dict"],
)
def test_observation_that_is_no_vector(make_dataset, load, space):
    make_dataset(observation_space=space)
    with pytest.raises(TypeError, match=r"observation .* only one-dimensional Boxes"):
        load()


def test_an_image_beside_the_chosen_vector_does_no_harm(make_dataset):
    image = spaces.Box(0, 255, (32, 32, 3), np.uint8)
    make_dataset(observation_space=spaces.Dict({"observation": box(2), "image": image}))
    assert load_minari("test/small-v0").metadata.observation_dim == 2


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_empty_data_set(make_dataset, load, data_format):
    make_dataset(lengths=(), data_format=data_format)
    with pytest.raises(ValueError, match="empty"):
        load()


def test_metadata_that_promise_more_steps(make_dataset, load, minari_root: Path):
    make_dataset()
    path = minari_root / "test" / "small-v0" / "data" / "metadata.json"
    for promised in (10, 12):
        path.write_text(json.dumps({**json.loads(path.read_text()), "total_steps": promised}))
        with pytest.raises(ValueError, match=f"damaged.*{promised} steps"):
            load()


def test_lengths_that_do_not_fit(make_dataset, load):
    def drop(episodes):
        episodes[1]["observations"] = episodes[1]["observations"][:-1]

    make_dataset(edit=drop)
    with pytest.raises(ValueError, match="episode 1: 1 rewards need 1 actions and 2 observations"):
        load()


def test_unknown_id_lists_what_is_there(make_dataset, load, minari_root: Path):
    make_dataset()
    with pytest.raises(FileNotFoundError) as error:
        load("test/other-v0")
    message = str(error.value)
    assert all(text in message for text in ("test/small-v0", str(minari_root)))
    assert "MINARI_DATASETS_PATH" in message


@pytest.mark.parametrize(
    ("dataset_id", "message", "left"),
    [
        ("test/other-v0", "the wire is cut", [".test.other-v0.lock"]),
        ("test", "'test' is no id of Minari", []),  # the name of a namespace
        ("no version", "'no version' is no id of Minari", []),
    ],
)
def test_failing_download_leaves_nothing_behind(
    make_dataset, minari_root: Path, monkeypatch, dataset_id, message, left
):
    make_dataset()
    before = sorted(minari_root.rglob("*"))

    def download(dataset_id: str) -> None:
        (minari_root / dataset_id / "data").mkdir(parents=True)
        raise ConnectionError("the wire is cut")

    monkeypatch.setattr("minari.storage.hosting.download_dataset", download)
    with pytest.raises(FileNotFoundError, match=rf"test/small-v0.*{message}"):
        load_minari(dataset_id)
    assert sorted(minari_root.rglob("*")) == sorted([*before, *(minari_root / n for n in left)])
    assert len(load_minari("test/small-v0")) == 11


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"reward_transform": lambda r: r.sum()}, "reward_transform"),
        ({"reward_transform": torch.log}, "reward_transform"),
    ],
)
def test_arguments_out_of_range(make_dataset, load, kwargs, message):
    make_dataset()
    with pytest.raises(ValueError, match=message):
        load(**kwargs)


def test_unknown_storage(make_dataset):
    make_dataset()
    with pytest.raises(ValueError, match=r"\['ram', 'memmap'\], got 'disk'"):
        load_minari("test/small-v0", storage="disk")


def test_rewards_beyond_float32(make_dataset, load):
    def grow(episodes):
        episodes[0]["rewards"][2] = 1e39

    make_dataset(edit=grow)
    with (
        pytest.warns(RuntimeWarning, match="overflow"),
        pytest.raises(ValueError, match=r"episode 0, step 2: reward .*not finite"),
    ):
        load()


@pytest.mark.parametrize(
    "transform", [lambda r: r.double() * 1e300, lambda r: (r / 0).numpy(), lambda r: r.squeeze(-1)]
)
def test_reward_transform_with_bad_results(make_dataset, load, transform):
    make_dataset()
    with pytest.raises(ValueError, match="reward_transform must map the rewards"):
        load(reward_transform=transform)


def test_observation_keys_as_a_plain_string(make_dataset, load):
    make_dataset()
    with pytest.raises(ValueError, match="sequence of keys"):
        load(observation_keys="observation")


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, None])
def test_bad_batch_size(make_dataset, load, batch_size):
    make_dataset()
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1"):
        load(batch_size=batch_size)


def test_failed_download_in_a_new_namespace_leaves_nothing(minari_root, monkeypatch):
    def break_off(dataset_id, *args, **kwargs):
        (minari_root / dataset_id / "data").mkdir(parents=True)
        raise ConnectionError("the line is dead")

    monkeypatch.setattr("minari.load_dataset", break_off)
    with pytest.raises(FileNotFoundError, match="could not be downloaded: the line is dead"):
        load_minari("fresh/nested/name-v0")
    assert list(minari_root.iterdir()) == [minari_root / ".fresh.nested.name-v0.lock"]


def test_stray_folder_does_not_hide_the_unknown_id(make_dataset):
    make_dataset()
    stray = Path(os.environ["MINARI_DATASETS_PATH"]) / "stray" / "data"
    stray.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="'no/such-v0' is not in"):
        load_minari("no/such-v0", download=False)


def test_forked_child_leaves_the_memory_map(make_dataset, tmp_path):
    make_dataset()
    buffer = load_minari("test/small-v0", storage="memmap", scratch_dir=tmp_path)
    files = [path for path in tmp_path.glob("torchrl_gtp-*/**/*") if path.is_file()]
    child = os.fork()
    if child == 0:
        del buffer
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert files and all(path.exists() for path in files)
    assert len(buffer) == 11
