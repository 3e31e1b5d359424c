"""Data that hold less than a method wants: no NaN, and what can be learned is learned."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded

from torchrl_gtp import (
    GTPActor,
    GTPLoss,
    NoiseLevels,
    TargetUpdate,
    make_gtp_actor,
    make_qvalue,
    make_value,
    paper_options,
)
from torchrl_gtp.flow_map import action_scale
from torchrl_gtp.training import Update, make_optimizer


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def transitions(observation, action):
    num_rows = len(action)
    ended = torch.zeros(num_rows, 1, dtype=torch.bool)
    following = {"observation": observation.roll(-1, 0), "done": ended, "terminated": ended.clone()}
    reward = action.sum(-1, keepdim=True)
    return TensorDict(
        {"observation": observation, "action": action, "next": {**following, "reward": reward}},
        [num_rows],
    )


def train(
    data, *, critic: bool, value: bool = False, paper: bool = False, num_updates: int = 60
) -> GTPActor:
    """Trains on ``data`` and fails at the first number that is not finite."""
    observation_dim, action_dim = data["observation"].shape[-1], data["action"].shape[-1]
    actor = make_gtp_actor(
        observation_dim,
        Bounded(-1, 1, (action_dim,)),
        sigma_data=action_scale(data["action"]),
        noise_levels=NoiseLevels(sigma_max=80.0) if paper else None,
        hidden_sizes=(64, 64),
    )
    qvalue = make_qvalue(observation_dim, action_dim, hidden_sizes=(64,)) if critic else None
    state_value = make_value(observation_dim, hidden_sizes=(64,)) if value else None
    options = paper_options() if paper else {"eta": 3.0}
    loss = GTPLoss(actor, qvalue, state_value, **options)
    update = Update(
        loss,
        make_optimizer(loss, 3e-3),
        TargetUpdate(loss, 0.05),
        num_updates=num_updates,
    )
    for _ in range(num_updates):
        losses = update(data[torch.randint(len(data), (64,))])
        assert all(value.isfinite().all() for value in losses.values())
    assert all(parameter.isfinite().all() for parameter in loss.parameters())
    return loss.target_actor()


@torch.no_grad()
def samples(actor: GTPActor, observation, num_steps: int):
    action = actor.sample(observation, num_steps=num_steps)
    assert action.isfinite().all() and action.abs().max() <= 1
    return action


@pytest.mark.parametrize(("critic", "constant"), [(False, 0.0), (False, 0.9), (True, -1.0)])
def test_a_dimension_that_never_changes(critic, constant):
    varying = 0.5 * torch.randn(500, 1).clamp(-1.5, 1.5)
    action = torch.cat([varying, torch.full((500, 1), constant)], -1)
    actor = train(transitions(torch.randn(500, 3), action), critic=critic, num_updates=400)
    for num_steps in (2, 5):
        drawn = samples(actor, torch.randn(200, 3), num_steps)
        assert (drawn[:, 1] - constant).abs().mean() < 0.15
        assert 0.3 < drawn[:, 0].std() / varying.std() < 1.5


@pytest.mark.parametrize("critic", [False, True])
def test_actions_that_are_all_the_same(critic):
    action = torch.full((300, 2), 0.3)
    data = transitions(torch.randn(300, 3), action)
    actor = train(data, critic=critic, num_updates=150)
    assert (samples(actor, torch.randn(100, 3), 2) - 0.3).abs().mean() < 0.1


@pytest.mark.parametrize(
    ("critic", "value", "num_updates"),
    # Large inputs need more updates: networks start as if inputs were of size 1.
    [(False, 0.0, 150), (False, 1e3, 150), (True, 0.0, 150), (True, 1e3, 300)],
)
def test_observations_that_are_all_the_same(critic, value, num_updates):
    action = (torch.tensor([0.4, -0.3]) + 0.2 * torch.randn(500, 2)).clamp(-1, 1)
    data = transitions(torch.full((500, 3), value), action)
    actor = train(data, critic=critic, num_updates=num_updates)
    drawn = samples(actor, torch.full((400, 3), value), 2)
    mean, std = action.mean(0), action.std(0)
    # Neither zeros nor the bounds would be so near.
    assert (drawn.mean(0) - mean).abs().max() < 0.25
    if not critic:
        assert (drawn.std(0) / std - 1).abs().max() < 0.5
    elif value == 0:  # The reward is the sum of the action.
        assert drawn.sum(-1).mean() > action.sum(-1).mean()


@pytest.mark.parametrize("critic", [False, True])
@pytest.mark.parametrize("num_rows", [1, 2, 32])
def test_a_handful_of_transitions(critic, num_rows):
    action = torch.rand(num_rows, 2) * 2 - 1
    data = transitions(torch.randn(num_rows, 3), action)
    actor = train(data, critic=critic, num_updates=150)
    drawn = samples(actor, data["observation"], 2)
    assert (drawn - action).abs().mean() < (0.15 if num_rows <= 2 else 0.5)


def published_sets() -> dict[str, TensorDict]:
    torch.manual_seed(0)
    observation, action = torch.randn(64, 3), torch.rand(64, 2) * 2 - 1
    one, few = transitions(observation[:1], action[:1]), transitions(observation[:2], action[:2])
    alike = one.expand(64).clone()
    nearly = alike.clone()
    nearly["observation"] += 1e-4 * observation
    return {
        "one row": one,
        "two rows": few,
        "equal rows": alike,
        "nearly equal rows": nearly,
        "equal actions": transitions(observation, action[:1].expand(64, 2)),
        "equal observations": transitions(observation[:1].expand(64, 3), action),
        "large observations": transitions(torch.full((64, 3), 1e3), action),
        "no actions but 0": transitions(observation, torch.zeros(64, 2)),
    }


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("name", published_sets())
def test_the_published_setting_has_finite_weights(name, value):
    """It has no bound of the weights, and divides by a deviation that is 0 here."""
    options = {"critic": True, "value": value, "paper": True, "num_updates": 15}
    actor = train(published_sets()[name], **options)
    samples(actor, torch.randn(20, 3), 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_actions_that_are_not_finite_are_refused_before_training(value):
    action = torch.rand(32, 2)
    action[7, 1] = value
    with pytest.raises(ValueError, match="1 of 32 actions are not, the first at row 7"):
        train(transitions(torch.randn(32, 3), action), critic=False)
