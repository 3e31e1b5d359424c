"""The actor: keys, bounds, noise, number of jumps, copies."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.envs.utils import ExplorationType, set_exploration_type

from torchrl_gtp import (
    FlowMap,
    GTPActor,
    NoiseLevels,
    make_actor_critic,
    make_gtp_actor,
    make_qvalue,
    make_value,
)
from torchrl_gtp.flow_map import MLPBackbone, few_step_sample

SPEC = Bounded(-1, 1, (2,))


@pytest.fixture
def actor():
    torch.manual_seed(0)
    return make_gtp_actor(3, SPEC, hidden_sizes=(32, 32))


def make_input(*batch, **entries):
    entries = entries or {"observation": torch.randn(*batch, 3)}
    return TensorDict(entries, batch_size=batch)


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_action_has_the_batch_of_the_observation(actor, batch):
    td = actor(make_input(*batch))
    assert td["action"].shape == (*batch, 2)
    assert td["action"].abs().max() <= 1
    assert set(td.keys()) == {"observation", "action"}


def test_exploration_types(actor):
    td = make_input(5)

    def act(kind=None):
        if kind is None:
            return actor(td.clone())["action"]
        with set_exploration_type(kind):
            return actor(td.clone())["action"]

    assert not torch.equal(act(), act())
    assert not torch.equal(act(ExplorationType.RANDOM), act(ExplorationType.RANDOM))
    zero = actor.sample(td["observation"], torch.zeros(5, 2))
    for kind in (ExplorationType.DETERMINISTIC, ExplorationType.MODE, ExplorationType.MEAN):
        assert torch.equal(act(kind), zero)


@pytest.mark.parametrize("kind", [ExplorationType.RANDOM, ExplorationType.DETERMINISTIC])
def test_noise_entry_replaces_the_draw(actor, kind):
    td, noise = make_input(5), torch.randn(5, 2)
    with set_exploration_type(kind):
        action = actor(td.clone().set("noise", noise))["action"]
    times = actor.flow_map.noise_levels.jump_times(5)
    expected = few_step_sample(actor.flow_map, noise, td["observation"], times).clamp(-1, 1)
    torch.testing.assert_close(action, expected)
    torch.testing.assert_close(actor(td.clone(), noise=noise)["action"], expected)
    torch.testing.assert_close(actor(observation=td["observation"], noise=noise), expected)


def test_noise_key_keeps_a_sensor_of_that_name_apart():
    actor = make_gtp_actor(3, SPEC, noise_key="latent", hidden_sizes=(16,))
    td = make_input(5).set("noise", torch.randn(5, 7))
    assert actor(td)["action"].shape == (5, 2)


def test_number_of_jumps_per_attribute_and_per_call(actor):
    td, noise = make_input(5), torch.randn(5, 2)
    td["noise"] = noise
    calls = []
    actor.flow_map.register_forward_hook(lambda *_: calls.append(1))
    for expected, arguments in ((5, {}), (3, {"num_steps": 3}), (5, {})):
        calls.clear()
        actor(td, **arguments)
        assert len(calls) == expected
    actor.num_steps = np.int64(1)
    calls.clear()
    actor(td)
    assert len(calls) == 1


@pytest.mark.parametrize("num_steps", [0, -2, 1.5, True, None])
def test_bad_number_of_jumps(actor, num_steps):
    with pytest.raises(ValueError, match="num_steps is the number of jumps K"):
        actor.num_steps = num_steps
    if num_steps is not None:
        with pytest.raises(ValueError, match="num_steps is the number of jumps K"):
            actor(make_input(5), num_steps=num_steps)
    assert actor.num_steps == 5


def test_several_and_nested_observation_keys():
    keys = ("position", ("sensors", "speed"))
    actor = make_gtp_actor(5, SPEC, observation_keys=keys, hidden_sizes=(32,))
    assert actor.in_keys == ["position", ("sensors", "speed")]
    position, speed = torch.randn(4, 3), torch.randn(4, 2)
    td = make_input(4, position=position, sensors={"speed": speed})
    torch.testing.assert_close(actor.condition(td), torch.cat([position, speed], -1))
    assert actor(td)["action"].shape == (4, 2)
    assert actor(position=position, sensors_speed=speed).shape == (4, 2)
    with pytest.raises(KeyError, match="speed"):
        actor(make_input(4, position=position))


def test_double_observations_of_simulators_are_cast(actor):
    assert actor(make_input(4, observation=torch.randn(4, 3).double()))["action"].dtype == (
        torch.float32
    )


def test_only_the_final_action_is_clamped():
    torch.manual_seed(0)
    flow_map = FlowMap(MLPBackbone(2, 3, hidden_sizes=(32,)), sigma_data=3.0)
    actor = GTPActor(flow_map, low=[-0.5, -2.0], high=[0.5, 1.0])
    condition, noise = torch.randn(500, 3), torch.randn(500, 2)
    raw = few_step_sample(flow_map, noise, condition, flow_map.noise_levels.jump_times(5))
    action = actor.sample(condition, noise)
    torch.testing.assert_close(action, raw.clamp(torch.tensor([-0.5, -2]), torch.tensor([0.5, 1])))
    assert (raw != action).any()


def test_bounds_from_every_kind_of_spec():
    low, high = torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 3.0])
    single = Bounded(low, high, (2,))
    batched = Bounded(low.expand(4, 2), high.expand(4, 2), (4, 2))
    nested = Composite(agent=Composite(action=batched, shape=(4,)), shape=(4,))
    for spec, key in (
        (single, "action"),
        (Composite(action=batched, shape=(4,)), "action"),
        (nested, ("agent", "action")),
    ):
        actor = make_gtp_actor(3, spec, action_key=key, hidden_sizes=(32,))
        assert torch.equal(actor.low, low) and torch.equal(actor.high, high)
        assert actor.out_keys == [key]
    unbounded = make_gtp_actor(3, Unbounded((2,)), hidden_sizes=(32,))
    assert unbounded.low.tolist() == [-torch.inf] * 2
    assert unbounded(make_input(4))["action"].isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either from action_spec or from both low and high"),
        ({"low": [-1.0]}, "either from action_spec or from both low and high"),
        ({"action_spec": SPEC, "low": [-1.0] * 2, "high": [1.0] * 2}, "either from action_spec"),
        ({"low": [1.0, 0.0], "high": [1.0, 1.0]}, "low < high everywhere"),
        ({"low": -1.0, "high": 1.0}, "vectors of one shape"),
        ({"action_spec": Categorical(3)}, "continuous actions"),
        ({"action_spec": Bounded(-1, 1, (3, 2))}, "one vector"),
        ({"action_spec": Composite(other=SPEC)}, "no entry 'action'"),
        ({"action_spec": SPEC, "observation_keys": "observation"}, "sequence of keys"),
        ({"action_spec": SPEC, "observation_keys": ()}, "sequence of keys"),
        ({"action_spec": SPEC, "num_steps": 0}, "number of jumps K"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        GTPActor(FlowMap(MLPBackbone(2, 3, hidden_sizes=(32,))), **arguments)


def test_factories_check_keys_specs_and_sigma_data():
    with pytest.raises(ValueError, match="sequence of keys"):
        make_qvalue(3, 2, observation_keys="observation")
    with pytest.raises(ValueError, match="sequence of keys"):
        make_value(3, observation_keys=())
    with pytest.raises(ValueError, match="continuous actions"):
        make_gtp_actor(3, Categorical(3))
    with pytest.raises(ValueError, match="no entry 'action'"):
        make_gtp_actor(3, Composite(other=SPEC))
    with pytest.raises(ValueError, match="sigma_data has 3 values.*2 dimensions"):
        make_gtp_actor(3, SPEC, sigma_data=torch.ones(3))


def test_wrong_noise_and_observation_shapes(actor):
    with pytest.raises(ValueError, match="noise must have the shape"):
        actor(make_input(4).set("noise", torch.randn(4, 3)))
    with pytest.raises(ValueError, match="condition has 7 dimensions.*condition_dim=3"):
        actor(make_input(4, observation=torch.randn(4, 7)))


def test_deepcopy_pickle_and_state_dict(actor):
    td = make_input(4)
    td["noise"] = torch.randn(4, 2)
    expected = actor(td.clone())["action"]
    for clone in (copy.deepcopy(actor), pickle.loads(pickle.dumps(actor))):
        assert torch.equal(clone(td.clone())["action"], expected)
        with torch.no_grad():
            next(clone.parameters()).add_(1.0)
        assert torch.equal(actor(td.clone())["action"], expected)  # nothing is shared
    other = make_gtp_actor(3, Bounded(-0.1, 0.1, (2,)), sigma_data=0.1, hidden_sizes=(32, 32))
    other.load_state_dict(actor.state_dict())
    assert torch.equal(other(td.clone())["action"], expected)


def test_all_tensor_state_is_registered(actor):
    registered = {id(t) for t in (*actor.parameters(), *actor.buffers())}
    for module in actor.modules():
        for value in vars(module).values():
            assert not isinstance(value, torch.Tensor) or id(value) in registered


def test_double_precision(actor):
    actor = copy.deepcopy(actor).double()
    assert actor(make_input(4))["action"].dtype == torch.float64


def test_factory_from_specs():
    observation_spec = Composite(state=Unbounded(3), goal=Unbounded(2))
    actor, qvalue = make_actor_critic(
        observation_spec,
        SPEC,
        observation_keys=("state", "goal"),
        noise_levels=NoiseLevels(sigma_max=3.0),
        hidden_sizes=(16,),
    )
    td = actor(make_input(4, state=torch.randn(4, 3), goal=torch.randn(4, 2)))
    assert qvalue(td)["state_action_value"].shape == (4, 1)
    assert actor.flow_map.noise_levels.sigma_max == 3.0
    assert qvalue.module[0].out_features == 16
    batched = observation_spec.expand(4)
    for spec in (SPEC.expand(4, 2), Composite(action=SPEC.expand(4, 2), shape=(4,))):
        actor, _ = make_actor_critic(batched, spec, observation_keys=("state",), hidden_sizes=(8,))
        assert actor.low.tolist() == [-1.0, -1.0]
    with pytest.raises(ValueError, match=r"no \['missing'\]"):
        make_actor_critic(observation_spec, SPEC, observation_keys=("missing",))


def test_critic_factories_read_the_given_keys():
    keys = ("position", ("sensors", "speed"))
    td = make_input(4, position=torch.randn(4, 3), sensors={"speed": torch.randn(4, 2)})
    td["act"] = torch.randn(4, 2)
    qvalue = make_qvalue(5, 2, observation_keys=keys, action_key="act", hidden_sizes=(16,))
    value = make_value(5, observation_keys=keys, hidden_sizes=(16,))
    assert qvalue(td)["state_action_value"].shape == (4, 1)
    assert value(td)["state_value"].shape == (4, 1)
