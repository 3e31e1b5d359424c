"""Chunks and warm starts in environments, with TorchRL's own tools."""

from __future__ import annotations

import pytest
import torch
from torchrl.collectors import Collector
from torchrl.envs import Compose, GymEnv, InitTracker, SerialEnv, StepCounter, TransformedEnv
from torchrl.envs.transforms import MultiAction
from torchrl.envs.utils import ExplorationType
from torchrl.modules import MultiStepActorWrapper

from torchrl_gtp import CandidateActor, WarmStartActor, make_gtp_actor, make_qvalue

LENGTH, EPISODE = 4, 7


def make_env(num_envs=2, *transforms):
    """Batched, because MultiStepActorWrapper needs a batch dimension."""
    env = SerialEnv(
        num_envs, lambda: TransformedEnv(GymEnv("Pendulum-v1"), StepCounter(max_steps=EPISODE))
    )
    return TransformedEnv(env, Compose(InitTracker(), *transforms))


@pytest.fixture
def actor():
    torch.manual_seed(0)
    spec = GymEnv("Pendulum-v1").action_spec
    return make_gtp_actor(3, spec, chunk_length=LENGTH, num_steps=1, hidden_sizes=(16,))


def collect(env, policy, frames=40):
    collector = Collector(
        env,
        policy,
        frames_per_batch=frames,
        total_frames=frames,
        exploration_type=ExplorationType.RANDOM,
        auto_register_policy_transforms=False,
    )
    (data,) = list(collector)
    collector.shutdown()
    return data


@pytest.mark.parametrize("interval", [None, 1, 2, 4])
def test_receding_horizon(actor, interval):
    """The wrapper asks for a chunk every `interval` steps and at each reset, and hands it out."""
    calls = []
    actor.flow_map.register_forward_hook(lambda module, inputs, output: calls.append(output))
    policy = MultiStepActorWrapper(actor, n_steps=LENGTH, replan_interval=interval)
    env = make_env()
    policy(env.reset())
    calls.clear()
    data = env.rollout(2 * EPISODE, policy, break_when_any_done=False)
    interval = interval or LENGTH
    assert len(calls) == 2 * -(-EPISODE // interval)
    for step in range(2 * EPISODE):
        position = step % EPISODE % interval
        chunk = data["action_orig"][:, step]
        assert torch.equal(data["action"][:, step], chunk[:, position])
        if position:
            assert torch.equal(chunk, data["action_orig"][:, step - 1])


@pytest.mark.parametrize("candidates", [False, True])
def test_collector_with_the_wrapper(actor, candidates):
    policy = actor
    if candidates:
        qvalue = make_qvalue(3, 1, chunk_length=LENGTH, hidden_sizes=(8,))
        policy = CandidateActor(actor, [qvalue], num_candidates=3)
    data = collect(make_env(), MultiStepActorWrapper(policy, n_steps=LENGTH, replan_interval=2))
    assert data["action"].shape == (2, 20, 1)
    assert data["action_orig"].shape == (2, 20, LENGTH, 1)
    index = (data["counter"] - 1).long().unsqueeze(-2)
    assert torch.equal(data["action"], data["action_orig"].gather(-2, index).squeeze(-2))
    assert data["counter"].max() == 2
    new_plan = data["counter"] == 1
    assert new_plan[data["is_init"]].all()


def test_collector_with_multi_action(actor):
    """One outer step runs a chunk; an episode of 7 steps is a chunk of 4 and one cut to 3."""
    env = make_env(2, MultiAction(stack_rewards=False))
    data = collect(env, actor, frames=8)
    assert data["action"].shape == (2, 4, LENGTH, 1)
    assert data["next", "step_count"][0].flatten().tolist() == [4, 7, 4, 7]
    assert data["next", "done"][0].flatten().tolist() == [False, True, False, True]


@pytest.mark.parametrize("num_envs", [0, 2])
def test_warm_start_in_a_collector(num_envs):
    """At level 0 nothing is changed, so an episode repeats its first action."""
    if num_envs:
        env = make_env(num_envs)
    else:
        env = TransformedEnv(GymEnv("Pendulum-v1"), Compose(InitTracker(), StepCounter(EPISODE)))
    spec = GymEnv("Pendulum-v1").action_spec
    actor = make_gtp_actor(3, spec, num_steps=2, hidden_sizes=(16,))
    data = collect(env, WarmStartActor(actor, 0.0), frames=28)
    action = data["action"].reshape(-1, EPISODE)
    torch.testing.assert_close(action, action[:, :1].expand(-1, EPISODE))
    assert action[:, 0].unique().numel() == action.shape[0]  # each episode has its own


def test_warm_start_of_chunks_in_a_collector(actor):
    """At level 0 a new plan is the rest of the old one, its last action repeated."""
    interval = 2
    inner = WarmStartActor(actor, 0.0, replan_interval=interval, previous_key="action_orig")
    policy = MultiStepActorWrapper(inner, n_steps=LENGTH, replan_interval=interval)
    data = collect(make_env(), policy, frames=2 * EPISODE)
    plans = data["action_orig"]
    for step in range(interval, EPISODE, interval):
        expected = torch.cat(
            [plans[:, step - 1, interval:], plans[:, step - 1, -1:].expand(2, interval, 1)], 1
        )
        torch.testing.assert_close(plans[:, step], expected)


def test_one_environment(actor):
    policy = MultiStepActorWrapper(actor, n_steps=LENGTH)
    assert make_env(1).rollout(3, policy)["action"].shape == (1, 3, 1)
