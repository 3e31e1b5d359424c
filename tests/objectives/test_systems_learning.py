"""Each system learns a contextual bandit better than cloning does."""

from __future__ import annotations

import functools

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded, LazyTensorStorage, TensorDictReplayBuffer

from torchrl_gtp import (
    GTPLoss,
    NoiseLevels,
    QGradientLoss,
    TargetUpdate,
    make_gtp_actor,
    make_qvalue,
    make_value,
)
from torchrl_gtp.data import copy_entry, write_entry
from torchrl_gtp.flow_map import (
    Consistency,
    ConsistencySampler,
    KarrasGridTimes,
    Objective,
    RestartedTimes,
    family,
)
from torchrl_gtp.training import Update

SPEC, SIZES, UPDATES = Bounded(-1, 1, (2,)), {"hidden_sizes": (64, 64)}, 600


def reward_of(observation, action):
    """Largest, 0, at an action that depends on the observation; -0.58 on average in the data."""
    best = torch.cat([0.5 * observation + 0.3, torch.full_like(observation, -0.3)], -1)
    return -(action - best).square().sum(-1, keepdim=True)


def make_buffer():
    count = 20_000
    observation = torch.rand(count, 1) * 2 - 1
    action = (0.4 * torch.randn(count, 2)).clamp(-1, 1)
    ends = torch.ones(count, 1, dtype=torch.bool)
    following = {"observation": observation, "reward": reward_of(observation, action)}
    data = {"observation": observation, "action": action}
    data["next"] = {**following, "done": ends, "terminated": ends.clone()}
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(count), batch_size=256)
    buffer.extend(TensorDict(data, [count]))
    return buffer


def ddpm_actor(**options):
    _, sampler, _ = family("ddpm")
    return make_gtp_actor(1, SPEC, sampler=sampler, sigma_data=0.4, **{**SIZES, **options})


def q():
    return make_qvalue(1, 2, **SIZES)


def cloning():
    return GTPLoss(ddpm_actor(), q(), objective=family("ddpm").objective, weighting="none")


def awr():
    objective = family("ddpm").objective
    return GTPLoss(ddpm_actor(), q(), objective=objective, weighting="exponential", eta=5.0)


def diffusion_ql():
    return QGradientLoss(ddpm_actor(), q(), objective=family("ddpm").objective, q_weight=2.0)


def consistency_ac():
    times = KarrasGridTimes(1, 149, end="data", growth="square_root")
    consistency = Consistency(RestartedTimes(times, periods=2), "gap", robust_power=0.0)
    actor = make_gtp_actor(
        1,
        SPEC,
        sampler=ConsistencySampler(levels=(80.0, 2.0)),
        noise_levels=NoiseLevels(sigma_max=80.0),
        sigma_data=0.4,
        num_steps=2,
        **SIZES,
    )
    objective = Objective({"consistency": consistency}, "ema")
    return QGradientLoss(actor, q(), objective=objective, q_weight=0.02)


def idql():
    actor = ddpm_actor(backbone="ln_resnet", dropout=0.1)
    networks = q(), make_value(1, **SIZES)
    objective = family("ddpm").objective
    return GTPLoss(actor, *networks, objective=objective, weighting="none", expectile=0.7)


def greedy(loss, **options):
    return loss.candidate_actor(16, **options)


SYSTEMS = {
    "awr": (awr, GTPLoss.target_actor),
    "diffusion_ql": (diffusion_ql, GTPLoss.target_actor),
    "consistency_ac": (consistency_ac, GTPLoss.target_actor),
    "idql": (idql, functools.partial(greedy, selection="greedy")),
    "dipo": (cloning, GTPLoss.target_actor),
}


@functools.cache
def score(name):
    torch.manual_seed(0)
    make, policy = SYSTEMS.get(name, (cloning, GTPLoss.target_actor))
    loss, buffer = make(), make_buffer()
    improve = None
    if name == "dipo":
        copy_entry(buffer, "action", "improved_action")
        loss.set_keys(policy_action="improved_action")
        improve = loss.action_gradient(
            num_steps=10, max_grad_norm=0.2, action_key="improved_action"
        )
    optimizer = torch.optim.Adam(loss.parameters(), 2e-3)
    update = Update(loss, optimizer, TargetUpdate(loss, 0.02), num_updates=UPDATES)
    for _ in range(UPDATES):
        batch = buffer.sample()
        if improve is not None:
            improve(batch)
            write_entry(buffer, batch, "improved_action")
        update(batch)
    observation = torch.rand(2_000, 1) * 2 - 1
    action = policy(loss)(TensorDict({"observation": observation}, [2_000]))["action"]
    return reward_of(observation, action).mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_better_than_cloning(name):
    cloned, improved = score("cloning"), score(name)
    # Five levels of DDPM have about half of the data's spread.
    assert cloned == pytest.approx(-0.37, abs=0.08)
    assert improved > 0.6 * cloned, (cloned, improved)
