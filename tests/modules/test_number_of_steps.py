"""The number of steps of an actor: what more of them change, and fitted places for few."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate
from tensordict import TensorDict
from torchrl.data import Bounded

from tests.flow_map.closed_form import MEAN, STD, GaussianFlowMap
from torchrl_gtp import CapturedPolicy, GTPActor, make_gtp_actor
from torchrl_gtp.flow_map import (
    AdaptiveSampler,
    AncestralSampler,
    ConsistencySampler,
    JumpSampler,
    MatchedStart,
    OdeSampler,
    VPSchedule,
    fit_times,
)
from torchrl_gtp.modules import fit_sampler, step_errors
from torchrl_gtp.trainers import GTPActorConfig

pytestmark = [
    pytest.mark.filterwarnings("ignore:This module is instantiated on a machine without CUDA"),
    pytest.mark.filterwarnings("ignore:Tensordict is registered in PyTree"),
]


def gaussian_actor(error=0.0, **options):
    low, high = torch.full((2, 2), 50.0, dtype=torch.float64) * torch.tensor([[-1.0], [1.0]])
    return GTPActor(GaussianFlowMap(error), low=low, high=high, **options)


def observations(*batch, dim=3):
    return TensorDict({"observation": torch.randn(*batch, dim)}, batch_size=batch)


def with_bad(key, values):
    values[3, 1], values[5, 0] = float("nan"), float("inf")
    return observations(9).set(key, values)


def test_more_steps_of_the_exact_map_move_nothing():
    errors = step_errors(gaussian_actor(), observations(50), num_steps=(1, 3))
    assert errors["num_steps"].tolist() == [1, 3]
    assert errors["mean"].max() < 1e-6 and errors["quantiles"].max() < 1e-6


def test_errors_are_distances_between_actions_from_the_same_noise():
    torch.manual_seed(0)
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), chunk_length=4, hidden_sizes=(16,))
    data = observations(5, 8).set("noise", torch.randn(5, 8, 4, 2))
    errors = step_errors(actor, data, num_steps=(2, 1), quantiles=(0.0, 1.0))
    assert errors.batch_size == (2,) and errors["quantiles"].shape == (2, 2)
    actions = {k: actor(data.clone(), num_steps=k)["action"].flatten(-2) for k in (1, 2, 4)}
    for row, number in enumerate((2, 1)):
        moved = (actions[number] - actions[2 * number]).square().mean(-1).sqrt()
        torch.testing.assert_close(errors["mean"][row], moved.mean())
        expected = torch.stack([moved.min(), moved.max()])
        torch.testing.assert_close(errors["quantiles"][row], expected)


def test_errors_fall_with_the_number_of_steps_of_a_solver():
    """Heun's method has an error of second order: 2 K steps have a quarter of it."""
    torch.manual_seed(0)
    errors = step_errors(gaussian_actor(sampler="heun"), observations(200), num_steps=(20, 40))
    first, second = errors["mean"].tolist()
    assert 3 < first / second < 5


def test_dropout_is_no_error_and_the_modes_stay():
    torch.manual_seed(0)
    actor = make_gtp_actor(
        3, Bounded(-1, 1, (2,)), backbone="ln_resnet", dropout=0.5, hidden_sizes=(16, 16)
    )
    data = observations(40).set("noise", torch.randn(40, 2)).set("action", torch.rand(40, 2))
    results = []
    for training in (False, True):
        actor.train(training)
        actor.flow_map.training = False  # of one part, as where it is frozen
        modes = [part.training for part in actor.modules()]
        torch.manual_seed(1)
        times = fit_sampler(actor, data, num_steps=3).times
        results.append((step_errors(actor, data)["mean"], times))
        with pytest.raises(ValueError, match="noise"):
            step_errors(actor, data.clone().set("noise", torch.randn(40, 3)))
        assert [part.training for part in actor.modules()] == modes
    torch.testing.assert_close(results[1][0], results[0][0])
    assert results[1][1] == results[0][1]


def test_errors_of_an_actor_in_half_precision():
    torch.manual_seed(0)
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), hidden_sizes=(16,))
    data = observations(50).set("noise", torch.randn(50, 2))
    exact = step_errors(actor, data, num_steps=(1, 2))
    rounded = step_errors(actor.to(torch.bfloat16), data, num_steps=(1, 2))
    for name in ("mean", "quantiles"):
        assert rounded[name].dtype == torch.float32
        torch.testing.assert_close(rounded[name], exact[name], rtol=0.1, atol=0.02)
    pairs = data.set("action", torch.rand(50, 2))
    assert len(fit_sampler(actor, pairs, num_steps=3).times) == 2


def test_by_default_ddpm_is_asked_for_no_more_steps_than_it_has_levels():
    actor = gaussian_actor(sampler="ddpm")
    assert step_errors(actor, observations(9))["num_steps"].tolist() == [1, 2]
    actor.sampler = AncestralSampler(VPSchedule(num_levels=20))
    assert step_errors(actor, observations(9))["num_steps"].tolist() == [1, 2, 3, 5, 10]


