"""How far a map contradicts itself."""

from __future__ import annotations

import pytest
import torch

from tests.flow_map.closed_form import GaussianFlowMap
from torchrl_gtp.flow_map import FlowMap, JumpSampler, LNResNetBackbone, MLPBackbone, jump_error


def column(*values):
    return torch.tensor(values, dtype=torch.float64).unsqueeze(-1)


@pytest.mark.parametrize(("t", "s"), [(10.0, 0.0), (2.0, 0.3), (1.0, 0.0), (0.001, 0.0)])
def test_the_exact_map_agrees_with_itself(t, s):
    action_t = torch.randn(20, 2, dtype=torch.float64)
    t, s = column(t).expand(20, 1), column(s).expand(20, 1)
    assert jump_error(GaussianFlowMap(), action_t, t, s).max() < 1e-6


def test_it_is_the_distance_to_two_half_jumps():
    """With an end point off by e t, one jump errs by (1 - s/t) e t and the halves otherwise."""
    exact, flow_map = GaussianFlowMap(), GaussianFlowMap(error=0.1)
    action_t, t, s = torch.randn(3, 2, dtype=torch.float64), column(4, 2, 1), column(1, 0.5, 0.2)
    m = flow_map.noise_levels.between(t, s, 2)[1]
    gain = ((0.4**2 + s**2) / (0.4**2 + m**2)).sqrt()  # of the exact map from m to s
    one, two = 0.1 * (t - s), 0.1 * (t - m) * gain + 0.1 * (m - s)
    expected = (one - two).abs()
    torch.testing.assert_close(jump_error(flow_map, action_t, t, s), expected)
    assert jump_error(exact, action_t, t, s).max() < 1e-6


def test_from_noise_to_data_it_compares_one_jump_with_two():
    torch.manual_seed(0)
    flow_map = FlowMap(MLPBackbone(action_dim=2, condition_dim=3, hidden_sizes=(16,)))
    noise, condition = torch.randn(6, 2), torch.randn(6, 3)
    one, two = (JumpSampler()(flow_map, noise, condition, k) for k in (1, 2))
    t, s = torch.full((6, 1), 3.0), torch.zeros(6, 1)
    error = jump_error(flow_map, 3 * noise, t, s, condition)
    assert error.min() > 0
    torch.testing.assert_close(error, (one - two).square().mean(-1, keepdim=True).sqrt())


def test_dropout_is_no_error_and_the_modes_stay():
    torch.manual_seed(0)
    flow_map = FlowMap(LNResNetBackbone(action_dim=2, hidden_dim=16, num_blocks=2, dropout=0.5))
    t, s = torch.full((6, 1), 3.0), torch.zeros(6, 1)
    action_t = 3 * torch.randn(6, 2)
    expected = jump_error(flow_map.eval(), action_t, t, s)
    flow_map.train()
    flow_map.backbone.training = False  # of one part, as where it is frozen
    modes = [part.training for part in flow_map.modules()]
    torch.testing.assert_close(jump_error(flow_map, action_t, t, s), expected)
    with pytest.raises(ValueError, match="action has 1 dimensions"):
        jump_error(flow_map, action_t[:, :1], t, s)
    assert [part.training for part in flow_map.modules()] == modes and len(set(modes)) == 2


def test_no_jump_has_no_error():
    flow_map, t = FlowMap(MLPBackbone(action_dim=2, hidden_sizes=(16,))), torch.zeros(4, 1)
    assert torch.equal(jump_error(flow_map, torch.randn(4, 2), t, t), torch.zeros(4, 1))
