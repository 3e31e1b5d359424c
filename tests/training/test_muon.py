"""Adam with Muon for hidden weights."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from tensordict.nn import CudaGraphModule, TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.data import Bounded
from torchrl.modules import MLP, ValueOperator

from tests.objectives.gtp_cases import Concatenated, make_batch, make_loss
from torchrl_gtp import GTPLoss, TargetUpdate, make_gtp_actor
from torchrl_gtp.training import AdamWithMuon, Update, cosine, make_optimizer
from torchrl_gtp.training.muon import hidden_weights

needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="came with torch 2.9")


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
    inputs = torch.linspace(-1, 1, 12, dtype=net[0].weight.dtype).view(4, 3)
    net(inputs).square().sum().backward()
    for optimizer in optimizers:
        optimizer.step()


def assert_equal(net, other, **tolerance):
    for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance)


@needs_muon
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


@needs_muon
def test_parameters_without_gradient_stay():
    net = make_net()
    optimizer = AdamWithMuon(*groups_of(net))
    step(net, optimizer)
    before = net[2].weight.clone()
    net[2].weight.requires_grad_(False)
    step(net, optimizer)
    assert torch.equal(net[2].weight, before)
    assert not torch.equal(net[0].weight, make_net()[0].weight)


@needs_muon
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


@needs_muon
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
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(ImportError, match=r"came with torch 2\.9, this is 2"):
        make_optimizer(make_loss("bc"), muon_lr=0.02)


@needs_muon
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rates_may_be_numbers(dtype):
    nets = [make_net().to(dtype) for _ in range(2)]
    for net, as_rate in zip(nets, (torch.tensor, float), strict=True):
        optimizer = AdamWithMuon(*groups_of(net, as_rate))
        for _ in range(3):
            step(net, optimizer)
    assert_equal(*nets, rtol=1e-5, atol=1e-6)
    assert nets[0][2].weight.dtype == dtype


@needs_muon
def test_groups_may_be_generators_and_may_be_emptied():
    net = make_net()
    adam_groups, muon_groups = groups_of(net)
    muon_groups[0]["params"] = (parameter for parameter in [net[2].weight])
    muon_groups[0]["lr"] = torch.tensor(0.0)
    optimizer = AdamWithMuon(adam_groups, muon_groups)
    step(net, optimizer)
    assert torch.equal(net[2].weight, make_net()[2].weight)
    optimizer.param_groups[1]["lr"].fill_(1.0)
    optimizer.param_groups[1]["params"] = []
    step(net, optimizer)
    assert torch.equal(net[2].weight, make_net()[2].weight)


@needs_muon
def test_a_scheduler_of_torch_moves_all_rates():
    net = make_net()
    optimizer = AdamWithMuon(*groups_of(net))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    step(net, optimizer)
    scheduler.step()
    rates = [group["lr"].item() for group in optimizer.param_groups]
    assert rates == pytest.approx([5e-3, 0.05])


@needs_muon
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1\.0"),
        ({"maximize": True}, "maximize=True would be for the weights of Adam alone"),
        ({"weight_decay": 0.1}, r"weight_decay=0\.1 would be for the weights of Adam alone"),
    ],
)
def test_options_that_would_be_for_some_weights_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AdamWithMuon(*groups_of(make_net()), **options)


@needs_muon
@pytest.mark.parametrize("rate", [None, -0.1, float("nan")])
def test_a_group_of_muon_has_a_rate(rate):
    adam_groups, muon_groups = groups_of(make_net())
    del muon_groups[0]["lr"]
    if rate is not None:
        muon_groups[0]["lr"] = rate
    with pytest.raises(ValueError, match=rf"must have an 'lr' of at least 0, got {rate}"):
        AdamWithMuon(adam_groups, muon_groups)


@needs_muon
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": -0.1}, r"momentum must lie in \[0, 1\), got -0\.1"),
        (
            {"weight_decay": 0.1, "betas": (0.9, 0.99)},
            r"has no options \['betas', 'weight_decay'\]",
        ),
    ],
)
def test_a_group_of_muon_has_options_that_it_heeds(options, message):
    adam_groups, muon_groups = groups_of(make_net())
    muon_groups[0].update(options)
    with pytest.raises(ValueError, match=message):
        AdamWithMuon(adam_groups, muon_groups)


@needs_muon
def test_no_group_comes_later():
    optimizer = AdamWithMuon(*groups_of(make_net()))
    with pytest.raises(NotImplementedError, match="make a new one"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2, 2))], "lr": 1.0})


def test_hidden_weights_of_backbones():
    trunk = "flow_map.backbone.trunk"
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), hidden_sizes=(16, 16))
    assert hidden_weights(actor) == {f"{trunk}.2.weight"}
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), backbone="ln_resnet")
    blocks = {f"{trunk}.{block}.layers.{layer}.weight" for block in (1, 2, 3) for layer in (2, 4)}
    assert hidden_weights(actor) == blocks


def test_layers_side_by_side_are_not_hidden():
    """Only what lies inside a sequence is: neither heads, nor encoders, nor embeddings."""
    encoders = (TensorDictModule(MLP(3, 8, num_cells=[8, 8]), ["a"], [f"b{i}"]) for i in range(2))
    head = TensorDictModule(nn.Linear(8, 2), ["b1"], ["c"])
    found = hidden_weights(TensorDictSequential(*encoders, head))
    assert found == {f"module.{i}.module.2.weight" for i in range(2)}
    assert not hidden_weights(nn.ModuleList([nn.Linear(8, 8) for _ in range(4)]))
    layers = nn.Linear(3, 8), nn.LayerNorm(8), nn.Embedding(8, 8), nn.Linear(8, 2)
    assert not hidden_weights(nn.Sequential(*layers))


@needs_muon
def test_an_ensemble_with_norms_is_left_to_adam():
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)))
    net = MLP(
        5, 1, num_cells=[8, 8, 8], norm_class=nn.LayerNorm, norm_kwargs={"normalized_shape": 8}
    )
    qvalue = ValueOperator(Concatenated(net), in_keys=["observation", "action"])
    optimizer = make_optimizer(GTPLoss(actor, qvalue), muon_lr=0.02)
    names = [group["name"] for group in optimizer.param_groups]
    assert names == ["actor_network", "qvalue_network", "actor_network"]


@needs_muon
def test_a_clip_is_for_the_whole_network():
    loss = make_loss("critic")
    update = Update(loss, make_optimizer(loss, muon_lr=0.02), num_updates=2, grad_clip=1e-3)
    update(make_batch())
    for network in ("actor_network", "qvalue_network"):
        grads = [p.grad for name, p in loss.named_parameters() if name.startswith(network)]
        norm = torch.stack([grad.norm() for grad in grads if grad is not None]).norm()
        torch.testing.assert_close(norm, torch.tensor(1e-3), rtol=1e-2, atol=0)


def test_no_names_are_no_muon():
    assert type(make_optimizer(make_loss("bc"), muon_lr={})) is torch.optim.Adam


@needs_muon
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


@needs_muon
@pytest.mark.parametrize("rates", [{"qvalue_network": 0.02}, {"critic": 0.02}])
def test_networks_without_hidden_weights(rates):
    with pytest.raises(
        ValueError, match=r"muon_lr must .* some of the networks with hidden weights \['a"
    ):
        make_optimizer(make_loss("value"), muon_lr=rates)


def test_no_network_with_hidden_weights():
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), hidden_sizes=(16,))
    with pytest.raises(ValueError, match=r"muon_lr=0\.02 is for weights of two dimensions"):
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


@needs_muon
@pytest.mark.slow
def test_compiled_as_eager():
    torch.compiler.reset()
    update = make_update()
    eager = same_as_eager(torch.compile(update, backend="aot_eager"), update)
    for mine, theirs in zip(
        update.loss_module.parameters(), eager.loss_module.parameters(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@needs_muon
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured_as_eager():
    update = make_update("cuda")
    same_as_eager(CudaGraphModule(update, in_keys=[], out_keys=[]), update, "cuda")
