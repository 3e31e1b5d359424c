"""Candidate selection by Q: who is chosen, how often, and what is shared."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.data import Bounded
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import ValueOperator
from torchrl.objectives import SoftUpdate

from torchrl_gtp import CandidateActor, GTPLoss, make_gtp_actor, make_qvalue, make_value
from torchrl_gtp.objectives import ClippedDoubleQLoss

SIZES = {"hidden_sizes": (16,)}


class Constant(nn.Module):
    """A Q-function of the action alone."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, observation, action):
        return self.function(action)


def qvalue(function):
    return ValueOperator(Constant(function), in_keys=["observation", "action"])


@pytest.fixture
def actor():
    torch.manual_seed(0)
    return make_gtp_actor(3, Bounded(-1, 1, (2,)), **SIZES)


def test_best_candidate_counts_the_smaller_value(actor):
    """min(a_0, -a_0) is largest at 0: the chosen actions are those next to it."""
    nets = [qvalue(lambda a: a[..., :1]), qvalue(lambda a: -a[..., :1])]
    policy = CandidateActor(actor, nets, num_candidates=64, temperature=0.0)
    observation = torch.randn(50, 3)
    chosen = policy(TensorDict({"observation": observation}, [50]))["action"]
    single = actor(TensorDict({"observation": observation}, [50]))["action"]
    assert chosen.shape == (50, 2)
    assert chosen[:, 0].abs().mean() < 0.2 * single[:, 0].abs().mean()


def test_softmax_probabilities(actor, monkeypatch):
    """Two candidates whose values differ by ln 3 at temperature 1: three in four times."""
    candidates = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).unsqueeze(1)
    monkeypatch.setattr(actor, "sample", lambda condition: candidates.expand(2, 20_000, 2))
    gap = torch.tensor(3.0).log() / 2
    policy = CandidateActor(
        actor, [qvalue(lambda a: 2 * gap * a[..., :1])], num_candidates=2, temperature=2.0
    )
    torch.manual_seed(0)
    action = policy(TensorDict({"observation": torch.randn(20_000, 3)}, [20_000]))["action"]
    assert (action[:, 0] > 0).float().mean() == pytest.approx(0.75, abs=0.01)


def constant_value(level):
    network = TensorDictModule(
        lambda observation: torch.full_like(observation[..., :1], level),
        in_keys=["observation"],
        out_keys=["state_value"],
    )
    return network


@pytest.mark.parametrize("expectile", [0.7, 0.9])
def test_implicit_policy_of_idql(actor, monkeypatch, expectile):
    """Weight tau where Q > V, 1 - tau elsewhere: two candidates above V, two not."""
    first = torch.tensor([-1.0, -0.5, 0.5, 1.0])
    candidates = torch.stack([first, torch.zeros(4)], -1).unsqueeze(1)
    monkeypatch.setattr(actor, "sample", lambda condition: candidates.expand(4, 20_000, 2))
    policy = CandidateActor(
        actor,
        [qvalue(lambda a: a[..., :1]), qvalue(lambda a: a[..., :1] + 3.0)],
        num_candidates=4,
        selection="expectile",
        value_network=constant_value(-0.5),
        expectile=expectile,
    )
    torch.manual_seed(0)
    action = policy(TensorDict({"observation": torch.randn(20_000, 3)}, [20_000]))["action"]
    # Equal to V is not above it: weights 1 - tau, 1 - tau, tau, tau.
    weight = torch.tensor([1 - expectile, 1 - expectile, expectile, expectile])
    shares = [(action[:, 0] == value).float().mean().item() for value in first]
    assert shares == pytest.approx((weight / weight.sum()).tolist(), abs=0.012)


def test_greedy_selection_is_the_largest_of_the_smaller_values(actor):
    nets = [qvalue(lambda a: a[..., :1]), qvalue(lambda a: -a[..., :1])]
    observation = torch.randn(20, 3)
    chosen = []
    for options in ({"selection": "greedy"}, {"temperature": 0.0}):
        torch.manual_seed(3)
        policy = CandidateActor(actor, nets, num_candidates=16, **options)
        chosen.append(policy(TensorDict({"observation": observation}, [20]))["action"])
    torch.manual_seed(3)
    candidates = actor.sample(observation.expand(16, 20, 3))
    best = (-candidates[..., 0].abs()).argmax(0)
    torch.testing.assert_close(chosen[0], candidates[best, torch.arange(20)])
    assert torch.equal(*chosen)


