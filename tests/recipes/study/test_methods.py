from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate
from torchrl.envs.utils import ExplorationType, set_exploration_type

from recipes.gtp.learner import Learner
from recipes.gtp.train import make_buffer
from recipes.study.grid import HERE, Cell
from torchrl_gtp import paper_options
from torchrl_gtp.data import MinariReplayBuffer

METHODS = sorted(file.stem for file in (HERE / "method").glob("*.yaml"))
WITHOUT_STEPS = {"bc", "cql", "iql", "td3_bc"}


def make_learner(cell: Cell) -> tuple[Learner, MinariReplayBuffer]:
    torch.manual_seed(0)
    buffer = make_buffer(cell.config)
    build = instantiate(cell.config.method.learner, _partial_=True, _recursive_=False)
    return build(cell.config, buffer, torch.device("cpu")), buffer


def act(learner: Learner, buffer: MinariReplayBuffer, steps: int, candidates: int) -> torch.Tensor:
    torch.manual_seed(0)
    policy = learner.policy(steps, num_candidates=candidates)
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        return policy(buffer[:50].select("observation"))["action"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_acts_and_goes_on(make_cell, method: str) -> None:
    """Two updates change the policy; a fresh learner with that state does what the first does."""
    cell = make_cell(method)
    config = cell.config
    # The delayed policy of some methods moves after 1,000 updates only.
    config.optim.tau_start, config.optim.tau_interval = 0, 1
    learner, buffer = make_learner(cell)
    steps, candidates = config.actor.num_steps_eval, config.env.num_candidates
    before = act(learner, buffer, steps, candidates)
    assert before.shape == (50, 2)
    assert (before.abs() <= 1).all()
    losses = [learner.update(buffer.sample()) for _ in range(2)][-1]
    assert all(value.isfinite().all() for value in losses.values())
    assert not torch.equal(act(learner, buffer, steps, candidates), before)
    assert learner.takes_num_steps == (method not in WITHOUT_STEPS)
    if learner.takes_num_steps:
        for number in config.final.num_steps:
            assert act(learner, buffer, number, 1).isfinite().all()

    state = learner.state_dict()
    again, other_buffer = make_learner(cell)
    again.load_state_dict(state)
    for number in range(2):
        batches = []
        for source in (buffer, other_buffer):
            torch.manual_seed(number)
            batches.append(source.sample())
        outputs = []
        for trained, batch in zip((learner, again), batches, strict=True):
            torch.manual_seed(number)
            outputs.append(trained.update(batch))
        assert outputs[0].keys() == outputs[1].keys()
        assert all(torch.equal(value, outputs[1][name]) for name, value in outputs[0].items())


def test_the_printed_setting_is_that_of_the_library(make_cell) -> None:
    loss, options = make_cell("gtp_paper").config.loss, paper_options()
    assert {name: loss[name] for name in options} == options


def test_without_rows_of_two_jumps_nothing_else_differs(make_cell) -> None:
    usual, changed = (make_cell(name).config for name in ("gtp", "gtp_no_semigroup"))
    assert changed.loss == {**usual.loss, "semigroup_every": None}
    assert all(changed[name] == usual[name] for name in usual if name not in ("loss", "method"))


def test_the_actor_of_td3_bc_waits_for_every_second_update(make_cell) -> None:
    learner, buffer = make_learner(make_cell("td3_bc"))
    seen = []
    for _ in range(4):
        before = act(learner, buffer, 1, 1)
        losses = learner.update(buffer.sample())
        seen.append(
            ("loss_actor" in losses.keys(), not torch.equal(act(learner, buffer, 1, 1), before))
        )
    assert seen == [(True, True), (False, False)] * 2


def test_the_multiplier_of_cql_leaves_the_critics_alone(make_cell) -> None:
    cell = make_cell("cql")
    settings = cell.config.method.learner
    settings.options.update({"with_lagrange": True, "lagrange_thresh": 0.8})
    cell.config.optim.lr = 3e-4
    plain, buffer = make_learner(cell)
    settings.terms = [*settings.terms, "loss_alpha_prime"]
    both, _ = make_learner(cell)
    batch = buffer.sample()
    for learner in (plain, both):
        torch.manual_seed(1)
        learner.update(batch.clone())
    parameters = [dict(learner.loss.named_parameters()) for learner in (plain, both)]
    changed = [n for n, p in parameters[0].items() if not torch.equal(p, parameters[1][n])]
    assert changed == ["log_alpha_prime"]


def test_dipo_improves_a_copy_of_the_actions(make_cell) -> None:
    learner, buffer = make_learner(make_cell("dipo"))
    actions = buffer[:]["action"].clone()
    assert torch.equal(buffer[:]["improved_action"], actions)
    batch = buffer.sample()
    learner.update(batch)
    data = buffer[:]
    assert torch.equal(data["action"], actions)
    moved = (data["improved_action"] != actions).any(-1).nonzero().flatten()
    assert set(moved.tolist()) <= set(batch["index"].tolist())
    assert len(moved) > 0


def test_a_policy_without_steps_draws_no_candidates(make_cell) -> None:
    learner, _ = make_learner(make_cell("iql"))
    with pytest.raises(ValueError, match=r"num_candidates=5.*IQLLoss"):
        learner.policy(1, num_candidates=5)


def test_a_loss_that_torchrl_lacks(make_cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("torchrl.objectives.IQLLoss")
    with pytest.raises(ImportError, match=r"torchrl \S+ has no IQLLoss"):
        make_learner(make_cell("iql"))


def test_misspelt_options_are_refused(make_cell) -> None:
    cell = make_cell("iql")
    cell.config.method.learner.options["expectil"] = 0.7
    with pytest.raises(ValueError, match=r"Did you mean method\.learner\.options\.expectile"):
        make_learner(cell)
