"""What the config says of data and environment reaches the buffer."""

from __future__ import annotations

import pytest

from recipes.gtp.train import make_buffer


def test_environment_and_rewards(config):
    options = ("env.reference_scores=[1,3]", "env.kwargs={goal_radius: 0.5}")
    buffer = make_buffer(config("replay_buffer.reward_transform=standardize", *options))
    metadata = buffer.metadata
    assert (metadata.ref_min_score, metadata.ref_max_score) == (1, 3)
    assert metadata.env_spec.kwargs["goal_radius"] == 0.5
    assert buffer[:]["next", "reward"].mean().abs() < 1e-4


def test_a_fitted_and_an_affine_transform_exclude_each_other(config):
    cfg = config("replay_buffer.reward_transform=standardize", "replay_buffer.reward_scale=2")
    with pytest.raises(ValueError, match=r"reward_transform=standardize .*reward_scale=2"):
        make_buffer(cfg)


def test_episodes_end_with_their_first_success(config):
    whole = make_buffer(config())
    cut = make_buffer(config("replay_buffer.cut_after_success=true"))
    assert len(cut) < len(whole)
