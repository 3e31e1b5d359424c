"""New initial values: all parameters drawn anew as their layers do, all constants as they were."""

from __future__ import annotations

import torch
from torch import nn

from tests.objectives.contract.case import LossCase, as_tuple, call, total_of
from torchrl_gtp.flow_map import MLPBackbone


class ResetTests:
    def test_reset_draws_everything_anew(self, case: LossCase):
        loss = case.loss()
        constants = {name: {*map(as_tuple, keys)} for name, keys in case.constants.items()}
        before = {
            name: {k: v.detach().clone() for k, v in case.params(loss, name).items()}
            for name in case.networks
        }
        with torch.no_grad():
            for name in case.networks:
                for target in (False, True):
                    for key, value in case.params(loss, name, target=target).items():
                        if key not in constants[name]:
                            value.add_(1000.0)
        torch.manual_seed(7)
        loss.reset_parameters_recursive()
        for name in case.networks:
            for key, value in case.params(loss, name).items():
                if key in constants[name]:
                    assert torch.equal(value, before[name][key]), key
                else:
                    assert (value != before[name][key]).any(), key
                    assert value.abs().max() < 10.0, key
        total_of(call(loss, case.make_batch())).backward()
        assert all(p.grad is not None for p in case.trained(loss).values())
        assert all(isinstance(parameter, nn.Parameter) for parameter in loss.parameters())

    def test_targets_start_as_copies_again(self, case: LossCase):
        loss = case.loss()
        loss.reset_parameters_recursive()
        for name in case.targets:
            sources = case.params(loss, name)
            for key, target in case.params(loss, name, target=True).items():
                assert torch.equal(target, sources[key]), key

    def test_members_of_an_ensemble_differ_and_have_the_scale_of_their_layer(self, case: LossCase):
        loss = case.loss()
        loss.reset_parameters_recursive()
        for name in case.networks:
            modules = list(getattr(loss, name).modules())
            widths = {layer.in_features for layer in modules if isinstance(layer, nn.Linear)}
            # PyTorch's bound; that of the hidden layers of a flow map is larger.
            gains = {1.0, 6**0.5} if any(isinstance(m, MLPBackbone) for m in modules) else {1.0}
            for key, value in case.params(loss, name).items():
                if key[-1] != "weight" or not isinstance(value, nn.Parameter):
                    continue
                members = value.data if value.ndim == 3 else value.data.unsqueeze(0)
                assert members.shape[-1] in widths
                bound = members.shape[-1] ** -0.5
                for member in members:
                    scale = (member.abs().max() / bound).item()
                    assert any(0.7 * gain < scale <= gain for gain in gains), key
                if len(members) > 1:
                    assert not torch.equal(members[0], members[1])
