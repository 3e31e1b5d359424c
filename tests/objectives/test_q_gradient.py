"""The gradient of Q through the sampler: Diffusion-QL's formulas, and what they train."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.data import Bounded
from torchrl.modules import ValueOperator

from tests.objectives.contract.case import total_of
from tests.objectives.gtp_cases import SIZES, make_batch, make_loss
from tests.objectives.q_gradient_cases import make_q_gradient_loss
from torchrl_gtp import GTPLoss, TargetUpdate, make_gtp_actor, make_qvalue
from torchrl_gtp.flow_map import family
from torchrl_gtp.objectives import (
    ConservativeQLoss,
    PrecomputedAdvantage,
    QGradientLoss,
    TruncatedQuantileLoss,
    q_gradient,
)

SPEC = Bounded(-1, 1, (2,))


def prepared(td, coin=None, **options):
    """The loss with critics that differ, and the batch with its draws."""
    loss = make_q_gradient_loss(**options)
    TargetUpdate(loss, 0.005)
    with torch.no_grad():
        for parameter in loss.qvalue_network_params.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    td["loss_noise"] = loss.draw_noise(td)
    if coin is not None:
        td["loss_noise", "q_coin"] = torch.full(td.batch_size, coin)
    return loss


def sampled_qvalues(loss, td):
    """Each Q-network at the policy's sample, with networks of their own."""
    actor = loss.get_stateful_net("actor_network", copy=True)
    action = actor.sample(td["observation"], td["loss_noise", "policy"])
    values = []
    for params in loss.qvalue_network_params.unbind(0):
        with params.data.to_module(loss.qvalue_network):
            inputs = TensorDict({"observation": td["observation"], "action": action}, td.batch_size)
            values.append(loss.qvalue_network(inputs)["state_action_value"].squeeze(-1))
    return actor, torch.stack(values)


@pytest.mark.parametrize("coin", [0.0, 0.49, 0.5, 1.0])
def test_term_of_diffusion_ql(coin):
    """-Q_1.mean() / |Q_2|.mean(), or the other way round; the divisor without gradient."""
    td = make_batch(16)
    loss = prepared(td, coin, q_weight=0.7)
    value, metadata = loss.q_gradient_loss(td)
    actor, qvalues = sampled_qvalues(loss, td)
    first, second = qvalues if coin < 0.5 else qvalues.flip(0)
    expected = -0.7 * first.mean() / second.abs().mean().detach()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(metadata["policy_qvalue"], qvalues.min(0).values.detach())

    value.backward()
    expected.backward()
    for name, parameter in actor.named_parameters():
        got = loss.actor_network_params[tuple(name.split("."))].grad
        assert got.abs().sum() > 0, name
        torch.testing.assert_close(got, parameter.grad)
    assert all(p.grad is None for p in loss.qvalue_network_params.parameters())


def test_linear_term():
    td = make_batch(16)
    loss = prepared(td, q_weight=0.1, q_normalization="none")
    assert "q_coin" not in td["loss_noise"].keys()
    value, _ = loss.q_gradient_loss(td)
    _, qvalues = sampled_qvalues(loss, td)
    torch.testing.assert_close(value, -0.1 * qvalues.min(0).values.mean())


def test_divisor_is_over_valid_samples():
    td = make_batch(16)
    loss = prepared(td, 0.0)
    valid = torch.arange(16) < 10
    alone = td[valid].clone()
    expected, _ = loss.q_gradient_loss(alone)
    td["collector", "mask"] = valid
    td["observation"][~valid] = 100.0
    value, _ = loss.q_gradient_loss(td)
    torch.testing.assert_close(value, expected)


