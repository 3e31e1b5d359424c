"""The formulas of the critics, against plain computations."""

from __future__ import annotations

import math

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.modules import ProbabilisticActor, TanhNormal
from torchrl.objectives import TQCLoss

from tests.objectives.critic_cases import make_critic
from tests.objectives.gtp_cases import SIZES, make_batch
from torchrl_gtp import TargetUpdate, make_qvalue

GAMMA = 0.9


@pytest.fixture
def td() -> TensorDict:
    td = make_batch(6)
    td["next", "done"] = torch.tensor([0, 1, 1, 0, 0, 1], dtype=torch.bool).unsqueeze(-1)
    td["next", "terminated"] = torch.tensor([0, 1, 0, 0, 0, 0], dtype=torch.bool).unsqueeze(-1)
    return td


def prepared(name, td, **options):
    loss = make_critic(name, **options)
    loss.make_value_estimator(gamma=GAMMA)
    TargetUpdate(loss, 0.005)
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    td["loss_noise"] = loss.draw_noise(td)
    return loss


def outputs(loss, params, observation, action):
    """The outputs of all Q-networks, one after the other."""
    inputs = TensorDict({"observation": observation, "action": action}, observation.shape[:-1])
    values = []
    for member in params.unbind(0):
        with member.to_module(loss.qvalue_network):
            values.append(loss.qvalue_network(inputs.clone())["state_action_value"])
    return torch.stack(values).detach()


def next_action(loss, td):
    return loss.target_actor().sample(td["next", "observation"], td["loss_noise", "backup"][:, 0])


def bootstrapped(td, value):
    alive = 1 - td["next", "terminated"].float()
    return td["next", "reward"] + GAMMA * alive * value


def test_redq_takes_the_minimum_over_a_subset_drawn_for_each_sample(td):
    loss = prepared("redq", td)
    following = outputs(
        loss, loss.target_qvalue_network_params, td["next", "observation"], next_action(loss, td)
    ).squeeze(-1)
    subsets = td["loss_noise", "qvalue_subset"].argsort(-1)[:, :2]
    assert len({tuple(sorted(subset.tolist())) for subset in subsets}) > 1
    value = torch.stack([following[subset, i].min() for i, subset in enumerate(subsets)])
    target = bootstrapped(td, value.unsqueeze(-1)).squeeze(-1)
    current = outputs(loss, loss.qvalue_network_params, td["observation"], td["action"]).squeeze(-1)
    loss_qvalue, metadata = loss.qvalue_loss(td)
    torch.testing.assert_close(loss_qvalue, (current - target).square().sum(0).mean())
    torch.testing.assert_close(metadata["qvalue"], current.mean(0))

    action = loss.target_actor().sample(td["observation"], td["loss_noise", "value"][:, 0])
    value = outputs(loss, loss.qvalue_network_params, td["observation"], action).squeeze(-1)
    torch.testing.assert_close(loss.advantage(td), current.mean(0) - value.mean(0))


def test_subsets_of_redq_are_uniform():
    loss, td = make_critic("redq"), make_batch(6000)
    TargetUpdate(loss, 0.005)
    td["loss_noise"] = loss.draw_noise(td)
    labels = torch.arange(4.0).reshape(4, 1, 1).expand(4, 1, 6000)
    smallest = loss._target_qvalue(td, labels).squeeze(0)
    # Of the six pairs, three have the smallest label 0, two 1 and one 2.
    shares = torch.bincount(smallest.long(), minlength=4) / 6000
    torch.testing.assert_close(shares, torch.tensor([3, 2, 1, 0]) / 6, atol=0.03, rtol=0)


def test_td3_smooths_the_policy_of_the_target(td):
    loss = prepared("double_q", td, policy_noise=0.8, noise_clip=0.5)
    noise = (0.8 * td["loss_noise", "policy_noise"][:, 0]).clamp(-0.5, 0.5)
    action = (next_action(loss, td) + noise).clamp(-1, 1)
    assert (action.abs() == 1).any() and (noise.abs() == 0.5).any() and (noise.abs() < 0.5).any()
    params = loss.target_qvalue_network_params
    value = outputs(loss, params, td["next", "observation"], action).amin(0)
    current = outputs(loss, loss.qvalue_network_params, td["observation"], td["action"])
    error = (current - bootstrapped(td, value)).square().sum(0).mean()
    torch.testing.assert_close(loss.qvalue_loss(td)[0], error)


