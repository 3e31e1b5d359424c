"""TargetUpdate: targets that move at rates of their own, in losses inside losses too."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from tensordict import TensorDict, TensorDictParams
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.data import Bounded
from torchrl.objectives import SoftUpdate
from torchrl.objectives.common import LossModule
from torchrl.objectives.utils import TargetNetUpdater
from torchrl.trainers import TargetNetUpdaterHook

from tests.objectives.contract.case import NoHostReads
from torchrl_gtp import GTPLoss, TargetUpdate, make_gtp_actor, make_qvalue

RATES = {"actor_network": 0.1, "qvalue_network": 0.3}


class ToyLoss(LossModule):
    """Two networks with targets, and whatever losses are given as children."""

    actor_network: TensorDictModule
    actor_network_params: TensorDictParams
    target_actor_network_params: TensorDictParams
    qvalue_network: TensorDictModule
    qvalue_network_params: TensorDictParams
    target_qvalue_network_params: TensorDictParams

    def __init__(self, *networks: str, delay: bool = True, net=None, **children: LossModule):
        super().__init__()
        for name in networks:
            module = TensorDictModule(net or nn.Linear(3, 2), in_keys=["x"], out_keys=["y"])
            self.convert_to_functional(module, name, create_target_params=delay)
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, tensordict):
        return TensorDict()


def make_loss(**options) -> GTPLoss:
    torch.manual_seed(0)
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), hidden_sizes=(8,))
    return GTPLoss(actor, make_qvalue(3, 2, hidden_sizes=(8,)), **options)


def perturb(loss: LossModule) -> None:
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.add_(torch.randn_like(parameter))


def weights(loss: LossModule, network: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix of the network and its target."""
    source = getattr(loss, f"{network}_params")
    key = next(k for k in source.keys(True, True) if source[k].ndim > 1)
    return source[key].data, loss._modules[f"target_{network}_params"][key].data


def test_one_rate_is_soft_update():
    torch.manual_seed(1)
    ours, theirs = make_loss(), make_loss()
    updater, reference = TargetUpdate(ours, 0.05), SoftUpdate(theirs, tau=0.05)
    for _ in range(3):
        perturb(ours)
        theirs.actor_network_params.data.copy_(ours.actor_network_params.data)
        theirs.qvalue_network_params.data.copy_(ours.qvalue_network_params.data)
        updater.step()
        reference.step()
    for name in RATES:
        torch.testing.assert_close(
            ours._modules[f"target_{name}_params"].data,
            theirs._modules[f"target_{name}_params"].data,
        )
        source, target = weights(ours, name)
        assert not torch.equal(source, target)


def test_each_network_has_its_rate():
    loss = make_loss()
    updater = TargetUpdate(loss, RATES)
    before = {name: weights(loss, name)[1].clone() for name in RATES}
    perturb(loss)
    updater.step()
    for name, rate in RATES.items():
        source, target = weights(loss, name)
        torch.testing.assert_close(target, before[name].lerp(source, rate))


def test_rates_of_zero_and_one():
    loss = make_loss()
    updater = TargetUpdate(loss, {"actor_network": 0, "qvalue_network": 1})
    frozen = weights(loss, "actor_network")[1].clone()
    perturb(loss)
    updater.step()
    assert torch.equal(weights(loss, "actor_network")[1], frozen)
    assert torch.equal(*weights(loss, "qvalue_network"))


def test_constructor_copies_the_networks():
    loss = make_loss()
    perturb(loss)
    TargetUpdate(loss, RATES)
    assert all(torch.equal(*weights(loss, name)) for name in RATES)


def test_rates_change_in_place():
    updater = TargetUpdate(make_loss(), RATES)
    tau = updater.tau
    updater.set_tau({"actor_network": 0.5})
    assert tau["actor_network"] == 0.5
    assert tau["qvalue_network"] == torch.tensor(0.3)
    updater.set_tau(0.25)
    assert all(rate == 0.25 for rate in tau.values())
    tau["qvalue_network"].fill_(1.0)
    assert repr(updater) == "TargetUpdate(actor_network=0.25, qvalue_network=1)"


