"""Warm starts: levels, times, exploration types, resets, environments."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.data import Bounded
from torchrl.envs.utils import ExplorationType, set_exploration_type

from torchrl_gtp import GTPActor, NoiseLevels, WarmStartActor, make_gtp_actor
from torchrl_gtp.flow_map import few_step_sample

SPEC = Bounded(-1, 1, (2,))
SIGMA_MAX = 3.0


@pytest.fixture(params=[None, 3])
def actor(request):
    torch.manual_seed(0)
    return make_gtp_actor(3, SPEC, chunk_length=request.param, hidden_sizes=(32,))


def make_input(actor, *batch):
    td = TensorDict({"observation": torch.randn(*batch, 3)}, batch_size=batch)
    return td, torch.randn(*batch, *actor.event_shape), torch.rand(*batch, *actor.event_shape)


@pytest.mark.parametrize("num_steps", [1, 2, 4])
@pytest.mark.parametrize("level", [0.7, torch.tensor(0.7)])
def test_jumps_go_from_the_noisy_start(actor, num_steps, level):
    td, noise, start = make_input(actor, 5)
    times = NoiseLevels().jump_times(num_steps, start=0.7)
    assert times.shape == (num_steps + 1,) and times[0] == pytest.approx(0.7) and times[-1] == 0
    flat = few_step_sample(
        actor.flow_map, noise.reshape(5, -1), td["observation"], times, start.reshape(5, -1)
    )
    expected = flat.reshape(start.shape).clamp(-1, 1)
    action = actor.sample(td["observation"], noise, num_steps, start=start, start_level=level)
    torch.testing.assert_close(action, expected)
    entries = TensorDict({"noise": noise, "start_action": start}, [5])
    entries["start_level"] = torch.full((5, 1), 0.7)
    torch.testing.assert_close(actor(td.update(entries), num_steps=num_steps)["action"], expected)


class Gaussian(nn.Module):
    """The exact flow map of data ~ N(0, 0.5^2)."""

    noise_levels = NoiseLevels()
    sigma_data = torch.tensor(0.5)

    def forward(self, action_t, t, s, condition=None):
        return ((0.25 + s**2) / (0.25 + t**2)).sqrt() * action_t


def test_exact_map_in_closed_form():
    """a_0 = sqrt(var / (var + t^2)) (a_previous + t z), whatever the number of jumps."""
    actor = GTPActor(Gaussian(), low=[-9.0, -9.0], high=[9.0, 9.0])
    start, noise, level = torch.randn(7, 2), torch.randn(7, 2), torch.rand(7, 1)
    expected = (0.25 / (0.25 + level**2)).sqrt() * (start + level * noise)
    for num_steps in (1, 3):
        action = actor.sample(torch.zeros(7, 1), noise, num_steps, start=start, start_level=level)
        torch.testing.assert_close(action, expected, rtol=1e-5, atol=1e-5)


def test_rows_of_a_batch_have_their_own_levels(actor):
    td, noise, start = make_input(actor, 4)
    level = torch.tensor([[0.0], [0.001], [0.5], [SIGMA_MAX]])
    action = actor.sample(td["observation"], noise, start=start, start_level=level)
    for i in range(4):
        alone = actor.sample(
            td["observation"][i], noise[i], start=start[i], start_level=level[i].item()
        )
        torch.testing.assert_close(action[i], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(action[0], start[0])  # level 0 changes nothing
    torch.testing.assert_close(action[1], start[1], atol=0.01, rtol=0)


def test_zero_at_the_highest_level_is_the_usual_start(actor):
    td, noise, start = make_input(actor, 4)
    usual = actor.sample(td["observation"], noise)
    warm = actor.sample(
        td["observation"], noise, start=torch.zeros_like(start), start_level=SIGMA_MAX
    )
    assert torch.equal(warm, usual)


@pytest.mark.parametrize("kind", [ExplorationType.DETERMINISTIC, ExplorationType.MODE])
def test_deterministic_types_add_no_noise(actor, kind):
    td, _, start = make_input(actor, 4)
    with set_exploration_type(kind):
        action = actor(td.clone(), start=start, start_level=0.5)["action"]
    expected = actor.sample(
        td["observation"], torch.zeros_like(start), start=start, start_level=0.5
    )
    assert torch.equal(action, expected)


@pytest.mark.parametrize("level", [-0.1, 10.1, float("nan")])
def test_numbers_out_of_range(actor, level):
    td, _, start = make_input(actor, 4)
    with pytest.raises(ValueError, match="noise level in.*sigma_max=3.0.*got"):
        actor.sample(td["observation"], start=start, start_level=level)
    with pytest.raises(ValueError, match="start_level must be a noise level"):
        WarmStartActor(actor, level)


def test_tensors_out_of_range_are_clamped():
    times = NoiseLevels().jump_times(2, start=torch.tensor([[-1.0], [1e-4], [50.0]]))
    assert times.shape == (3, 3, 1)
    assert times[:, 0].abs().max() == 0 and times[0, 2] == pytest.approx(SIGMA_MAX)
    assert (times[:-1] >= times[1:]).all()


def test_incomplete_and_misshapen_starts(actor):
    td, _, start = make_input(actor, 4)
    with pytest.raises(ValueError, match="got only start"):
        actor(td, start=start)
    with pytest.raises(ValueError, match="got only start_level"):
        actor(td.clone().set("start_level", torch.ones(4, 1)))
    with pytest.raises(ValueError, match="start must have the shape"):
        actor(td, start=start[..., :1], start_level=0.5)
    with pytest.raises(ValueError, match=r"start_level must have the shape \(\) or \(4, 1\)"):
        actor(td, start=start, start_level=torch.ones(4))


def test_other_keys():
    actor = make_gtp_actor(3, SPEC, hidden_sizes=(8,))
    renamed = GTPActor(
        actor.flow_map, SPEC, start_key=("warm", "action"), start_level_key=("warm", "level")
    )
    td, noise, start = make_input(actor, 4)
    expected = actor.sample(td["observation"], noise, start=start, start_level=0.5)
    td["start_action"] = torch.randn(4, 9)  # a sensor of that name
    td["warm"] = TensorDict({"action": start, "level": torch.full((4, 1), 0.5)}, [4])
    torch.testing.assert_close(renamed(td, noise=noise)["action"], expected)


def test_policy_restarts_where_an_episode_begins(actor):
    policy = WarmStartActor(actor, 0.3)
    td, noise, previous = make_input(actor, 2)
    td["noise"] = noise
    cold = actor.sample(td["observation"], noise)
    td["is_init"] = torch.zeros(2, 1, dtype=torch.bool)
    first = policy(td.clone())  # no action before: cold, whatever is_init says
    torch.testing.assert_close(first["action"], cold)
    td["previous_action"] = previous
    td["is_init"] = torch.tensor([[True], [False]])
    action = policy(td)["action"]
    torch.testing.assert_close(action[0], cold[0])
    start = previous if actor.chunk_length is None else previous[:, -1:].expand_as(previous)
    warm = actor.sample(td["observation"], noise, start=start, start_level=0.3)
    torch.testing.assert_close(action[1], warm[1])
    assert torch.equal(td["previous_action"], action)


def test_executed_actions_are_cut_off_the_chunk():
    actor = make_gtp_actor(3, SPEC, chunk_length=4, hidden_sizes=(8,))
    policy = WarmStartActor(actor, 0.0, replan_interval=3)  # level 0 keeps the start
    td, _, _ = make_input(actor)
    td["previous_action"] = torch.tensor([0.1, 0.2, 0.3, 0.4]).unsqueeze(-1).expand(4, 2).clone()
    td["is_init"] = torch.zeros(1, dtype=torch.bool)
    assert policy(td)["action"][:, 0].tolist() == pytest.approx([0.4] * 4)
    td["previous_action"] = torch.tensor([0.1, 0.2, 0.3, 0.4]).unsqueeze(-1).expand(4, 2).clone()
    policy.replan_interval = 1
    assert policy(td)["action"][:, 0].tolist() == pytest.approx([0.2, 0.3, 0.4, 0.4])
    with pytest.raises(ValueError, match=r"replan_interval must be in \[1, 4\]"):
        WarmStartActor(actor, 0.5, replan_interval=5)


def test_missing_init_entry(actor):
    with pytest.raises(KeyError, match="InitTracker"):
        WarmStartActor(actor, 0.5)(make_input(actor, 4)[0])
