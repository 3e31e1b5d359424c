"""DIPO's action gradient, against its published steps written out, and its place in a loss."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.data import Bounded
from torchrl.modules import ValueOperator

from tests.objectives.gtp_cases import SIZES, make_batch, make_loss
from torchrl_gtp import ActionGradient, GTPLoss, TargetUpdate, make_gtp_actor, make_qvalue
from torchrl_gtp.objectives import ClippedDoubleQLoss, PrecomputedAdvantage

SPEC = Bounded(-1, 1, (2,))


@pytest.fixture
def networks():
    torch.manual_seed(0)
    return [make_qvalue(3, 2, **SIZES) for _ in range(2)]


def batch(*size):
    torch.manual_seed(1)
    size = size or (16,)
    action = torch.rand(*size, 2) * 1.8 - 0.9
    return TensorDict({"observation": torch.randn(*size, 3), "action": action}, size)


@pytest.mark.parametrize("max_grad_norm", [None, 0.02])
@pytest.mark.parametrize("ensemble", ["min", "mean"])
def test_published_steps(networks, max_grad_norm, ensemble):
    """Adam on the actions with eps 1e-5, the norm over the whole batch, a clip after each step."""
    td = batch()
    options = {"num_steps": 6, "max_grad_norm": max_grad_norm, "ensemble": ensemble}
    improved = ActionGradient(networks, SPEC, **options)(td)["improved_action"]

    action = td["action"].clone()
    first, second = torch.zeros_like(action), torch.zeros_like(action)
    for step in range(1, 7):
        action.requires_grad_(True)
        q1, q2 = (network.module(td["observation"], action) for network in networks)
        q = torch.min(q1, q2) if ensemble == "min" else (q1 + q2) / 2
        (gradient,) = torch.autograd.grad(-q.sum(), action)
        if max_grad_norm is not None:
            gradient = gradient * min(1.0, max_grad_norm / (gradient.norm() + 1e-6))
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient.square()
        unbiased = first / (1 - 0.9**step), second / (1 - 0.999**step)
        action = action.detach() - 0.03 * unbiased[0] / (unbiased[1].sqrt() + 1e-5)
        action = action.clamp(-1, 1)
    torch.testing.assert_close(improved, action, rtol=1e-4, atol=1e-5)
    assert (improved != td["action"]).any()


def test_data_in_double_precision(networks):
    improve, td = ActionGradient(networks, SPEC), batch()
    expected = improve(td.clone())["improved_action"]
    improved = improve(td.double())["improved_action"]
    assert improved.dtype == torch.float32
    torch.testing.assert_close(improved, expected)


def test_plain_gradient_steps(networks):
    td = batch()
    improve = ActionGradient(networks, SPEC, num_steps=1, optimizer="sgd", learning_rate=5.0)
    action = td["action"].clone().requires_grad_(True)
    q = torch.min(*(network.module(td["observation"], action) for network in networks))
    (gradient,) = torch.autograd.grad(q.sum(), action)
    expected = (td["action"] + 5.0 * gradient).clamp(-1, 1)
    torch.testing.assert_close(improve(td)["improved_action"], expected)


class Hill(nn.Module):
    """Largest at the action (0.5, 2), which lies out of bounds."""

    def forward(self, observation, action):
        return -(action - action.new_tensor([0.5, 2.0])).square().sum(-1, keepdim=True)


@pytest.mark.parametrize("size", [(), (4,), (2, 3)])
def test_reaches_the_top_within_the_bounds(size):
    network = ValueOperator(Hill(), in_keys=["observation", "action"])
    improve = ActionGradient([network], low=[-1.0, -1.0], high=[1.0, 1.5], num_steps=200)
    td = improve(batch(*size) if size else batch(1)[0])
    expected = torch.tensor([0.5, 1.5]).expand(*size, 2)
    torch.testing.assert_close(td["improved_action"], expected, atol=0.02, rtol=0)


def test_data_and_networks_stay_as_they_are(networks):
    td, improve = batch(), ActionGradient(networks, SPEC)
    before = td.clone()
    with torch.no_grad():
        improve(td)
    assert (td.select(*before.keys()) == before).all()
    assert not td["improved_action"].requires_grad and td["improved_action"].grad is None
    assert all(parameter.grad is None for parameter in improve.parameters())


def test_each_sample_climbs_alone_without_a_limit_of_the_norm(networks):
    td, improve = batch(), ActionGradient(networks, SPEC)
    together = improve(td)["improved_action"]
    torch.testing.assert_close(improve(td[:3].clone())["improved_action"], together[:3])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("max_grad_norm", [None, 0.02])
def test_a_sample_without_a_gradient_stays_and_changes_no_other(networks, max_grad_norm, optimizer):
    td = batch()
    td["observation"][3, 0] = float("nan")
    improve = ActionGradient(
        networks, SPEC, max_grad_norm=max_grad_norm, optimizer=optimizer, learning_rate=0.1
    )
    improved = improve(td)["improved_action"]
    assert torch.equal(improved[3], td["action"][3])
    others = torch.arange(16) != 3
    expected = improve(td[others].select("observation", "action"))["improved_action"]
    torch.testing.assert_close(improved[others], expected)
    assert (expected != td["action"][others]).any()


class Cliff(nn.Module):
    """Rises with the action, at the rate ``steep`` where its first number is above 0.5."""

    def __init__(self, steep):
        super().__init__()
        self.steep = steep

    def forward(self, observation, action):
        numbers = action.flatten(1)
        height = torch.where(numbers[:, :1] > 0.5, self.steep, 1.0)
        return height * numbers.sum(-1, keepdim=True)


# The squares of the second are no numbers: they would make the norm of all infinite.
@pytest.mark.parametrize("steep", [float("nan"), 1e30])
@pytest.mark.parametrize("chunk", [(), (4,)])
def test_a_gradient_that_is_lost_on_the_way_leaves_the_start(chunk, steep):
    network = ValueOperator(Cliff(steep), in_keys=["observation", "action"])
    improve = ActionGradient([network], SPEC, num_steps=10, learning_rate=0.05, max_grad_norm=1.0)
    td = TensorDict({"observation": torch.zeros(2, 3)}, [2])
    td["action"] = torch.tensor([0.4, -0.9]).reshape(2, *[1] * len(chunk), 1).expand(2, *chunk, 2)
    improved = improve(td)["improved_action"]
    assert torch.equal(improved[0], td["action"][0])
    assert (improved[1] > -0.6).all() and improved.isfinite().all()


def test_goes_on_from_its_own_entry(networks):
    options = {"num_steps": 3, "optimizer": "sgd"}
    improve = ActionGradient(networks, SPEC, action_key="improved_action", **options)
    td = batch()
    td["improved_action"] = td["action"].clone()
    improve(improve(td))
    twice = ActionGradient(networks, SPEC, **{**options, "num_steps": 6})(batch())
    torch.testing.assert_close(td["improved_action"], twice["improved_action"])


def test_chunks():
    torch.manual_seed(0)
    network = make_qvalue(3, 2, chunk_length=4, **SIZES)
    td = batch(5)
    td["action"] = torch.zeros(5, 4, 2)
    improved = ActionGradient([network], SPEC)(td)["improved_action"]
    assert improved.shape == (5, 4, 2) and improved.abs().max() > 0


# In a loss ---------------------------------------------------------------------------------


def made(**options):
    loss = make_loss(weighting="none", **options)
    TargetUpdate(loss, 0.005)
    return loss


@pytest.mark.parametrize("inside", [False, True])
def test_follows_the_current_q_networks_of_a_loss(inside):
    torch.manual_seed(0)
    actor = make_gtp_actor(3, SPEC, num_steps=2, **SIZES)
    qvalue = make_qvalue(3, 2, **SIZES)
    if inside:
        loss = GTPLoss(actor, critic=ClippedDoubleQLoss(actor, qvalue))
    else:
        loss = GTPLoss(actor, qvalue)
    improve = loss.action_gradient(num_steps=2, learning_rate=0.1)
    critic = loss.critic if inside else loss
    with torch.no_grad():
        for parameter in critic.qvalue_network_params.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    networks = []
    for member in critic.qvalue_network_params.unbind(0):
        networks.append(make_qvalue(3, 2, **SIZES))
        member.data.to_module(networks[-1])
    expected = ActionGradient(networks, SPEC, num_steps=2, learning_rate=0.1)(batch())
    got = improve(batch())
    torch.testing.assert_close(got["improved_action"], expected["improved_action"])
    assert not any(parameter.requires_grad for parameter in improve.parameters())


def test_policy_fits_improved_actions_while_the_critic_reads_those_of_the_data():
    loss, td = made(), make_batch()
    td["loss_noise"] = loss.draw_noise(td)
    expected = loss(td.clone())
    loss.set_keys(policy_action="improved_action")
    assert "improved_action" in loss.in_keys
    assert ("next", "improved_action") not in loss.in_keys
    loss.action_gradient(num_steps=5, learning_rate=0.1)(td)
    out = loss(td.clone())
    torch.testing.assert_close(out["loss_qvalue"], expected["loss_qvalue"])
    assert not torch.isclose(out["loss_flow"], expected["loss_flow"])

    loss.set_keys(policy_action=None)
    swapped = td.clone().set("action", td["improved_action"])
    torch.testing.assert_close(loss.flow_loss(swapped)[0], out["loss_flow"])
    td["improved_action"] = torch.zeros(8, 3)
    loss.set_keys(policy_action="improved_action")
    with pytest.raises(ValueError, match=r"\(policy_action\) has the shape \(8, 3\).*\(8, 2\)"):
        loss(td)
    with pytest.raises(KeyError, match="needs the entries.*improved_action"):
        loss(make_batch())


def test_masked_improved_actions_do_not_count():
    loss, td = made(), make_batch()
    loss.set_keys(policy_action="improved_action")
    td["improved_action"] = td["action"].clone()
    td["loss_noise"] = loss.draw_noise(td)
    td["collector", "mask"] = torch.arange(8) < 5
    expected = loss(td.clone())
    td["improved_action"][5:] = float("nan")
    out = loss(td)
    torch.testing.assert_close(out["loss_flow"], expected["loss_flow"])


# Bad options -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive and finite, got 0.0"),
        ({"max_grad_norm": -1.0}, "max_grad_norm must be positive"),
        ({"optimizer": "rmsprop"}, "optimizer must be 'adam' or 'sgd', got 'rmsprop'"),
        ({"ensemble": "max"}, "ensemble must be 'min' or 'mean', got 'max'"),
        ({"low": [-1.0, -1.0]}, "either from action_spec or from both low and high"),
    ],
)
def test_bad_options(networks, options, message):
    with pytest.raises(ValueError, match=message):
        ActionGradient(networks, SPEC, **options)


def test_without_networks_or_entries(networks):
    with pytest.raises(ValueError, match="at least one Q-network"):
        ActionGradient([], SPEC)
    with pytest.raises(KeyError, match=r"needs the entries \['action'\]"):
        ActionGradient(networks, SPEC)(batch().exclude("action"))
    actor = make_gtp_actor(3, SPEC, **SIZES)
    with pytest.raises(ValueError, match="no qvalue_network whose gradient"):
        GTPLoss(actor).action_gradient()
    with pytest.raises(ValueError, match="a PrecomputedAdvantage, has no Q-networks"):
        GTPLoss(actor, critic=PrecomputedAdvantage()).action_gradient()
