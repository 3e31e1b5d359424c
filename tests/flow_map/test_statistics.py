"""The scale of the data: per dimension, bounded below, and only of finite actions."""

from __future__ import annotations

import pytest
import torch

from torchrl_gtp.flow_map import FlowMap, MLPBackbone, action_scale, flow_error


def test_scale_of_each_dimension():
    torch.manual_seed(0)
    action = torch.randn(10, 1_000, 3) * torch.tensor([0.3, 0.0, 2.0])
    scale = action_scale(action)
    torch.testing.assert_close(scale, torch.tensor([0.3, 0.01, 2.0]), rtol=0.03, atol=0)


def test_constant_dimension_trains_without_nan():
    action = torch.cat([torch.randn(32, 1), torch.full((32, 1), 0.5)], -1)
    flow_map = FlowMap(MLPBackbone(2), sigma_data=action_scale(action))
    error = flow_error(flow_map, action, torch.randn(32, 2), torch.full((32, 1), 0.01))
    error.sum().backward()
    assert error.isfinite().all()
    assert all(p.grad.isfinite().all() for p in flow_map.parameters())
    with pytest.raises(ValueError, match="sigma_data must be finite and positive"):
        FlowMap(MLPBackbone(2), sigma_data=action.std(0, correction=0))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_actions_are_named(value):
    action = torch.zeros(5, 2)
    action[3, 1] = value
    with pytest.raises(ValueError, match="1 of 5 actions are not, the first at row 3"):
        action_scale(action)


@pytest.mark.parametrize(
    ("action", "floor", "message"),
    [
        (torch.zeros(0, 2), 0.01, "at least one action"),
        (torch.zeros(2), 0.01, "at least one action"),
        (torch.ones(3, 2), 0.0, "floor must be positive"),
    ],
)
def test_bad_input(action, floor, message):
    with pytest.raises(ValueError, match=message):
        action_scale(action, floor)
