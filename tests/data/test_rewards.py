from __future__ import annotations

import pickle

import torch

from torchrl_gtp.data import AffineReward, antmaze_reward


def test_values():
    reward = torch.tensor([[0.0], [1.0], [-3.0]])
    assert torch.equal(AffineReward()(reward), reward)
    assert torch.equal(AffineReward(shift=-1.0)(reward), reward - 1.0)
    assert torch.equal(antmaze_reward()(reward), (reward - 0.5) * 4.0)


def test_picklable():
    assert pickle.loads(pickle.dumps(antmaze_reward())) == antmaze_reward()