def test_interval_and_start_are_those_of_diffusion_ql():
    """The reference is its loop: an average of the actor only, of the critic at every step."""
    loss = make_loss()
    updater = TargetUpdate(loss, RATES, interval={"actor_network": 2}, start={"actor_network": 3})
    expected = {name: weights(loss, name)[1].clone() for name in RATES}
    initial = expected["actor_network"].clone()
    moves = 0
    for step in range(8):
        perturb(loss)
        updater.step()
        if step % 2 == 0 and step >= 3:
            moves += 1
            expected["actor_network"].lerp_(weights(loss, "actor_network")[0], 0.1)
        expected["qvalue_network"].lerp_(weights(loss, "qvalue_network")[0], 0.3)
        for name in RATES:
            torch.testing.assert_close(weights(loss, name)[1], expected[name])
        assert torch.equal(weights(loss, "actor_network")[1], initial) == (moves == 0)
    assert moves == 2


@pytest.mark.parametrize("tau", [0.0, 0.1])
def test_running_statistics_are_copied_unless_frozen(tau):
    loss = ToyLoss("actor_network", net=nn.BatchNorm1d(3))
    updater = TargetUpdate(loss, tau)
    source, target = loss.actor_network_params["module"], loss.target_actor_network_params["module"]
    with torch.no_grad():
        source["running_mean"].fill_(2.0)
        source["num_batches_tracked"].fill_(7)
        source["weight"].fill_(3.0)
    updater.step()
    assert (target["running_mean"] == (2.0 if tau else 0.0)).all()
    assert target["num_batches_tracked"] == (7 if tau else 0)
    torch.testing.assert_close(target["weight"], torch.full((3,), 1.0 + 2.0 * tau))


def test_fixed_buffers_of_the_actor_stay():
    loss = make_loss()
    updater = TargetUpdate(loss, 0.5)
    bounds = loss.target_actor_network_params["low"].clone()
    frequencies = ("flow_map", "backbone", "embed_t", "frequencies")
    fixed = loss.target_actor_network_params[frequencies].clone()
    perturb(loss)
    updater.step()
    assert torch.equal(loss.target_actor_network_params["low"], bounds)
    assert torch.equal(loss.target_actor_network_params[frequencies], fixed)


def test_encoder_shared_under_separate_losses_is_averaged():
    """The critic holds the encoder's memory without gradient: neither constant nor statistic."""

    class Encoded(nn.Module):
        def __init__(self, encoder):
            super().__init__()
            self.encoder, self.head = encoder, nn.Linear(4, 1)

        def forward(self, x):
            return self.head(self.encoder(x))

    class SharedLoss(ToyLoss):
        def __init__(self):
            super().__init__()
            encoder = nn.Linear(3, 4)
            actor, qvalue = (
                TensorDictModule(Encoded(encoder), in_keys=["x"], out_keys=["y"]) for _ in range(2)
            )
            shared = list(actor.parameters())
            self.convert_to_functional(actor, "actor_network", create_target_params=True)
            self.convert_to_functional(
                qvalue, "qvalue_network", 2, create_target_params=True, compare_against=shared
            )

    loss = SharedLoss()
    updater = TargetUpdate(loss, RATES)
    key = ("module", "encoder", "weight")
    before = loss.target_qvalue_network_params[key].clone()
    with torch.no_grad():
        loss.actor_network_params[key].add_(1.0)
    updater.step()
    torch.testing.assert_close(loss.target_qvalue_network_params[key], before + 0.3)


# Losses inside losses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tau", "outer", "inner"),
    [
        (0.2, 0.2, 0.2),
        ({"qvalue_network": 0.4}, 0.4, 0.4),
        ({"qvalue_network": 0.4, "critic.qvalue_network": 0.6}, 0.4, 0.6),
    ],
)
def test_networks_of_a_loss_inside(tau, outer, inner):
    critic = ToyLoss("qvalue_network")
    loss = ToyLoss("qvalue_network", critic=critic)
    updater = TargetUpdate(loss, tau)
    assert {k: pytest.approx(v.item()) for k, v in updater.tau.items()} == {
        "qvalue_network": outer,
        "critic.qvalue_network": inner,
    }
    before = [weights(part, "qvalue_network")[1].clone() for part in (loss, critic)]
    perturb(loss)
    updater.step()
    for part, old, rate in zip((loss, critic), before, (outer, inner), strict=True):
        source, target = weights(part, "qvalue_network")
        torch.testing.assert_close(target, old.lerp(source, rate))


