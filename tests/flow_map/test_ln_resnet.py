"""IDQL's residual backbone: its formula, dropout, gradients and boundaries."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from torchrl_gtp.flow_map import FlowMap, LNResNetBackbone


def inputs(*batch):
    torch.manual_seed(1)
    action, log_t, log_s, condition = (torch.randn(*batch, size) for size in (2, 1, 1, 3))
    return action, log_t, log_s, condition


@pytest.mark.parametrize("batch", [(), (7,), (2, 3)])
def test_formula_of_the_publication(batch):
    torch.manual_seed(0)
    backbone = LNResNetBackbone(2, 3, hidden_dim=8, num_blocks=2, dropout=0.1).eval()
    action, log_t, log_s, condition = inputs(*batch)
    first, *blocks, _, last = backbone.trunk
    x = torch.cat([action, backbone.embed_t(log_t), backbone.embed_s(log_s), condition], -1)
    x = F.linear(x, first.weight, first.bias)
    for block in blocks:
        norm, wide, narrow = block.layers[1], block.layers[2], block.layers[4]
        centred = x - x.mean(-1, keepdim=True)
        y = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        y = y * norm.weight + norm.bias
        y = F.mish(y @ wide.weight.T + wide.bias)
        x = x + y @ narrow.weight.T + narrow.bias
        assert wide.out_features == 4 * 8
    expected = F.mish(x) @ last.weight.T + last.bias
    torch.testing.assert_close(backbone(action, log_t, log_s, condition), expected)


def test_dropout_is_for_training():
    torch.manual_seed(0)
    backbone = LNResNetBackbone(2, 3, hidden_dim=8, num_blocks=1, dropout=0.5)
    given = inputs(16)
    assert not torch.equal(backbone(*given), backbone(*given))
    backbone.eval()
    assert torch.equal(backbone(*given), backbone(*given))


def test_all_parameters_train_and_inputs_are_checked():
    backbone = LNResNetBackbone(2, 3, hidden_dim=8, num_blocks=3, dropout=0.0)
    backbone(*inputs(16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in backbone.parameters())
    with pytest.raises(ValueError, match="condition has 4 dimensions"):
        backbone(*inputs(5)[:3], torch.zeros(5, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_blocks": 0}, "must be at least 1, got hidden_dim=256 and num_blocks=0"),
        ({"hidden_dim": 0}, "hidden_dim=0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        LNResNetBackbone(2, 3, **options)


def test_flow_map_keeps_its_boundaries():
    flow_map = FlowMap(LNResNetBackbone(2, 3, hidden_dim=8)).eval()
    action, _, _, condition = inputs(5)
    t = torch.full((5, 1), 2.0)
    assert torch.equal(flow_map(action, t, t, condition), action)
