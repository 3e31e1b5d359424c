from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from torchrl_gtp.data import load_minari, normalized_score, reference_scores


@pytest.mark.parametrize(
    ("dataset_id", "low", "high"),
    [
        ("halfcheetah-medium-replay-v2", -280.178953, 12135.0),
        ("hopper-medium-v2", -20.272305, 3234.3),
        ("mujoco/walker2d/expert-v0", 1.629008, 4592.3),
        ("mujoco/ant/simple-v0", -325.6, 3879.7),
        ("D4RL/antmaze/umaze-diverse-v1", 0.0, 1.0),
        ("antmaze-large-play-v2", 0.0, 1.0),
        ("maze2d-umaze-v1", 23.85, 161.86),
        ("maze2d-umaze-dense-v1", 68.537689, 193.66285642381482),
        ("D4RL/pen/human-v2", 96.262799, 3076.8331017826877),
        ("D4RL/kitchen/complete-v2", 0.0, 4.0),
    ],
)
def test_table(dataset_id, low, high):
    assert reference_scores(dataset_id) == (low, high)
    scores = normalized_score(torch.tensor([low, high]), dataset_id)
    torch.testing.assert_close(scores, torch.tensor([0.0, 100.0]))


@pytest.mark.parametrize(
    "dataset_id", ["gtp/pointmaze/umaze-v0", "bullet-hopper-medium-v0", "other/hopper/x-v0", ""]
)
def test_unknown_tasks(dataset_id):
    assert reference_scores(dataset_id) is None
    with pytest.raises(ValueError, match="'hopper-medium-v2'"):
        normalized_score(1.0, dataset_id)


def test_types_and_shapes_are_kept():
    assert normalized_score(15.0, (10.0, 20.0)) == 50.0
    array = normalized_score(np.array([[10.0, 20.0]]), (10.0, 20.0))
    np.testing.assert_array_equal(array, [[0.0, 100.0]])
    assert normalized_score(torch.ones(2, 3), (0.0, 2.0)).shape == (2, 3)


def test_equal_references():
    with pytest.raises(ValueError, match="two different returns"):
        normalized_score(1.0, (2.0, 2.0))


def test_metadata_as_reference(make_dataset):
    make_dataset()
    metadata = load_minari("test/small-v0").metadata
    with pytest.raises(ValueError, match="test/small-v0"):
        normalized_score(1.0, metadata)
    metadata = dataclasses.replace(metadata, ref_min_score=-1.0, ref_max_score=1.0)
    assert normalized_score(0.0, metadata) == 50.0
