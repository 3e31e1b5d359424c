"""The training errors: values, the end-point identity, and where gradients go."""

from __future__ import annotations

import copy

import pytest
import torch

from torchrl_gtp.flow_map import (
    FlowMap,
    FlowMapTimes,
    MLPBackbone,
    advantage_weight,
    consistency_error,
    edm_preconditioning,
    exponential_weight,
    flow_error,
    masked_std,
    robust_weight,
)


@pytest.fixture
def flow_map():
    torch.manual_seed(0)
    return FlowMap(MLPBackbone(2, hidden_sizes=(32,))).double()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    action, noise = torch.randn(2, 9, 2, dtype=torch.float64)
    t = torch.rand(9, 1, dtype=torch.float64) * 3 + 0.5
    return action, noise, FlowMapTimes(t, 0.8 * t, 0.3 * t)


def test_values_of_both_errors(flow_map, batch):
    action, noise, times = batch
    t, u, s = times
    flow = (action - flow_map.denoise(action + t * noise, t)).square().sum(-1)
    torch.testing.assert_close(flow_error(flow_map, action, noise, t, time_weight="none"), flow)
    target = flow_map(action + u * noise, u, s)  # the SAME noise as at t
    consistency = (flow_map(action + t * noise, t, s) - target).square().sum(-1)
    torch.testing.assert_close(
        consistency_error(flow_map, flow_map, action, noise, times, time_weight="none"), consistency
    )
    c_out = edm_preconditioning(t, 0.5).c_out.squeeze(-1)
    torch.testing.assert_close(flow_error(flow_map, action, noise, t), flow / c_out**2)
    torch.testing.assert_close(
        consistency_error(flow_map, flow_map, action, noise, times), consistency / c_out**2
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("time_weight", ["edm", "noise", "velocity", "none"])
def test_errors_in_half_precision_stay_in_range(flow_map, dtype, time_weight):
    """The weight of the smallest noise level is 250,000; that of a residual's square is not."""
    flow_map = flow_map.to(dtype)
    action, noise = torch.randn(2, 9, 2, dtype=dtype)
    t = torch.full((9, 1), 0.002)
    times = FlowMapTimes(t, 0.9 * t, torch.zeros(9, 1))
    error = flow_error(flow_map, action, noise, t, time_weight=time_weight)
    other = consistency_error(flow_map, flow_map, action, noise, times, time_weight=time_weight)
    assert error.dtype == other.dtype == torch.float32
    assert error.isfinite().all() and other.isfinite().all()


def test_endpoint_identity_of_the_consistency_target(flow_map, batch):
    """Matching the maps is regressing the end point on a mix of data and teacher's end point."""
    action, noise, times = batch
    t, u, s = times
    teacher = copy.deepcopy(flow_map)
    for parameter in teacher.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    alpha = (s / u) * (1 - u / t) / (1 - s / t)
    assert ((alpha >= 0) & (alpha <= 1)).all()
    target = alpha * action + (1 - alpha) * teacher.endpoint(action + u * noise, u, s)
    residual = flow_map.endpoint(action + t * noise, t, s) - target
    expected = ((1 - s / t) * residual).square().sum(-1)
    error = consistency_error(flow_map, teacher, action, noise, times, time_weight="none")
    torch.testing.assert_close(error, expected)


def test_gradient_reaches_the_map_but_not_the_teacher(flow_map, batch):
    action, noise, times = batch
    teacher = copy.deepcopy(flow_map)
    consistency_error(flow_map, teacher, action, noise, times).sum().backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in flow_map.parameters())


def test_weights_follow_equation_10():
    torch.manual_seed(0)
    advantage = torch.randn(64, dtype=torch.float64, requires_grad=True)
    weight = advantage_weight(advantage, eta=1.5)
    expected = (1.5 * advantage.clamp_min(0) / (advantage.std(correction=0) + 1e-6)).exp()
    torch.testing.assert_close(weight, expected)
    assert not weight.requires_grad and weight.min() == 1
    assert torch.equal(advantage_weight(advantage, eta=0.0), torch.ones(64, dtype=torch.float64))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str
)
@pytest.mark.parametrize("size", [1e-3, 0.3, 7.7, 3e4])
@pytest.mark.parametrize("count", [1, 3, 64, 1000])
def test_equal_advantages_prefer_nothing(dtype, size, count):
    """Their standard deviation is a rounding error, and the weight was that of infinity."""
    advantage = torch.full((count,), size, dtype=dtype)
    for mask in (None, torch.arange(count) % 3 != 1):
        weight = advantage_weight(advantage, eta=1.0, mask=mask)
        assert weight.dtype == dtype and (weight == 1).all()
    assert (advantage_weight(-advantage, eta=1.0) == 1).all()


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str
)
@pytest.mark.parametrize("make", [advantage_weight, exponential_weight])
def test_finite_advantages_have_finite_weights(dtype, make):
    largest = torch.finfo(dtype).max
    for spread in (1e-1, 1e-2, 1e-4, 1e-6):
        for size in (1.0, 1e4):
            advantage = size * (1 + spread * torch.linspace(-1, 1, 64).to(dtype))
            weight = make(advantage, 3.0)
            assert weight.dtype == dtype and weight.max() <= 1.01 * largest**0.5, (spread, size)
            assert (100 * weight).isfinite().all()  # an error of that size times its weight


def test_masked_entries_change_nothing():
    valid = torch.tensor([-1.0, 0.5, 2.0])
    padded = torch.tensor([-1.0, 0.5, 2.0, float("nan"), 1e9])
    mask = torch.tensor([True, True, True, False, False])
    assert masked_std(padded, mask) == pytest.approx(valid.std(correction=0).item())
    weight = advantage_weight(padded, eta=1.0, mask=mask)
    torch.testing.assert_close(weight[:3], advantage_weight(valid, eta=1.0))
    assert weight[3:].tolist() == [1.0, 1.0]


def test_robust_weight_levels_large_errors():
    error = torch.tensor([0.0, 0.03, 0.99], requires_grad=True)
    weight = robust_weight(error, power=0.5)
    torch.testing.assert_close(weight, torch.tensor([10.0, 5.0, 1.0]))
    assert not weight.requires_grad
    assert robust_weight(error, power=0.0).tolist() == [1.0, 1.0, 1.0]
