"""Chunks of actions: shapes, bounds, noise, candidates."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import ValueOperator

from torchrl_gtp import (
    CandidateActor,
    FlowMap,
    GTPActor,
    make_actor_critic,
    make_gtp_actor,
    make_qvalue,
)
from torchrl_gtp.flow_map import MLPBackbone, few_step_sample

LOW, HIGH = torch.tensor([-0.5, -2.0]), torch.tensor([0.5, 1.0])
SPEC = Bounded(LOW, HIGH, (2,))
LENGTH = 4


@pytest.fixture
def actor():
    torch.manual_seed(0)
    return make_gtp_actor(3, SPEC, chunk_length=LENGTH, hidden_sizes=(32,))


def make_input(*batch):
    return TensorDict({"observation": torch.randn(*batch, 3)}, batch_size=batch)


@pytest.mark.parametrize(
    ("length", "options", "expected"),
    [
        (None, {}, torch.nn.ReLU),
        (1, {}, torch.nn.ReLU),
        (2, {}, torch.nn.SiLU),
        (2, {"activation": torch.nn.ReLU}, torch.nn.ReLU),
    ],
)
@pytest.mark.parametrize("backbone", ["mlp", "ln_resnet"])
def test_sequences_have_a_smooth_activation_by_default(length, options, expected, backbone):
    actor = make_gtp_actor(
        3, SPEC, chunk_length=length, backbone=backbone, hidden_sizes=(8, 8), **options
    )
    modules = [type(module) for module in actor.flow_map.backbone.modules()]
    other = {torch.nn.ReLU: torch.nn.SiLU, torch.nn.SiLU: torch.nn.ReLU}[expected]
    assert expected in modules and other not in modules


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_chunk_has_the_batch_of_the_observation(actor, batch):
    chunk = actor(make_input(*batch))["action"]
    assert chunk.shape == (*batch, LENGTH, 2)
    assert (chunk >= LOW).all() and (chunk <= HIGH).all()


@pytest.mark.parametrize("length", [1, 4])
def test_sizes(length):
    actor = make_gtp_actor(3, SPEC, chunk_length=length, hidden_sizes=(8,))
    assert actor.chunk_length == length
    assert actor.action_dim == 2 and actor.flat_dim == 2 * length
    assert actor.event_shape == torch.Size([length, 2])
    assert actor.sample(torch.randn(5, 3)).shape == (5, length, 2)


def test_sizes_without_chunks():
    actor = make_gtp_actor(3, SPEC, hidden_sizes=(8,))
    assert actor.chunk_length is None
    assert actor.action_dim == actor.flat_dim == 2
    assert actor.event_shape == torch.Size([2])


def test_flow_map_sees_the_flat_chunk(actor):
    """Row-major: the first A numbers are the first action; the bounds repeat for each action."""
    condition, noise = torch.randn(50, 3), torch.randn(50, LENGTH, 2)
    times = actor.flow_map.noise_levels.jump_times(5)
    flat = few_step_sample(actor.flow_map, noise.reshape(50, 2 * LENGTH), condition, times)
    expected = flat.reshape(50, LENGTH, 2).clamp(LOW, HIGH)
    torch.testing.assert_close(actor.sample(condition, noise), expected)
    td = TensorDict({"observation": condition, "noise": noise}, [50])
    torch.testing.assert_close(actor(td)["action"], expected)


def test_deterministic_chunk_starts_from_zero_noise(actor):
    td = make_input(5)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        chunk = actor(td.clone())["action"]
    assert torch.equal(chunk, actor.sample(td["observation"], torch.zeros(5, LENGTH, 2)))
    assert not torch.equal(actor(td.clone())["action"], chunk)


def test_sigma_data_of_each_dimension_counts_for_each_action():
    sigma_data = torch.tensor([0.2, 0.7])
    actor = make_gtp_actor(3, SPEC, chunk_length=LENGTH, sigma_data=sigma_data, hidden_sizes=(8,))
    assert torch.equal(actor.flow_map.sigma_data.reshape(LENGTH, 2), sigma_data.expand(LENGTH, 2))
    with pytest.raises(ValueError, match="sigma_data has 2 values.*length 4 has 8 dimensions"):
        GTPActor(FlowMap(MLPBackbone(8, 3), sigma_data=sigma_data), SPEC, chunk_length=LENGTH)


@pytest.mark.parametrize("chunk_length", [0, -1, 1.5, True])
def test_bad_chunk_length(chunk_length):
    with pytest.raises(ValueError, match="chunk_length is the number H.*got"):
        make_gtp_actor(3, SPEC, chunk_length=chunk_length)
    with pytest.raises(ValueError, match="chunk_length is the number H.*got"):
        make_qvalue(3, 2, chunk_length=chunk_length)


def test_noise_of_another_shape(actor):
    with pytest.raises(ValueError, match=r"noise must have the shape \(5, 4, 2\).*\(5, 8\)"):
        actor.sample(torch.randn(5, 3), torch.randn(5, 8))


def test_actor_critic_of_chunks():
    actor, qvalue = make_actor_critic(
        Composite(observation=Unbounded(3)), SPEC, chunk_length=LENGTH, hidden_sizes=(8,)
    )
    td = make_input(5)
    assert qvalue(actor(td))["state_action_value"].shape == (5, 1)
    # Each action of the chunk counts.
    chunk = td["action"].detach().requires_grad_()
    qvalue(observation=td["observation"], action=chunk).sum().backward()
    assert (chunk.grad != 0).any(-1).all()


class LastAction(nn.Module):
    """A Q-function of the last action in the chunk alone: highest at 0."""

    def forward(self, observation, chunk):
        return -chunk[..., -1, :1].abs()


@pytest.mark.parametrize("batch", [(), (50,), (2, 25)])
def test_whole_chunks_are_candidates(actor, batch):
    qvalue = ValueOperator(LastAction(), in_keys=["observation", "action"])
    policy = CandidateActor(actor, [qvalue], num_candidates=64, temperature=0.0)
    drawn = []
    actor.flow_map.register_forward_hook(lambda module, inputs, output: drawn.append(output))
    chosen = policy(make_input(*batch))["action"]
    assert chosen.shape == (*batch, LENGTH, 2)
    candidates = drawn[-1].reshape(64, *batch, LENGTH, 2).clamp(LOW, HIGH)
    same = (candidates == chosen).flatten(-2).all(-1)
    assert same.any(0).all()  # a chunk is kept as it was drawn, not put together of several
    best = candidates[..., -1, 0].abs().amin(0)
    torch.testing.assert_close(chosen[..., -1, 0].abs(), best)
