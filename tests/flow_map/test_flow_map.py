"""The flow map: exact identities, safety at the ends, shapes and dtypes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torchrl_gtp.flow_map import FlowMap, MLPBackbone, NoiseLevels


def make_flow_map(dtype: torch.dtype = torch.float32, **options) -> FlowMap:
    torch.manual_seed(0)
    return FlowMap(MLPBackbone(3, 5, hidden_sizes=(32, 32)), **options).to(dtype)


def make_inputs(shape=(7,), dtype=torch.float32):
    torch.manual_seed(1)
    action, condition = torch.randn(*shape, 3, dtype=dtype), torch.randn(*shape, 5, dtype=dtype)
    t = torch.rand(*shape, 1, dtype=dtype) * 5 + 0.1
    return action, t, condition


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (7,), (2, 3), (2, 1, 4)])
def test_identity_and_endpoint_are_exact(shape, dtype):
    flow_map = make_flow_map(dtype)
    action, t, condition = make_inputs(shape, dtype)
    zero = torch.zeros_like(t)
    assert torch.equal(flow_map(action, t, t, condition), action)
    torch.testing.assert_close(
        flow_map(action, t, zero, condition),
        flow_map.endpoint(action, t, zero, condition),
        rtol=0,
        atol=0,
    )
    assert torch.equal(
        flow_map.denoise(action, t, condition), flow_map.endpoint(action, t, t, condition)
    )
    out = flow_map(action, t, t / 2, condition)
    assert out.shape == action.shape and out.dtype == dtype


def test_time_zero_is_the_identity_with_finite_gradients():
    flow_map = make_flow_map()
    action, _, condition = make_inputs()
    zero = torch.zeros(7, 1, requires_grad=True)
    action.requires_grad_()
    for out in (flow_map(action, zero, zero, condition), flow_map.denoise(action, zero, condition)):
        assert torch.equal(out, action)
        gradients = torch.autograd.grad(out.sum(), [action, zero, *flow_map.parameters()])
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_map_mixes_the_action_and_its_endpoint():
    flow_map = make_flow_map(torch.float64)
    action, t, condition = make_inputs(dtype=torch.float64)
    s = 0.3 * t
    expected = 0.3 * action + 0.7 * flow_map.endpoint(action, t, s, condition)
    torch.testing.assert_close(flow_map(action, t, s, condition), expected)


def test_start_and_end_times_both_reach_the_network():
    flow_map = make_flow_map(torch.float64)
    action, t, condition = make_inputs(dtype=torch.float64)
    endpoints = [flow_map.endpoint(action, t, s * t, condition) for s in (0.2, 0.6)]
    assert (endpoints[0] - endpoints[1]).abs().min() > 1e-8


def test_autocast_keeps_the_map_in_full_precision():
    flow_map = make_flow_map()
    action, t, condition = make_inputs()
    full = flow_map(action, t, t / 2, condition)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = flow_map(action, t, t / 2, condition)
        assert torch.equal(flow_map(action, t, t, condition), action)
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)  # the network did run in half precision
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.05)


def test_any_backbone_will_do_and_sees_scaled_inputs():
    class Recorder(nn.Module):
        def forward(self, action, log_t, log_s, condition):
            self.seen = action, log_t, log_s, condition
            return torch.zeros_like(action)

    backbone = Recorder()
    flow_map = FlowMap(backbone, sigma_data=0.5, noise_levels=NoiseLevels(sigma_min=0.01))
    t = torch.tensor([[1.2]])
    out = flow_map.endpoint(torch.ones(1, 2), t, torch.zeros(1, 1))
    action, log_t, log_s, condition = backbone.seen
    torch.testing.assert_close(action, torch.full((1, 2), 1 / 1.3))
    torch.testing.assert_close(log_t, t.log() / 4)
    torch.testing.assert_close(log_s, torch.tensor([[0.01]]).log() / 4)
    assert condition is None
    torch.testing.assert_close(out, torch.full((1, 2), 0.25 / 1.69))  # c_skip alone


def test_sigma_data_per_dimension_travels_with_the_state_dict():
    source = make_flow_map(sigma_data=torch.tensor([0.1, 0.5, 2.0]))
    target = make_flow_map(sigma_data=torch.ones(3))
    target.load_state_dict(source.state_dict())
    action, t, condition = make_inputs()
    torch.testing.assert_close(
        target(action, t, t / 2, condition), source(action, t, t / 2, condition)
    )


@pytest.mark.parametrize("sigma_data", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_sigma_data(sigma_data):
    with pytest.raises(ValueError, match="sigma_data must be finite and positive"):
        FlowMap(MLPBackbone(2), sigma_data=sigma_data)


def test_wrong_dimensions_name_the_argument():
    flow_map = make_flow_map()
    action, t, condition = make_inputs()
    with pytest.raises(ValueError, match="action has 2 dimensions"):
        flow_map(action[..., :2], t, t, condition)
    with pytest.raises(ValueError, match="condition has 4 dimensions"):
        flow_map(action, t, t, condition[..., :4])
    with pytest.raises(ValueError, match="condition has 0 dimensions"):
        flow_map(action, t, t)