@pytest.mark.parametrize("inside", [False, True])
def test_implicit_policy_of_a_loss_follows_its_value_network(inside):
    torch.manual_seed(0)
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), **SIZES)
    networks = make_qvalue(3, 2, **SIZES), make_value(3, **SIZES)
    if inside:
        loss = GTPLoss(actor, critic=ClippedDoubleQLoss(actor, *networks, expectile=0.7))
    else:
        loss = GTPLoss(actor, *networks, expectile=0.7)
    policy = loss.candidate_actor(8, selection="expectile")
    assert policy.expectile == 0.7 and policy.selection == "expectile"
    critic = loss.critic if inside else loss
    with torch.no_grad():
        critic.value_network_params["module", "0", "weight"].add_(1.0)
    expected = critic.value_network_params["module", "0", "weight"].data
    assert torch.equal(policy.value_network.module[0].weight.data, expected)
    td = policy(TensorDict({"observation": torch.randn(5, 3)}, [5]))
    assert td["action"].shape == (5, 2) and set(td.keys()) == {"observation", "action"}


def test_deterministic_type_is_the_actors(actor):
    policy = CandidateActor(actor, [make_qvalue(3, 2, **SIZES)])
    td = TensorDict({"observation": torch.randn(4, 3)}, [4])
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert torch.equal(policy(td.clone())["action"], actor(td.clone())["action"])


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_policy_of_a_loss_shares_its_tensors(actor, batch):
    loss = GTPLoss(actor, make_qvalue(3, 2, **SIZES), num_qvalue_nets=3)
    updater = SoftUpdate(loss, tau=0.5)
    policy = loss.candidate_actor(num_candidates=8, temperature=0.0)
    td = TensorDict({"observation": torch.randn(*batch, 3)}, batch)
    assert policy(td)["action"].shape == (*batch, 2)
    assert set(td.keys()) == {"observation", "action"}
    with torch.no_grad():
        loss.qvalue_network_params["module", "0", "weight"].add_(1.0)
    updater.step()
    target = loss.target_qvalue_network_params["module", "0", "weight"]
    for net, expected in zip(policy.qvalue_networks, target, strict=True):
        torch.testing.assert_close(net.module[0].weight.data, expected.data)


def test_other_action_key_and_double_observations():
    torch.manual_seed(0)
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), action_key="policy_action", **SIZES)
    loss = GTPLoss(actor, make_qvalue(3, 2, **SIZES))
    loss.set_keys(action="action")
    SoftUpdate(loss, tau=0.5)
    policy = loss.candidate_actor(num_candidates=4)
    td = policy(TensorDict({"observation": torch.randn(5, 3).double()}, [5]))
    assert td["policy_action"].shape == (5, 2) and td["policy_action"].dtype == torch.float32
    with pytest.raises(KeyError, match="needs the entries.*observation"):
        policy(TensorDict({"state": torch.randn(5, 3)}, [5]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_candidates": 0}, "num_candidates must be at least 1"),
        ({"temperature": -1.0}, "temperature must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"selection": "best"}, "selection must be one of"),
        ({"selection": "greedy", "temperature": 2.0}, "temperature=2.0 .* has no effect"),
        ({"selection": "expectile"}, "needs a value_network.*value_network=NoneType"),
        ({"value_network": make_value(3, **SIZES)}, "no other selection reads one"),
        ({"expectile": 1.0}, "expectile must lie strictly between 0 and 1"),
    ],
)
def test_bad_options(actor, options, message):
    with pytest.raises(ValueError, match=message):
        CandidateActor(actor, [make_qvalue(3, 2, **SIZES)], **options)
    with pytest.raises(ValueError, match="at least one Q-network"):
        CandidateActor(actor, [])
    with pytest.raises(ValueError, match="no qvalue_network"):
        GTPLoss(actor).candidate_actor()
    with pytest.raises(ValueError, match="needs a value_network"):
        GTPLoss(actor, make_qvalue(3, 2, **SIZES)).candidate_actor(selection="expectile")
