"""Every generative policy of the family through one loss."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded
from torchrl.envs.utils import ExplorationType, set_exploration_type

from tests.objectives.contract.case import (
    NoHostReads,
    assert_same,
    associated,
    call,
    losses_of,
    total_of,
)
from tests.objectives.family_cases import NAMES, make_member
from tests.objectives.gtp_cases import SIZES, make_batch, make_loss
from torchrl_gtp import FlowMap, GTPActor, GTPLoss, make_gtp_actor, paper_options
from torchrl_gtp.flow_map import LNResNetBackbone, MLPBackbone, Objective, TermInputs, family
from torchrl_gtp.objectives.teacher import FrozenActor

TERMS = {
    "diffusion": ["flow"],
    "ddpm": ["flow"],
    "flow_matching": ["flow"],
    "consistency": ["consistency"],
    "consistency_distillation": ["consistency"],
    "ctm": ["consistency", "flow"],
    "gtp": ["consistency", "flow"],
    "gtp_distillation": ["consistency", "flow"],
    "paper": ["consistency", "flow"],
    "shortcut": ["consistency", "flow"],
    "mean_flow": ["mean_flow"],
}


# Those with an ODE solver, which follows a denoiser.
SOLVERS = ["consistency_distillation", "ctm", "gtp_distillation"]


class OwnTeacher:
    """The map in training as its own teacher."""

    def __init__(self, flow_map):
        self.flow_map = flow_map

    def __call__(self, action_t, t, s, condition):
        with torch.no_grad():
            return self.flow_map(action_t, t, s, condition)

    def endpoint(self, action_t, t, s, condition):
        with torch.no_grad():
            return self.flow_map.endpoint(action_t, t, s, condition)

    def through(self, action_t, t, s, condition):
        return self.flow_map(action_t, t, s, condition)

    def denoise(self, action_t, t, condition):
        with torch.no_grad():
            return self.flow_map.denoise(action_t, t, condition)


def actor_gradients(loss):
    return {
        name: parameter.grad
        for name, parameter in loss.named_parameters()
        if name.startswith("actor_network") and parameter.grad is not None
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["bc", "critic"])
def test_terms_train_the_actor_alone(name, mode):
    loss = associated(make_member(name, mode))
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    with NoHostReads():
        out = call(loss, make_batch(mode=mode))
        actor = [f"loss_{term}" for term in TERMS[name]]
        assert [key for key in losses_of(out) if key != "loss_qvalue"] == actor
        sum(out[key] for key in actor).backward()
    assert all(value.isfinite() for value in out.values())
    trained = {n for n, p in loss.named_parameters() if p.grad is not None and p.grad.any()}
    expected = {n for n, p in loss.named_parameters() if n.startswith("actor_network")}
    # At the data the second time is constant, so that the first bias of its embedding may be too.
    assert trained <= expected and len(trained) >= len(expected) - 4
    assert all(torch.equal(loss.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", NAMES)
def test_terms_are_weighted_by_the_advantage(name):
    """The gradient is that of the samples, each times its weight."""
    loss, td = associated(make_member(name, "critic", reduction="none")), make_batch()
    noise = loss.draw_noise(td)
    td["loss_noise"] = noise
    weight = torch.linspace(0.0, 3.0, 8)
    advantage = torch.randn(8)
    _, plain = loss.actor_loss(td, torch.zeros(8))
    for term in TERMS[name]:
        weighted = loss._term_loss(term, td, weight)
        torch.testing.assert_close(weighted, weight * plain[f"loss_{term}"])
    total, metadata = loss.actor_loss(td, advantage)
    expected = sum(plain[f"loss_{term}"] for term in TERMS[name]) * metadata["weight_mean"]
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("name", NAMES)
def test_same_draws_give_the_same_numbers(name):
    loss, td = associated(make_member(name)), make_batch(mode="bc")
    td["loss_noise"] = loss.draw_noise(td)
    first, second = (call(loss, td.clone(), seed=seed) for seed in (1, 2))
    assert_same(first, second)
    other = associated(make_member(name))
    other.load_state_dict(loss.state_dict())
    assert_same(call(other, td.clone()), first)


@pytest.mark.parametrize("name", NAMES)
def test_small_and_degenerate_data(name):
    """32 points, all with one observation, one action dimension constant, no NaN over updates."""
    torch.manual_seed(0)
    objective, sampler, noise_levels = family(name)
    actor = make_gtp_actor(
        3, Bounded(-1, 1, (2,)), sampler=sampler, noise_levels=noise_levels, num_steps=2, **SIZES
    )
    options = {"denoiser_network": actor} if objective.needs_denoiser else {}
    loss = associated(GTPLoss(actor, objective=objective, **options))
    action = torch.rand(32, 2) * 2 - 1
    action[:, 1] = 0.5
    td = TensorDict({"observation": torch.ones(32, 3), "action": action}, [32])
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    for update in range(20):
        loss.progress = update / 19
        total_of(loss(td)).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(parameter.isfinite().all() for parameter in loss.parameters())
    policy = loss.target_actor()
    assert policy(td)["action"].isfinite().all()
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert torch.equal(policy(td.clone())["action"], policy(td.clone())["action"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_stays_finite_over_the_schedule(name, dtype):
    """The grids of 1280 intervals at its end are finer than half precision."""
    torch.manual_seed(0)
    loss, td = associated(make_member(name)).to(dtype), make_batch(256, mode="bc")
    td = td.apply(lambda entry: entry.to(dtype))
    for progress in (0.0, 0.5, 1.0):
        loss.zero_grad()
        loss.progress = progress
        out = call(loss, td.clone())
        assert all(value.dtype == dtype and value.isfinite() for value in out.values())
        (total_of(out) / 256).backward()
        assert all(gradient.isfinite().all() for gradient in actor_gradients(loss).values())


@pytest.mark.parametrize("name", NAMES)
def test_terms_compile_without_graph_breaks(name):
    """Forward-mode derivatives (mean flow) and ODE solvers included."""
    torch.manual_seed(0)
    torch.compiler.reset()
    flow_map, objective = FlowMap(MLPBackbone(2, hidden_sizes=(8,))), family(name).objective
    teacher, progress = OwnTeacher(flow_map), torch.tensor(0.5)
    for term in objective.terms.values():
        draws = {
            key: torch.randn(6, *draw.shape)
            if draw.distribution == "normal"
            else torch.rand(6, *draw.shape)
            for key, draw in term.draws(2).items()
        }
        inputs = TermInputs(torch.rand(6, 2), draws, progress)

        def gradients(compute, inputs=inputs):
            error = compute(flow_map, teacher, inputs)
            grads = torch.autograd.grad(error.sum(), list(flow_map.parameters()), allow_unused=True)
            return error.detach(), *(torch.zeros(()) if g is None else g for g in grads)

        compiled = torch.compile(term.__call__, fullgraph=True, backend="eager")
        for got, expected in zip(gradients(compiled), gradients(term), strict=True):
            torch.testing.assert_close(got, expected)


def test_gtp_and_paper_are_the_options_of_the_loss():
    td = make_batch(mode="bc")
    for name, options in (("gtp", {}), ("paper", paper_options())):
        losses = [associated(make_member(name)), associated(make_loss("bc", **options))]
        assert losses[0].objective == losses[1].objective
        assert_same(*(call(loss, td.clone()) for loss in losses))


@pytest.mark.parametrize("name", ["consistency_distillation", "gtp_distillation"])
def test_distillation_follows_the_denoiser_and_leaves_it_alone(name):
    torch.manual_seed(0)
    objective = family(name).objective
    trained = make_gtp_actor(3, Bounded(-1, 1, (2,)), **SIZES)
    loss = associated(make_loss("bc", objective=objective, denoiser_network=trained))
    td = make_batch(mode="bc")
    first = call(loss, td.clone())["loss_consistency"]
    first.backward()
    assert not any(p.requires_grad for p in loss.denoiser.parameters()) and actor_gradients(loss)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1.0)
    torch.testing.assert_close(call(loss, td.clone())["loss_consistency"], first)
    with torch.no_grad():
        for parameter in loss.denoiser.parameters():
            parameter.add_(1.0)
    assert not torch.isclose(call(loss, td.clone())["loss_consistency"], first)
    assert all(value.dtype == torch.float64 for value in loss.double().denoiser.parameters())


def test_the_frozen_denoiser_has_no_dropout():
    torch.manual_seed(0)
    backbone = LNResNetBackbone(2, 3, hidden_dim=16, num_blocks=1, dropout=0.5)
    trained = GTPActor(FlowMap(backbone), Bounded(-1, 1, (2,)), num_steps=2)
    objective = family("consistency_distillation").objective
    loss = make_loss("bc", objective=objective, denoiser_network=trained)
    assert trained.training
    action, t, condition = torch.randn(64, 2), torch.ones(64, 1), torch.randn(64, 3)
    expected = loss.denoiser.denoise(action, t, condition)
    for change in (loss.train, loss.eval, loss.double, loss.float, loss.train):
        assert change() is loss
        assert not any(module.training for module in loss.denoiser.modules())
        assert torch.equal(loss.denoiser.float().denoise(action, t, condition), expected)
    assert loss.training and all(module.training for module in loss.actor_network.modules())


@pytest.mark.parametrize("in_place", [True, False])
def test_teacher_gives_no_gradient_to_parameters(in_place):
    """A frozen jump passes the gradient on to its input alone, whichever parameters make it."""
    loss = associated(make_member("ctm"))
    params = loss.actor_network_params if in_place else loss.target_actor_network_params
    action = torch.randn(4, 2, requires_grad=True)
    t, condition = torch.ones(4, 1), torch.randn(4, 3)
    with loss.actor_network_params.to_module(loss.actor_network, preserve_module_state=False):
        teacher = FrozenActor(loss.actor_network, params, in_place)
        through = teacher.through(action, t, 0.5 * t, condition)
        plain = teacher(action, t, 0.5 * t, condition)
        assert not plain.requires_grad
        assert not teacher.denoise(action, t, condition).requires_grad
        endpoint = teacher.endpoint(action, t, 0.5 * t, condition)
        assert not endpoint.requires_grad
    torch.testing.assert_close(through, plain)
    torch.testing.assert_close(plain, 0.5 * (action.detach() + endpoint))
    through.sum().backward()
    assert action.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in loss.parameters())


def test_actor_and_loss_agree_on_evaluations():
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), sampler="heun", num_steps=4, **SIZES)
    calls = []
    actor.flow_map.backbone.register_forward_hook(lambda *_: calls.append(1))
    actor(make_batch(mode="bc"))
    assert len(calls) == actor.num_evaluations == 7
    actor.sampler, actor.num_steps = "euler", 3
    assert actor.num_evaluations == 3


def test_chunks_are_clipped_on_the_way():
    actor = make_gtp_actor(
        3, Bounded(-0.1, 0.1, (2,)), sampler="ddpm", chunk_length=4, num_steps=5, **SIZES
    )
    action = actor(observation=torch.randn(7, 3))
    assert action.shape == (7, 4, 2) and action.abs().max() <= 0.1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"objective": family("ctm").objective, "robust_power": 0.0}, ValueError, "leave them out"),
        (
            {"objective": family("ctm").objective, "semigroup_every": 4},
            ValueError,
            "leave them out",
        ),
        (
            {"objective": family("consistency_distillation").objective},
            ValueError,
            "give a trained policy, such as one of family",
        ),
        (
            {"objective": family("gtp_distillation").objective},
            ValueError,
            "give a trained policy, such as one of family",
        ),
        (
            {
                "objective": family("consistency_distillation").objective,
                "denoiser_network": torch.nn.Linear(1, 1),
            },
            TypeError,
            "denoiser_network must be a GTPActor",
        ),
        (
            {"objective": family("ctm").objective, "lambda_flow": math.inf},
            ValueError,
            "lambda_flow must be finite",
        ),
        (
            {"objective": family("consistency").objective, "lambda_flow": 7.0},
            ValueError,
            r"lambda_flow=7.0 is the factor of a term 'flow'.*the terms \['consistency'\]",
        ),
        (
            {"objective": family("ctm").objective, "delay_actor": False},
            ValueError,
            "needs delay_actor=True",
        ),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        make_loss("bc", **options)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            make_gtp_actor(3, Bounded(-1, 1, (4,)), **SIZES),
            r"'event_shape': \(4,\).*in the place of.*'event_shape': \(2,\)",
        ),
        (make_gtp_actor(3, Bounded(-1, 1, (2,)), chunk_length=1, **SIZES), "event_shape"),
        (make_gtp_actor(5, Bounded(-1, 1, (2,)), **SIZES), "'condition_dim': 5"),
        (make_gtp_actor(3, Bounded(-1, 2, (2,)), **SIZES), r"'high': \[2.0, 2.0\]"),
        (
            make_gtp_actor(3, Bounded(-1, 1, (2,)), observation_keys=("pixels",), **SIZES),
            r"'observation_keys': \['pixels'\]",
        ),
        (
            make_gtp_actor(3, Bounded(-1, 1, (2,)), action_key="raw_action", **SIZES),
            "'action_key': 'raw_action'",
        ),
    ],
)
def test_a_denoiser_of_another_policy_is_refused(network, message):
    objective = family("consistency_distillation").objective
    with pytest.raises(ValueError, match=message):
        make_loss("bc", objective=objective, denoiser_network=network)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SOLVERS])
def test_a_denoiser_that_nothing_follows_is_refused(name):
    trained = make_gtp_actor(3, Bounded(-1, 1, (2,)), **SIZES)
    with pytest.raises(ValueError, match="denoiser_network has no effect"):
        make_member(name, denoiser_network=trained)
    for solver in SOLVERS:
        assert make_member(solver, denoiser_network=trained).denoiser is not None


def test_bad_names_and_missing_terms():
    with pytest.raises(ValueError, match="name must be one of"):
        family("gan")
    loss = associated(make_member("diffusion"))
    with pytest.raises(ValueError, match="no term 'consistency'"):
        loss.consistency_loss(make_batch(mode="bc"))
    ctm = family("ctm").objective
    alone = Objective({"consistency": ctm.terms["consistency"]}, "ema")
    with pytest.raises(ValueError, match="give a trained policy"):
        make_loss("bc", objective=alone)


def test_example_of_the_docs_runs():
    text = (Path(__file__).parents[2] / "docs" / "family.md").read_text()
    example = text.split("```python\n")[1].split("```")[0]
    exec(compile(example, "docs/family.md", "exec"), {})
