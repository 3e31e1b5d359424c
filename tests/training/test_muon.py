"""Adam with Muon for hidden weights."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from tensordict.nn import CudaGraphModule
from torch import nn
from torchrl.data import Bounded

from tests.objectives.gtp_cases import make_batch, make_loss
from torchrl_gtp import GTPLoss, TargetUpdate, make_gtp_actor
from torchrl_gtp.training import AdamWithMuon, Update, cosine, make_optimizer
from torchrl_gtp.training.muon import hidden_weights

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon is new")


def make_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))


def groups_of(net, as_rate=torch.tensor):
    hidden = net[2].weight
    rest = [parameter for parameter in net.parameters() if parameter is not hidden]
    return [{"params": rest, "lr": as_rate(1e-2)}], [{"params": [hidden], "lr": as_rate(0.1)}]


def step(net, *optimizers):
    for optimizer in optimizers:
        optimizer.zero_grad()
    net(torch.linspace(-1, 1, 12).view(4, 3)).square().sum().backward()
    for optimizer in optimizers:
        optimizer.step()


def assert_equal(net, other, **tolerance):
    for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance)


def test_steps_are_those_of_both_classes_of_torch():
    net, other = make_net(), make_net()
    both = AdamWithMuon(*groups_of(net), betas=(0.8, 0.9))
    adam_groups, muon_groups = groups_of(other, float)
    adam = torch.optim.Adam(adam_groups, betas=(0.8, 0.9))
    muon = torch.optim.Muon(muon_groups, weight_decay=0.0)
    for factor in (1.0, 0.5, 0.1, 0.0):
        both.param_groups[0]["lr"].fill_(1e-2 * factor)
        both.param_groups[1]["lr"].fill_(0.1 * factor)
        adam.param_groups[0]["lr"], muon.param_groups[0]["lr"] = 1e-2 * factor, 0.1 * factor
        step(net, both)
        step(other, adam, muon)
        assert_equal(net, other, rtol=1e-6, atol=1e-7)
    assert not torch.equal(net[2].weight, make_net()[2].weight)


def test_parameters_without_gradient_stay():
    net = make_net()
    optimizer = AdamWithMuon(*groups_of(net))
    step(net, optimizer)
    before = net[2].weight.clone()
    net[2].weight.requires_grad_(False)
    step(net, optimizer)
    assert torch.equal(net[2].weight, before)
    assert not torch.equal(net[0].weight, make_net()[0].weight)


@pytest.mark.parametrize("how", ["state_dict", "deepcopy", "pickle"])
def test_state_goes_on_as_if_nothing_happened(how):
    net = make_net()
    optimizer = AdamWithMuon(*groups_of(net))
    step(net, optimizer)
    optimizer.param_groups[1]["lr"].fill_(0.05)
    if how == "state_dict":
        other = make_net()
        other.load_state_dict(net.state_dict())
        going_on = AdamWithMuon(*groups_of(other))
        going_on.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    elif how == "deepcopy":
        other, going_on = copy.deepcopy((net, optimizer))
    else:
        other, going_on = pickle.loads(pickle.dumps((net, optimizer)))
    for _ in range(3):
        step(net, optimizer)
        step(other, going_on)
    assert_equal(net, other, rtol=0, atol=0)
    assert going_on.state_dict()["state"].keys() == set(range(6))


def test_a_closure_is_called_once_with_gradient():
    net = make_net()
    optimizer, calls = AdamWithMuon(*groups_of(net)), []

    def closure():
        optimizer.zero_grad()
        loss = net(torch.ones(4, 3)).square().sum()
        loss.backward()
        calls.append(loss.item())
        return calls[-1]

    assert optimizer.step(closure) == calls[0]
    assert len(calls) == 1


def test_before_torch_had_it(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ImportError, match=r"came with torch 2\.9, this is 2"):
        make_optimizer(make_loss("bc"), muon_lr=0.02)


def test_hidden_weights_of_backbones():
    trunk = "flow_map.backbone.trunk"
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), hidden_sizes=(16, 16))
    assert hidden_weights(actor.named_parameters()) == {f"{trunk}.2.weight"}
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), backbone="ln_resnet")
    blocks = {f"{trunk}.{block}.layers.{layer}.weight" for block in (1, 2, 3) for layer in (2, 4)}
    assert hidden_weights(actor.named_parameters()) == blocks


def test_groups_of_networks():
    loss = make_loss("value")
    optimizer = make_optimizer(loss, 1e-3, muon_lr=0.02)
    groups = [(group["name"], group["lr"].item()) for group in optimizer.param_groups]
    assert [name for name, _ in groups] == [
        *("actor_network", "qvalue_network", "value_network"),
        *("actor_network", "value_network"),  # the Q-networks are an ensemble, stacked
    ]
    assert [rate for _, rate in groups] == pytest.approx([1e-3] * 3 + [0.02] * 2)
    # All parameters, and each of them once.
    chosen = [p for group in optimizer.param_groups for p in group["params"]]
    trained = [p for p in loss.parameters() if p.requires_grad]
    assert {id(p) for p in chosen} == {id(p) for p in trained}
    assert len(chosen) == len(trained)
    one = make_optimizer(loss, 1e-3, muon_lr={"actor_network": 0.02})
    assert [group["name"] for group in one.param_groups].count("value_network") == 1


@pytest.mark.parametrize("rates", [{"qvalue_network": 0.02}, {"critic": 0.02}])
def test_networks_without_hidden_weights(rates):
    with pytest.raises(ValueError, match=r"muon_lr must give a rate for some of the networks \['a"):
        make_optimizer(make_loss("value"), muon_lr=rates)


def test_no_network_with_hidden_weights():
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), hidden_sizes=(16,))
    with pytest.raises(ValueError, match=r"muon_lr=0\.02 is for hidden weights"):
        make_optimizer(GTPLoss(actor), muon_lr=0.02)


def make_update(device="cpu"):
    loss = make_loss("value").to(device)
    optimizer = make_optimizer(loss, 1e-3, muon_lr=0.02)
    schedules = {"lr": cosine(1.0), "lr.value_network": cosine(0.5)}
    target_update = TargetUpdate(loss, 0.01)
    return Update(loss, optimizer, target_update, num_updates=20, schedules=schedules)


def same_as_eager(call, update, device="cpu"):
    """The bfloat16 inside a step may round otherwise, by one part in 256 of a step."""
    eager = make_update(device)
    for number in range(10):
        torch.manual_seed(number)
        batch = make_batch().to(device)
        batch["loss_noise"] = eager.loss_module.draw_noise(batch)
        torch.testing.assert_close(call(batch.clone()), eager(batch), rtol=1e-2, atol=1e-3)
    rates = [group["lr"].item() for group in update.optimizer.param_groups]
    assert rates == [group["lr"].item() for group in eager.optimizer.param_groups]
    return eager


@pytest.mark.slow
def test_compiled_as_eager():
    torch.compiler.reset()
    update = make_update()
    eager = same_as_eager(torch.compile(update, backend="aot_eager"), update)
    for mine, theirs in zip(
        update.loss_module.parameters(), eager.loss_module.parameters(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured_as_eager():
    update = make_update("cuda")
    same_as_eager(CudaGraphModule(update, in_keys=[], out_keys=[]), update, "cuda")