def test_divisor_over_several_processes(monkeypatch):
    """Two processes with halves of a batch divide by the mean over the whole of it."""
    td = make_batch(16)
    loss = prepared(td, 0.0, sync_advantage=True)
    expected, _ = loss.q_gradient_loss(td)
    sums = []

    def add_to(total):
        def gather(parts):
            sums.append(parts)
            return parts if total is None else total

        return gather

    monkeypatch.setattr(q_gradient, "sum_over_processes", add_to(None))
    for half in (td[:8], td[8:]):
        loss.q_gradient_loss(half.clone())
    monkeypatch.setattr(q_gradient, "sum_over_processes", add_to(sums[0] + sums[1]))
    values = [loss.q_gradient_loss(half.clone())[0] for half in (td[:8], td[8:])]
    torch.testing.assert_close(sum(values) / 2, expected)


def test_one_coin_for_the_batch_and_both_sides_come_up():
    td = make_batch(16)
    loss = prepared(td)
    del td["loss_noise"]
    policy = loss.draw_noise(td)["policy"]
    seen = set()
    for _ in range(40):
        td["loss_noise"] = loss.draw_noise(td).set("policy", policy)
        seen.add(round(loss.q_gradient_loss(td)[0].item(), 5))
    assert len(seen) == 2


def test_scale_of_the_reward_does_not_matter():
    td = make_batch(16)
    loss = prepared(td, 0.0)
    expected, _ = loss.q_gradient_loss(td)
    with torch.no_grad():
        for name in ("weight", "bias"):
            loss.qvalue_network_params["module", "4", name].mul_(50.0)
    torch.testing.assert_close(loss.q_gradient_loss(td)[0], expected)


def test_terms_of_the_objective_are_those_of_cloning():
    td = make_batch()
    loss, cloning = prepared(td), make_loss("bc")
    TargetUpdate(cloning, 0.005)
    out, expected = loss(td), cloning(td)
    for name in ("loss_consistency", "loss_flow"):
        torch.testing.assert_close(out[name], expected[name])
    torch.testing.assert_close(out["loss_q_gradient"], loss.q_gradient_loss(td)[0])
    total, metadata = loss.actor_loss(td)
    parts = [metadata[f"loss_{name}"] for name in ("consistency", "flow", "q_gradient")]
    torch.testing.assert_close(total, sum(parts))


def test_weights_can_be_added():
    loss = prepared(make_batch(), weighting="truncated", eta=2.0)
    td = make_batch()
    out = loss(td)
    assert out["weight_max"] > 1 and "advantage_weight" in td.keys()
    assert out["loss_q_gradient"].isfinite()


