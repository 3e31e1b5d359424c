from __future__ import annotations

import pickle

import pytest
import torch

from torchrl_gtp.data import AffineReward, antmaze_reward, fit_reward_transform, load_minari


def test_values():
    reward = torch.tensor([[0.0], [1.0], [-3.0]])
    assert torch.equal(AffineReward()(reward), reward)
    assert torch.equal(AffineReward(shift=-1.0)(reward), reward - 1.0)
    assert torch.equal(antmaze_reward()(reward), (reward - 0.5) * 4.0)


def test_picklable():
    assert pickle.loads(pickle.dumps(antmaze_reward())) == antmaze_reward()


def test_transforms_fitted_to_a_dataset(make_dataset):
    make_dataset()
    raw = load_minari("test/small-v0")
    rewards, returns = raw[:]["next", "reward"], raw.metadata.behavior_returns

    buffer = load_minari("test/small-v0", reward_transform="standardize")
    expected = (rewards - rewards.mean()) / rewards.std()
    torch.testing.assert_close(buffer[:]["next", "reward"], expected)
    assert torch.equal(buffer.metadata.reward_transform(rewards), buffer[:]["next", "reward"])

    buffer = load_minari("test/small-v0", reward_transform="return_range")
    expected = 1000 * rewards / (returns.max() - returns.min())
    torch.testing.assert_close(buffer[:]["next", "reward"], expected)
    assert torch.equal(buffer.metadata.behavior_returns, returns)
    assert raw.metadata.reward_transform is None


def test_what_cannot_be_fitted():
    with pytest.raises(ValueError, match=r"\['standardize', 'return_range'\].*'normalise'"):
        fit_reward_transform("normalise", torch.zeros(3), torch.zeros(2))
    for name, what in (("standardize", "rewards"), ("return_range", "returns")):
        with pytest.raises(ValueError, match=f"'test/x-v0' all {what} are equal"):
            fit_reward_transform(name, torch.ones(3), torch.ones(2), "test/x-v0")