def test_targets_only_in_losses_of_a_list():
    losses = nn.ModuleList([ToyLoss("qvalue_network"), ToyLoss("qvalue_network")])
    updater = TargetUpdate(
        ToyLoss("actor_network", delay=False, critics=losses),
        {"critics.0.qvalue_network": 0.1, "critics.1.qvalue_network": 0.2},
    )
    assert list(updater.tau) == ["critics.0.qvalue_network", "critics.1.qvalue_network"]


def test_target_of_two_losses_moves_once():
    critic = ToyLoss("qvalue_network")
    loss = ToyLoss(first=critic, second=critic)
    shared = ToyLoss("qvalue_network")
    shared.qvalue_network_params = critic.qvalue_network_params
    shared._modules["target_qvalue_network_params"] = critic._modules[
        "target_qvalue_network_params"
    ]
    loss.third = shared
    updater = TargetUpdate(loss, 0.5)
    before = weights(critic, "qvalue_network")[1].clone()
    perturb(critic)
    updater.step()
    source, target = weights(critic, "qvalue_network")
    torch.testing.assert_close(target, before.lerp(source, 0.5))
    assert all(shared._has_update_associated.values())


def test_warnings_cease_for_what_it_covers():
    critic, other = ToyLoss("qvalue_network"), ToyLoss("qvalue_network")
    loss = ToyLoss("actor_network", critic=critic)
    for part in (loss, critic, other):
        with pytest.warns(UserWarning, match="No target network updater"):
            part(TensorDict())
    TargetUpdate(loss, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(TensorDict())
        critic(TensorDict())
        _ = critic.target_qvalue_network_params
    with pytest.warns(UserWarning, match="No target network updater"):
        other(TensorDict())


def test_failed_construction_leaves_the_warning():
    loss = ToyLoss("actor_network")
    with pytest.raises(ValueError, match="must lie in"):
        TargetUpdate(loss, 2.0)
    with pytest.warns(UserWarning, match="No target network updater"):
        loss(TensorDict())


def test_trainer_accepts_it():
    updater = TargetUpdate(make_loss(), 0.1)
    assert isinstance(updater, TargetNetUpdater)
    TargetNetUpdaterHook(updater)()
    assert updater.state_dict()["num_steps"] == 1


# State -------------------------------------------------------------------------------------


def test_state_dict_round_trip():
    updater = TargetUpdate(make_loss(), RATES, interval=3)
    for _ in range(2):
        updater.step()
    updater.set_tau({"actor_network": 0.7})
    state = pickle.loads(pickle.dumps(updater.state_dict()))
    other = TargetUpdate(make_loss(), 0.5, interval=3)
    tau = other.tau
    other.load_state_dict(state)
    assert {name: rate.item() for name, rate in tau.items()} == {
        name: rate.item() for name, rate in updater.tau.items()
    }
    # Both go on with step 2, and move in step 3 alone.
    for part in (updater, other):
        before = weights(part.loss_module, "actor_network")[1].clone()
        perturb(part.loss_module)
        part.step()
        assert torch.equal(weights(part.loss_module, "actor_network")[1], before)
        part.step()
        source, target = weights(part.loss_module, "actor_network")
        torch.testing.assert_close(target, before.lerp(source, 0.7))


def test_states_of_others_are_refused():
    updater, soft = TargetUpdate(make_loss(), RATES), SoftUpdate(make_loss(), tau=0.1)
    with pytest.raises(ValueError, match=r"must have the entries \['initialized', 'num_steps'"):
        updater.load_state_dict(soft.state_dict())
    cloning = TargetUpdate(ToyLoss("actor_network"), 0.1)
    with pytest.raises(ValueError, match=r"has rates of \['actor_network'\], but"):
        updater.load_state_dict(cloning.state_dict())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_move_their_own_loss(duplicate):
    original = TargetUpdate(ToyLoss("actor_network"), 0.5)
    updater = duplicate(original)
    loss = updater.loss_module
    kept, before = (
        weights(part, "actor_network")[1].clone() for part in (original.loss_module, loss)
    )
    perturb(loss)
    updater.step()
    source, target = weights(loss, "actor_network")
    torch.testing.assert_close(target, before.lerp(source, 0.5))
    assert torch.equal(weights(original.loss_module, "actor_network")[1], kept)


def test_follows_the_loss_to_another_dtype():
    loss = make_loss()
    updater = TargetUpdate(loss, RATES)
    loss.double()
    before = {name: weights(loss, name)[1].clone() for name in RATES}
    perturb(loss)
    updater.step()
    for name, rate in RATES.items():
        source, target = weights(loss, name)
        assert target.dtype == torch.float64
        torch.testing.assert_close(target, before[name].lerp(source, rate), rtol=1e-6, atol=1e-6)


def test_step_reads_no_tensor_on_the_host():
    updater = TargetUpdate(make_loss(), RATES, interval=2, start=1)
    with NoHostReads():
        updater.step()
        updater.set_tau(0.5)


def test_compiled_step_follows_the_rates():
    loss, reference = make_loss(), make_loss()
    updater = TargetUpdate(loss, RATES, interval=2)
    eager = TargetUpdate(reference, RATES, interval=2)
    step = torch.compile(updater.step, fullgraph=True, backend="eager")
    for index in range(5):
        torch.manual_seed(index)
        perturb(loss)
        torch.manual_seed(index)
        perturb(reference)
        for part in (updater, eager):
            part.set_tau({"qvalue_network": 0.1 * index})
        with torch.compiler.set_stance("default" if index < 1 else "fail_on_recompile"):
            step()
        eager.step()
        for name in RATES:
            torch.testing.assert_close(weights(loss, name)[1], weights(reference, name)[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured_step_follows_the_rates():
    loss = make_loss()
    updater = TargetUpdate(loss, RATES, interval=2)
    loss.to("cuda")
    updater.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        updater.step()
    count = updater.state_dict()["num_steps"].item()
    for index in range(4):
        perturb(loss)
        updater.set_tau({"qvalue_network": 0.2 * index})
        before = weights(loss, "qvalue_network")[1].clone()
        graph.replay()
        source, target = weights(loss, "qvalue_network")
        rate = 0.2 * index if (count + index) % 2 == 0 else 0.0
        torch.testing.assert_close(target, before.lerp(source, rate))


# Bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tau", "options", "message"),
    [
        ({"actor_network": 0.1}, {}, r"no rate for \['qvalue_network'\]"),
        ({**RATES, "critic": 0.1}, {}, r"\['critic'\].*\['actor_network', 'qvalue_network'\]"),
        (1.5, {}, r"tau of 'actor_network' must lie in \[0, 1\], got 1.5"),
        (float("nan"), {}, "must lie in"),
        ({**RATES, "qvalue_network": -0.1}, {}, "tau of 'qvalue_network' must lie in"),
        (
            0.1,
            {"interval": 0},
            "interval of 'actor_network' must be an integer of at least 1, got 0",
        ),
        (0.1, {"start": {"qvalue_network": -1}}, "start of 'qvalue_network' must be .* at least 0"),
        (0.1, {"interval": 2.5}, "interval of 'actor_network' must be an integer"),
        (0.1, {"start": {"value_network": 1}}, "start names"),
    ],
)
def test_bad_options(tau, options, message):
    with pytest.raises(ValueError, match=message):
        TargetUpdate(make_loss(), tau, **options)


def test_bad_rates_later():
    updater = TargetUpdate(make_loss(), RATES)
    with pytest.raises(ValueError, match="must lie in"):
        updater.set_tau({"actor_network": 2.0})
    with pytest.raises(ValueError, match="tau names"):
        updater.set_tau({"value_network": 0.1})


def test_bad_losses():
    with pytest.raises(TypeError, match="must be a LossModule, got Linear"):
        TargetUpdate(nn.Linear(1, 1), 0.1)
    with pytest.raises(RuntimeError, match="has no target networks"):
        TargetUpdate(make_loss(delay_actor=False, delay_qvalue=False), 0.1)
    with pytest.raises(RuntimeError, match="is not initialised yet"):
        TargetUpdate(ToyLoss("actor_network", net=nn.LazyLinear(2)), 0.1)
    updater = TargetUpdate(make_loss(), 0.1)
    updater.initialized = False
    with pytest.raises(RuntimeError, match=r"call init_\(\)"):
        updater.step()
