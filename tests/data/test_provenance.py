"""What is said about a dataset or a simulator that is missing."""

from __future__ import annotations

import pytest

from torchrl_gtp.data import load_minari


@pytest.fixture
def offline(minari_root, monkeypatch):
    """Counts what is asked of Minari's server, which does not answer."""
    asked = []

    def download(dataset_id):
        asked.append(dataset_id)
        raise ConnectionError("the wire is cut")

    monkeypatch.setattr("minari.storage.hosting.download_dataset", download)
    return asked


@pytest.mark.parametrize(
    ("dataset_id", "hint"),
    [
        ("gtp/pointmaze/medium-v0", r"Make it with: python -m torchrl_gtp.data.point_maze medium$"),
        ("gtp/pointmaze/umaze-noisy-v0", r"docs/tasks.md"),
        ("like/hopper/medium-v0", r"cannot be downloaded.*here mujoco/hopper/medium-v0, or put a"),
        ("like/halfcheetah/medium-replay-v0", r"here mujoco/halfcheetah/medium-v0,"),
        ("like/hopper/medium-expert-v0", r"here mujoco/hopper/medium-expert-v0,"),
        ("like/antmaze/umaze-diverse-v0", r"here D4RL/antmaze/umaze-diverse-v1,"),
        ("like/adroit/door-human-v0", r"here D4RL/door/human-v2,"),
        ("like/mine", r"of the same robot instead, or put a set of your own under this id"),
    ],
)
def test_what_is_made_on_the_spot_is_not_asked_for(offline, dataset_id, hint):
    with pytest.raises(FileNotFoundError, match=rf"It was not downloaded\. .*{hint}"):
        load_minari(dataset_id)
    assert offline == []


@pytest.mark.parametrize(
    ("dataset_id", "hint"),
    [
        (
            "mujoco/hopper/medium-expert-v0",
            r"minari combine mujoco/hopper/medium-v0 mujoco/hopper/expert-v0 --dataset-id "
            r"mujoco/hopper/medium-expert-v0",
        ),
        ("mujoco/walker2d/medium-replay-v0", "publishes no replay buffer"),
        ("D4RL/antmaze/umaze-v1", r"the wire is cut$"),
    ],
)
def test_a_download_that_fails_ends_with_the_way_out(offline, dataset_id, hint):
    with pytest.raises(FileNotFoundError, match=rf"could not be downloaded: .*{hint}"):
        load_minari(dataset_id)
    assert offline == [dataset_id]
