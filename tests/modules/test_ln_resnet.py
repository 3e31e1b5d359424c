"""Actors over the residual backbone: the factory's option, and dropout in acting and training."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.data import Bounded, Composite, Unbounded

from tests.objectives.gtp_cases import make_batch
from torchrl_gtp import GTPLoss, TargetUpdate, make_actor_critic, make_gtp_actor, make_qvalue
from torchrl_gtp.flow_map import LNResNetBackbone, MLPBackbone

SPEC = Bounded(-1, 1, (2,))


def test_factory():
    options = {"backbone": "ln_resnet", "hidden_sizes": (16, 16), "activation": nn.SiLU}
    actor = make_gtp_actor(3, SPEC, dropout=0.1, **options)
    backbone = actor.flow_map.backbone
    assert isinstance(backbone, LNResNetBackbone)
    dropouts = [module.p for module in backbone.modules() if isinstance(module, nn.Dropout)]
    assert dropouts == [0.1, 0.1] and isinstance(backbone.trunk[-2], nn.SiLU)
    assert type(make_gtp_actor(3, SPEC).flow_map.backbone) is MLPBackbone
    observation_spec = Composite(observation=Unbounded(3))
    actor, qvalue = make_actor_critic(observation_spec, SPEC, **options)
    assert isinstance(actor.flow_map.backbone, LNResNetBackbone)
    assert qvalue(observation=torch.zeros(4, 3), action=torch.zeros(4, 2)).shape == (4, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 0.1}, "dropout=0.1 has no effect with backbone='mlp'"),
        ({"backbone": "unet"}, "backbone must be 'mlp' or 'ln_resnet', got 'unet'"),
        ({"backbone": "ln_resnet", "hidden_sizes": (8, 16)}, r"same number .* got \(8, 16\)"),
        ({"backbone": "ln_resnet", "hidden_sizes": ()}, "same number"),
    ],
)
def test_bad_options_of_the_factory(options, message):
    with pytest.raises(ValueError, match=message):
        make_gtp_actor(3, SPEC, **options)


def make_loss(**options):
    torch.manual_seed(0)
    network = {"backbone": "ln_resnet", "hidden_sizes": (16,), "dropout": 0.5}
    actor = make_gtp_actor(3, SPEC, num_steps=2, **network)
    loss = GTPLoss(actor, make_qvalue(3, 2, hidden_sizes=(16,)), **options)
    TargetUpdate(loss, 0.005)
    return loss


def test_policies_act_without_dropout_while_terms_train_with_it():
    loss, td = make_loss(), make_batch()
    td["loss_noise"] = loss.draw_noise(td)
    assert torch.equal(loss.advantage(td), loss.advantage(td))
    assert torch.equal(loss.qvalue_loss(td)[0], loss.qvalue_loss(td)[0])
    assert not torch.equal(loss.flow_loss(td)[0], loss.flow_loss(td)[0])
    observed = TensorDict({"observation": torch.zeros(4, 3), "noise": torch.ones(4, 2)}, [4])
    actor = loss.target_actor()
    assert torch.equal(actor(observed.clone())["action"], actor(observed.clone())["action"])
    assert not any(module.training for module in loss.candidate_actor(4).modules())
    assert loss.actor_network.training


def test_dropout_follows_the_mode_of_the_loss():
    loss, td = make_loss(), make_batch()
    td["loss_noise"] = loss.draw_noise(td)
    loss.eval()
    assert torch.equal(loss.flow_loss(td)[0], loss.flow_loss(td)[0])
    loss.train()
    assert not torch.equal(loss.flow_loss(td)[0], loss.flow_loss(td)[0])


def test_a_frozen_part_of_the_actor_stays_frozen():
    loss, td = make_loss(), make_batch()
    frozen = loss.actor_network.flow_map.backbone.trunk[1].eval()
    loss(td)
    assert not any(module.training for module in frozen.modules())
    assert loss.actor_network.flow_map.backbone.training


def test_loss_with_dropout_compiles():
    loss, td = make_loss(), make_batch()
    td["loss_noise"] = loss.draw_noise(td)
    torch.compiler.reset()
    loss.qvalue_loss(td.clone())
    compiled = torch.compile(loss.qvalue_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(td.clone())[0], loss.qvalue_loss(td.clone())[0])
