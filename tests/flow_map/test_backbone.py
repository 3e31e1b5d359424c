from __future__ import annotations

import pytest
import torch
from torch import nn

from torchrl_gtp.flow_map import MLPBackbone


def unexplained_share(backbone: MLPBackbone) -> float:
    """The share of the output's variance that is not linear in the action."""
    action = torch.randn(2_000, 2)
    time = torch.zeros(2_000, 1)
    with torch.no_grad():
        output = backbone(action, time, time)
    inputs = torch.cat([action, torch.ones(2_000, 1)], -1)
    residual = output - inputs @ torch.linalg.lstsq(inputs, output).solution
    return (residual.var() / output.var(0).mean()).item()


@pytest.mark.parametrize("activation", [nn.SiLU, nn.Mish])
def test_smooth_activations_begin_far_from_linear(activation: type[nn.Module]):
    torch.manual_seed(0)
    backbone = MLPBackbone(2, activation=activation)
    share = unexplained_share(backbone)
    for module in backbone.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    assert share > 10 * unexplained_share(backbone)


def test_hidden_layers_keep_the_scale_of_the_signal():
    torch.manual_seed(0)
    layers = [m for m in MLPBackbone(2).trunk.modules() if isinstance(m, nn.Linear)]
    for layer in layers[:-1]:
        assert layer.weight.var().item() == pytest.approx(2 / layer.in_features, rel=0.1)
    assert layers[-1].weight.var().item() == pytest.approx(1 / (3 * 256), rel=0.2)


def test_a_reset_draws_the_hidden_layers_anew():
    backbone = MLPBackbone(2)
    weight = next(iter(backbone.trunk.parameters()))
    before = weight.detach().clone()
    with torch.no_grad():
        weight.zero_()
    backbone.reset_parameters()
    assert not torch.equal(weight, before)
    assert weight.var().item() == pytest.approx(2 / weight.shape[-1], rel=0.1)
