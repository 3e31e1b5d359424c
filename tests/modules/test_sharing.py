"""Modules that share their tensors with functional parameters."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torch import nn

from torchrl_gtp.modules.sharing import share_parameters


def make_tied() -> nn.Module:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    module[2].weight = module[0].weight
    return module


def test_tied_parameters_and_buffers_follow():
    source, module = make_tied(), make_tied()
    share_parameters(module, TensorDict.from_module(source).data)
    with torch.no_grad():
        source[0].weight.fill_(2.0)
        source[1].running_mean.fill_(3.0)
    assert (module[0].weight == 2.0).all() and (module[2].weight == 2.0).all()
    assert (module[1].running_mean == 3.0).all()
    assert not any(parameter.requires_grad for parameter in module.parameters())