@pytest.mark.parametrize("skip_finished", [False, True])
def test_an_actor_samples_adaptively(skip_finished):
    torch.manual_seed(0)
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), num_steps=8, hidden_sizes=(16,))
    data = observations(64).set("noise", torch.randn(64, 2))
    actor.sampler = AdaptiveSampler(0.02, skip_finished)
    assert actor.num_evaluations == 15
    actions = actor(data.clone())["action"]
    by_number = {k: actor_with(actor, "jumps", k)(data.clone())["action"] for k in (2, 4, 8)}
    matches = torch.stack([(actions - one).abs().amax(-1) < 1e-5 for one in by_number.values()])
    assert matches.any(0).all() and (matches.sum(1) > 0).sum() > 1
    wrapped = CapturedPolicy(actor)  # no CUDA: the actor as it is
    torch.testing.assert_close(wrapped(data.clone())["action"], actions)


def test_a_compiled_actor_follows_the_most_steps():
    torch.compiler.reset()
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), sampler="adaptive", hidden_sizes=(16,))
    data = observations(8).set("noise", torch.randn(8, 2))
    policy = torch.compile(actor, backend="eager", fullgraph=True)
    for actor.num_steps in (2, 5, 4):
        expected = actor(data.clone())["action"]
        torch.testing.assert_close(policy(data.clone())["action"], expected)
    torch.compiler.reset()


def test_a_config_gives_the_options_of_a_sampler():
    spec = {"_target_": "torchrl.data.Bounded", "low": -1, "high": 1, "shape": [2]}
    for options, sampler in (
        ({"AdaptiveSampler": {"tolerance": 0.1}}, AdaptiveSampler(0.1)),
        ({"JumpSampler": {"times": [0.5, 0.1]}}, JumpSampler(times=(0.5, 0.1))),
    ):
        ((name, values),) = options.items()
        config = GTPActorConfig(
            observation_dim=3,
            action_spec=spec,
            hidden_sizes=[16],
            sampler={"_target_": f"torchrl_gtp.flow_map.{name}", **values},
        )
        assert instantiate(config).sampler == sampler


def actor_with(actor, sampler, num_steps):
    return GTPActor(
        actor.flow_map, low=actor.low, high=actor.high, sampler=sampler, num_steps=num_steps
    )


def test_a_fitted_sampler_is_better_than_the_grid_on_other_data():
    """The map loses the spread in jumps across a level that the grid does not contain."""

    class NarrowFlowMap(GaussianFlowMap):
        def forward(self, action_t, t, s, condition=None):
            reached = super().forward(action_t, t, s)
            return torch.where((t > 1.3) & (s < 0.7), MEAN + 0 * reached, reached)

    torch.manual_seed(0)
    actor = gaussian_actor()
    actor.flow_map = NarrowFlowMap()
    data = observations(40, 20).set("action", MEAN + STD * torch.randn(40, 20, 2).double())
    sampler = fit_sampler(actor, data, num_steps=2)
    actor.num_steps = 2
    spreads = {}
    for actor.sampler in (JumpSampler(), sampler):
        spreads[actor.sampler] = actor(observations(5_000))["action"].std().item()
    assert spreads[JumpSampler()] < 0.1
    assert spreads[sampler] == pytest.approx(STD, rel=0.05)


def test_chunks_are_fitted_as_one_vector():
    torch.manual_seed(0)
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), chunk_length=4, hidden_sizes=(16,))
    data = observations(30).set("action", torch.rand(30, 4, 2) * 2 - 1)
    actor.sampler = JumpSampler(gamma=0.9)
    actor.sampler, actor.num_steps = fit_sampler(actor, data, num_steps=3), 3
    assert actor.sampler.gamma == 0.9
    assert len(actor.sampler.times) == 2 and actor(observations(7))["action"].shape == (7, 4, 2)


@pytest.mark.parametrize("sampler", [JumpSampler("linear", gamma=0.9), AdaptiveSampler()])
def test_the_levels_that_do_not_move_are_those_of_the_actors_own_sampler(sampler):
    """The exact map gains nothing by others."""
    torch.manual_seed(0)
    actor = gaussian_actor(sampler=sampler)
    data = observations(60).set("action", MEAN + STD * torch.randn(60, 2).double())
    fitted = fit_sampler(actor, data, num_steps=4)
    noise, jumps = torch.randn(60, 2).double(), JumpSampler(getattr(sampler, "spacing", "karras"))
    samples = [one(actor.flow_map, noise, None, 4, stochastic=False) for one in (fitted, jumps)]
    torch.testing.assert_close(*samples)
    assert fitted.times == pytest.approx(passed_levels(jumps, 4))
    assert fitted.gamma == getattr(sampler, "gamma", 0.0)


def passed_levels(sampler, num_steps):
    """The levels between the ends that the jumps of a sampler begin at."""
    levels = []

    class Recorded(GaussianFlowMap):
        def forward(self, action_t, t, s, condition=None):
            levels.append(t.unique().item())
            return super().forward(action_t, t, s)

    sampler(Recorded(), torch.zeros(1, 2).double(), None, num_steps)
    return levels[1:]