def test_conservative_term(td):
    """alpha (T log mean exp(Q / T) - Q(data)), over uniform actions and those of the policy."""
    loss = prepared(
        "conservative",
        td,
        conservative_weight=3.0,
        conservative_temperature=0.5,
        num_conservative_samples=4,
    )
    actor, noise = loss.target_actor(), td["loss_noise"]
    proposals = []
    for i in range(4):
        present = actor.sample(td["observation"], noise["cql_present"][:, i])
        following = actor.sample(td["next", "observation"], noise["cql_following"][:, i])
        following = torch.where(td["next", "terminated"], present, following)
        proposals += [2 * noise["cql_uniform"][:, i] - 1, present, following]
    params = loss.qvalue_network_params
    values = torch.stack([outputs(loss, params, td["observation"], a) for a in proposals])
    log_mean = torch.logsumexp(values / 0.5, 0) - math.log(12)
    data = outputs(loss, params, td["observation"], td["action"])
    expected = 3.0 * (0.5 * log_mean - data).sum(0).mean()
    torch.testing.assert_close(loss.cql_loss(td)[0], expected)
    td["next", "observation"][1] = torch.nan  # beyond a true end
    torch.testing.assert_close(loss.cql_loss(td)[0], expected)
    loss.conservative_weight = 0.0
    assert loss.cql_loss(td)[0] == 0


def test_conservative_term_lowers_q_away_from_the_data():
    torch.manual_seed(0)
    loss, td = make_critic("conservative"), make_batch(64)
    TargetUpdate(loss, 0.005)
    optimizer = torch.optim.Adam(loss.qvalue_network_params.parameters(), 1e-2)
    gaps = []
    for _ in range(100):
        loss_cql, _ = loss.cql_loss(td)
        loss_cql.backward()
        optimizer.step()
        optimizer.zero_grad()
        params, away = loss.qvalue_network_params, torch.rand(64, 2) * 2 - 1
        data = outputs(loss, params, td["observation"], td["action"])
        gaps.append((data - outputs(loss, params, td["observation"], away)).mean())
    assert gaps[-1] > gaps[0] + 0.1


class FixedPolicy(nn.Module):
    """All but deterministic: the mean is given, the deviation too small to matter."""

    def __init__(self, action):
        super().__init__()
        self.action = action

    def forward(self, observation):
        loc = torch.atanh(self.action.clamp(-0.999, 0.999))
        return loc, torch.full_like(loc, 1e-6)


def test_truncated_quantiles_agree_with_torchrl(td):
    """On one action for each next state, and with an entropy coefficient of all but zero."""
    loss = prepared("quantiles", td, policy_noise=0.0, num_dropped_quantiles=1)
    action = next_action(loss, td).clamp(-0.999, 0.999)
    actor = ProbabilisticActor(
        TensorDictModule(FixedPolicy(action), ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        return_log_prob=True,
    )
    theirs = TQCLoss(
        actor,
        qvalue_network=make_qvalue(3, 2, num_quantiles=5, **SIZES),
        num_qvalue_nets=2,
        top_quantiles_to_drop_per_net=1,
        alpha_init=1e-9,
        min_alpha=1e-9,
        fixed_alpha=True,
        action_spec=None,
        target_entropy=0.0,
    )
    theirs.make_value_estimator(gamma=GAMMA)
    TargetUpdate(theirs, 0.005)
    theirs.qvalue_network_params.data.copy_(loss.qvalue_network_params.data)
    theirs.target_qvalue_network_params.data.copy_(loss.target_qvalue_network_params.data)
    expected, metadata = theirs.qvalue_v2_loss(td.exclude("loss_noise"))
    got, ours = loss.qvalue_loss(td)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours["td_error"], metadata["td_error"], rtol=1e-4, atol=1e-6)


def test_quantiles_are_pooled_before_the_highest_are_dropped(td):
    loss = prepared("quantiles", td, policy_noise=0.0, num_dropped_quantiles=2)
    params, observation = loss.target_qvalue_network_params, td["next", "observation"]
    quantiles = outputs(loss, params, observation, next_action(loss, td))
    pooled = torch.cat(list(quantiles), -1).sort(-1).values[:, :6]
    torch.testing.assert_close(loss._td_target(td), bootstrapped(td, pooled))
