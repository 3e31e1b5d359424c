"""The data sets of the few-step benchmark are what they say."""

from __future__ import annotations

import math
import warnings

import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from benchmarks.few_step import evaluation
from benchmarks.few_step.demonstrations import MinariSet
from benchmarks.few_step.evaluation import compare, measure_floor
from benchmarks.few_step.method import Network, make_actor, make_loss
from benchmarks.few_step.methods import METHODS
from benchmarks.few_step.planar import PLANAR_SETS, PlanarSet
from benchmarks.few_step.sets import make_set
from benchmarks.few_step.shapes import SHAPES
from benchmarks.few_step.training import make_batch


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def write_dataset(dataset_id, num_episodes=20, length=60):
    """Random walks; an action is half of its state, plus noise."""
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(num_episodes):
        states = rng.normal(size=(length + 1, 3)).cumsum(0)
        actions = (0.5 * np.sin(states[:-1, :2]) + 0.1 * rng.normal(size=(length, 2))).clip(-1, 1)
        last = np.arange(length) == length - 1
        episodes.append(
            EpisodeBuffer(
                observations=states,
                actions=actions.astype(np.float32),
                rewards=np.zeros(length),
                terminations=np.zeros(length, dtype=bool),
                truncations=last,
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari asks for author, e-mail, permalink ...
        minari.create_dataset_from_buffers(
            dataset_id,
            episodes,
            observation_space=spaces.Box(-np.inf, np.inf, (3,), np.float64),
            action_space=spaces.Box(-1.0, 1.0, (2,), np.float32),
        )


@pytest.mark.parametrize("name", PLANAR_SETS)
def test_planar_sets_stay_within_the_bounds_and_know_their_spread(name):
    data = PlanarSet(name)
    condition, action, _ = data.draw(20_000)
    assert condition.shape == (20_000, 1) and action.shape == (20_000, 2)
    assert action.abs().max() <= 1
    assert data.sigma_data == pytest.approx(action.std().item(), rel=0.02)


@pytest.mark.parametrize("name", PLANAR_SETS)
def test_two_draws_of_the_data_are_at_the_noise_floor(name, monkeypatch):
    """Two draws of N points are 2 E|X - X'| / N apart on average, under each condition."""
    # One pair errs by half of it, many small ones together by little.
    monkeypatch.setattr(evaluation, "_FLOOR_DRAWS", 200)
    data, num_samples = PlanarSet(name), 100
    floor = measure_floor(data, num_samples)
    reference = data.reference(2_000)
    action, group = reference.first.action, reference.group
    apart = torch.stack([torch.pdist(action[group == one]).mean() for one in group.unique()])
    expected = 2 * apart.mean().item() / num_samples
    assert floor["energy_distance"] == pytest.approx(expected, rel=0.15)
    if PLANAR_SETS[name].modes is not None:
        assert floor["share_on_mode"] == pytest.approx(1 - math.exp(-4.5), abs=0.003)
        covered = compare(action, reference)["modes_covered"]
        assert covered == len(PLANAR_SETS[name].modes)


@pytest.mark.parametrize("name", sorted(PLANAR_SETS.keys() - {"ring"}))
def test_the_condition_matters(name):
    reference = PlanarSet(name).reference(1_000)
    right = compare(reference.first.action, reference)
    wrong = compare(reference.first.action.roll(1_000, 0), reference)
    assert wrong["energy_distance"] > 3 * right["energy_distance"]


def test_the_turned_ring_is_the_ring_under_either_condition():
    ring, turned = PLANAR_SETS["ring"], PLANAR_SETS["turned_ring"]
    assert torch.equal(ring.modes, turned.modes) and ring.mode_std == turned.mode_std == 0.05
    torch.testing.assert_close(ring.modes.norm(dim=-1), torch.full((8,), 0.8))
    modes = PlanarSet("turned_ring").reference(10).modes
    between = torch.cdist(modes[0], modes[1]).amin(-1)
    torch.testing.assert_close(between, torch.full((8,), 1.6 * math.sin(math.radians(11.25))))


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_stay_within_the_bounds_and_are_on_their_modes(name):
    data = make_set(name)
    condition, action, advantage = data.draw(20_000)
    assert condition.shape == (20_000, 1) and action.shape == (20_000, data.action_dim)
    assert action.abs().max() <= 1
    assert data.sigma_data == pytest.approx(action.std().item(), rel=0.02)
    assert data.has_advantage == (advantage is not None)
    floor = measure_floor(data, 1_000)
    assert floor["share_on_mode"] == pytest.approx(1 - math.exp(-4.5), abs=0.006)
    assert floor["modes_covered"] == data.reference(10).modes.shape[1]
    assert torch.cdist(*2 * [data.reference(10).modes[0]]).fill_diagonal_(9).min() > (
        2 * data.reference(10).mode_radius
    )


@pytest.mark.parametrize("name", SHAPES)
def test_the_condition_of_a_shape_matters(name):
    reference = make_set(name).reference(1_000)
    right = compare(reference.first.action, reference)
    wrong = compare(reference.first.action.roll(1_000, 0), reference)
    assert wrong["energy_distance"] > 3 * right["energy_distance"]


@pytest.mark.parametrize(("condition", "degrees"), [(1.0, 0.0), (-1.0, 22.5)])
def test_the_weighted_ring_is_weighted_by_the_loss_as_the_reference_says(condition, degrees):
    """Under each condition one mode, at the angle that the condition turns the ring by."""
    data = make_set("weighted_ring")
    batch = make_batch(data, 8_000)
    method = METHODS["gtp"]
    loss = make_loss(method, data, make_actor(method, data, Network()))
    weight, _ = loss.weight(batch)
    assert sorted(set(weight.tolist())) == [1.0, 100.0]
    angle = math.radians(degrees)
    centre = 0.8 * torch.tensor([math.cos(angle), math.sin(angle)])
    under = batch["observation"].squeeze(-1) == condition
    assert under.float().mean() == pytest.approx(0.5, abs=0.03)
    weight, action = weight[under], batch["action"][under]
    near = (action - centre).norm(dim=-1) < 0.25
    assert ((weight == 100) == near).all()
    reference = data.reference(4_000)
    of_group = reference.first.condition.squeeze(-1) == condition
    assert of_group.sum() == 4_000
    for pairs in (reference.first, reference.second):
        share = ((pairs.action[of_group] - centre).norm(dim=-1) < 0.25).float().mean()
        assert (weight * near).sum() / weight.sum() == pytest.approx(share.item(), abs=0.02)
    assert reference.mode_share[0] == pytest.approx(100 / 107)


def test_an_unknown_set_is_named():
    with pytest.raises(ValueError, match="no data set 'rings'"):
        make_set("rings")
    with pytest.raises(FileNotFoundError, match="no dataset not/there-v0"):
        make_set("not/there-v0")


def test_minari_sets_hold_out_whole_episodes_and_group_near_states():
    write_dataset("test/walks-v0")
    data = MinariSet("test/walks-v0")
    training, held_out = data._training.condition, data._held_out.condition
    assert len(training) == 4 * len(held_out) == 16 * 60
    assert torch.cdist(training, held_out).min() > 0
    reference = data.reference(100)
    first, second, group = reference.first, reference.second, reference.group
    assert len(first.action) == len(second.action) == len(group) == 100
    centre = torch.stack([first.condition[group == one].mean(0) for one in group])
    near = (second.condition - centre).norm(dim=-1).mean()
    assert near < 0.7 * (second.condition - centre.roll(25, 0)).norm(dim=-1).mean()
    # No pair is in both halves of a group.
    same = (torch.cdist(first.condition, second.condition) == 0) & (group[:, None] == group)
    assert not same.any()


def test_too_little_held_out_data_is_an_error():
    write_dataset("test/short-v0", num_episodes=5, length=20)
    with pytest.raises(ValueError, match="20 held-out states"):
        MinariSet("test/short-v0")