def test_jumps_are_fitted_from_a_matched_start(monkeypatch):
    seen, conditions = [], []
    start = MatchedStart.start

    def spy_on_start(sampler, flow_map, noise, condition):
        conditions.append(condition)
        return start(sampler, flow_map, noise, condition)

    monkeypatch.setattr(MatchedStart, "start", spy_on_start)

    def spy(flow_map, action, noise, *arguments, **options):
        seen.append(noise)
        return fit_times(flow_map, action, noise, *arguments, **options)

    monkeypatch.setattr("torchrl_gtp.modules.number_of_steps.fit_times", spy)
    actor = gaussian_actor(0.1, sampler=MatchedStart(JumpSampler(gamma=0.5)))
    data = observations(60).set("action", MEAN + STD * torch.randn(60, 2))
    torch.manual_seed(0)
    fitted = fit_sampler(actor, data, num_steps=2)
    actor.sampler = JumpSampler(gamma=0.5)
    torch.manual_seed(0)
    plain = fit_sampler(actor, data, num_steps=2)
    assert isinstance(fitted, MatchedStart) and fitted.sampler.gamma == plain.gamma == 0.5
    from_start, noise = seen
    assert torch.equal(conditions[0], data["observation"].double().expand(2, 60, 3))
    sigma_max = actor.flow_map.noise_levels.sigma_max
    shift = MatchedStart().start(actor.flow_map, noise, None) / sigma_max
    assert shift.abs().min() > 0.0
    torch.testing.assert_close(from_start, noise + shift)
    actor.sampler = fitted
    with pytest.raises(ValueError, match="is for one number of steps"):
        step_errors(actor, data)


@pytest.mark.parametrize("sampler", ["heun", "euler", "ddpm", "consistency", "matched heun"])
def test_no_jumps_are_fitted_to_a_map_that_is_not_sampled_by_jumps(sampler):
    matched = MatchedStart(OdeSampler())
    actor = gaussian_actor(sampler=matched if sampler == "matched heun" else sampler)
    data = observations(9).set("action", torch.rand(9, 2))
    with pytest.raises(ValueError, match=r"which makes none.* set actor.sampler = 'jumps'"):
        fit_sampler(actor, data, num_steps=2)


@pytest.mark.parametrize(
    ("sampler", "num_steps", "message"),
    [
        ("ddpm", (1, 3), r"num_steps must not exceed 2: .* takes at most 5.* got \(1, 3\)"),
        (AncestralSampler(VPSchedule(1)), None, "num_steps must not exceed 0"),
        (JumpSampler(times=(0.5,)), None, r"Set actor.sampler = JumpSampler\(\)"),
        (ConsistencySampler((3.0, 0.5)), (2,), r"Set actor.sampler = ConsistencySampler\(\)"),
    ],
)
def test_a_sampler_that_does_not_take_twice_as_many_steps(sampler, num_steps, message):
    actor = gaussian_actor(sampler=sampler)
    with pytest.raises(ValueError, match=message):
        step_errors(actor, observations(9), num_steps)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda actor: step_errors(actor, observations(0)), ValueError, "no observations"),
        (lambda actor: step_errors(actor, observations(2), (0,)), ValueError, "num_steps"),
        (lambda actor: step_errors(actor, observations(2), ()), ValueError, "at least one number"),
        *(
            (
                lambda actor, rows=rows: fit_sampler(
                    actor, observations(rows).set("action", torch.rand(rows, 2)), 2
                ),
                ValueError,
                "at least 2 rows",
            )
            for rows in (0, 1)
        ),
        (
            lambda actor: step_errors(actor, observations(2), quantiles=(2.0,)),
            ValueError,
            "quantiles must lie",
        ),
        (lambda actor: step_errors(actor, TensorDict({}, [2])), KeyError, "observation"),
        (lambda actor: fit_sampler(actor, observations(2), 2), KeyError, "'action'"),
        (
            lambda actor: fit_sampler(actor, observations(2), 2, num_samples=1),
            ValueError,
            "num_samples must be",
        ),
        (
            lambda actor: fit_sampler(actor, observations(2).set("action", torch.ones(2, 3)), 2),
            ValueError,
            "must have the shape",
        ),
        (
            lambda actor: fit_sampler(actor, with_bad("action", torch.rand(9, 2)), 2),
            ValueError,
            "'action' must be finite, but 2 of 18 values are not: drop the rows",
        ),
        (
            lambda actor: fit_sampler(
                actor, with_bad("observation", torch.rand(9, 3)).set("action", torch.rand(9, 2)), 2
            ),
            ValueError,
            "'observation' must be finite, but 2 of 27",
        ),
        (
            lambda actor: step_errors(actor, with_bad("observation", torch.rand(9, 3))),
            ValueError,
            "'observation' must be finite, but 2 of 27",
        ),
        (
            lambda actor: step_errors(actor, with_bad("noise", torch.rand(9, 2))),
            ValueError,
            "'noise' must be finite, but 2 of 18",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call(gaussian_actor())