@pytest.mark.parametrize("kind", [ConservativeQLoss, TruncatedQuantileLoss])
@pytest.mark.parametrize("q_normalization", ["other_critic", "none"])
def test_gradient_of_a_critic_inside_the_loss(kind, q_normalization):
    torch.manual_seed(0)
    actor = make_gtp_actor(3, SPEC, num_steps=2, **SIZES)
    quantiles = 5 if kind is TruncatedQuantileLoss else 1
    critic = kind(actor, make_qvalue(3, 2, num_quantiles=quantiles, **SIZES))
    loss = QGradientLoss(actor, critic=critic, q_normalization=q_normalization)
    TargetUpdate(loss, 0.005)
    out = loss(make_batch())
    out["loss_q_gradient"].backward(retain_graph=True)
    trained = {n for n, p in loss.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained and all("actor_network_params" in name for name in trained)
    total_of(out).backward()


@pytest.mark.parametrize("name", ["ddpm", "consistency"])
def test_objectives_of_the_publications(name):
    """Diffusion-QL and Consistency-AC; every step of the sampler passes the gradient on."""
    torch.manual_seed(0)
    objective, sampler, noise_levels = family(name)
    options = {"sampler": sampler, "noise_levels": noise_levels, "num_steps": 2}
    actor = make_gtp_actor(3, SPEC, **options, **SIZES)
    loss = QGradientLoss(actor, make_qvalue(3, 2, **SIZES), objective=objective)
    TargetUpdate(loss, 0.005)
    td, levels = make_batch(), []

    def watch(module, inputs, output):
        if output.requires_grad:
            output.register_hook(lambda grad: levels.append(grad.abs().sum()))

    loss.actor_network.flow_map.backbone.register_forward_hook(watch)
    loss.q_gradient_loss(td)[0].backward()
    assert len(levels) == 2 and min(levels) > 0
    total_of(loss(td)).backward()


class Hill(nn.Module):
    """A Q-function with its top at the action (0.5, -0.5), and a parameter as critics have."""

    def __init__(self):
        super().__init__()
        self.height = nn.Parameter(torch.zeros(1))

    def forward(self, observation, action):
        distance = (action - action.new_tensor([0.5, -0.5])).square().sum(-1, keepdim=True)
        return self.height - distance


def test_policy_climbs_to_where_q_is_large():
    """Cloned actions lie around 0; the Q-term moves the policy away from them."""
    torch.manual_seed(0)
    objective, sampler, _ = family("ddpm")
    actor = make_gtp_actor(1, SPEC, sampler=sampler, sigma_data=0.1, **SIZES)
    qvalue = ValueOperator(Hill(), in_keys=["observation", "action"])
    loss = QGradientLoss(actor, qvalue, objective=objective, q_weight=3.0)
    optimizer = torch.optim.Adam(loss.actor_network_params.parameters(), 1e-2)
    observation = torch.zeros(64, 1)
    start = actor.sample(observation).mean(0)
    for _ in range(100):
        td = TensorDict({"observation": observation, "action": 0.1 * torch.randn(64, 2)}, [64])
        following = {"observation": observation, "reward": torch.zeros(64, 1)}
        ends = dict.fromkeys(("done", "terminated"), torch.zeros(64, 1, dtype=torch.bool))
        td["next"] = TensorDict({**following, **ends}, [64])
        loss.actor_loss(td)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    reached = loss.get_stateful_net("actor_network").sample(observation).mean(0)
    top = torch.tensor([0.5, -0.5])
    assert (reached - top).norm() < 0.5 * (start - top).norm()


# The critic's target -----------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 10])
def test_max_q_backup_is_that_of_diffusion_ql(samples):
    """The largest value of each network over the samples first, then the smaller network."""
    td = make_batch(6)
    loss = make_loss(num_backup_samples=samples)
    TargetUpdate(loss, 0.005)
    with torch.no_grad():
        for parameter in loss.target_qvalue_network_params.values(True, True):
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    td["loss_noise"] = loss.draw_noise(td)
    observation = td["next", "observation"].repeat_interleave(samples, 0)
    noise = td["loss_noise", "backup"].reshape(-1, 2)
    action = loss.target_actor().sample(observation, noise)
    values = []
    for params in loss.target_qvalue_network_params.unbind(0):
        with params.data.to_module(loss.qvalue_network):
            inputs = TensorDict({"observation": observation, "action": action}, [6 * samples])
            out = loss.qvalue_network(inputs)["state_action_value"]
        values.append(out.view(6, samples).max(1, keepdim=True)[0])
    expected = torch.min(*values)
    torch.testing.assert_close(loss._next_value(td), expected.detach())


# Bad options -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"q_weight": -1.0}, "q_weight must be finite and at least 0, got -1.0"),
        ({"q_weight": float("inf")}, "q_weight must be finite"),
        ({"q_normalization": "own"}, r"q_normalization must be one of \('other_critic', 'none'\)"),
        ({"num_qvalue_nets": 1}, "needs at least two Q-networks, got num_qvalue_nets=1"),
        ({"mode": "bc"}, "give qvalue_network, or a critic that has them"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_q_gradient_loss(**options)


def test_a_critic_without_q_networks():
    actor = make_gtp_actor(3, SPEC, **SIZES)
    assert GTPLoss(actor, critic=PrecomputedAdvantage()).has_critic
    with pytest.raises(ValueError, match="got critic=PrecomputedAdvantage"):
        QGradientLoss(actor, critic=PrecomputedAdvantage())


def test_a_single_network_has_a_linear_term():
    loss = make_q_gradient_loss(num_qvalue_nets=1, q_normalization="none")
    TargetUpdate(loss, 0.005)
    assert loss(make_batch())["loss_q_gradient"].isfinite()
