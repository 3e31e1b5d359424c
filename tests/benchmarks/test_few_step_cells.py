"""Cells of the few-step benchmark: trained once, resumable, reported."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import itertools
import json
import os
import sys
from pathlib import Path

import pytest
import tensordict
import torch
import torchrl
from tensordict import TensorDict
from torch._inductor import config as inductor_config
from torch.testing import assert_close

import torchrl_gtp
from benchmarks.few_step import cells as cells_module
from benchmarks.few_step import evaluation
from benchmarks.few_step import training as training_module
from benchmarks.few_step.__main__ import main, parse_arguments
from benchmarks.few_step.cells import Cell, finished, read_origin, run_cell, run_cells
from benchmarks.few_step.evaluation import NUM_STEPS, compare
from benchmarks.few_step.method import (
    Distilled,
    Method,
    Network,
    make_actor,
    make_loss,
    network_evaluations,
    sample,
    trajectory,
)
from benchmarks.few_step.methods import ALL_METHODS, METHODS, VARIANTS
from benchmarks.few_step.planar import PlanarSet
from benchmarks.few_step.report import provenance, read_rows, write_markdown
from benchmarks.few_step.sets import make_set
from benchmarks.few_step.training import Training, train, train_side_by_side
from recipes.study.versions import commit
from torchrl_gtp import NoiseLevels
from torchrl_gtp.flow_map import Consistency, family
from torchrl_gtp.training import make_optimizer

TINY = Training(num_updates=4, batch_size=16)


def tiny_cell(method="gtp", seed=0, data="ring"):
    return Cell(method, data, seed, TINY, num_samples=40)


def test_all_methods_meet_the_same_draws_and_each_seed_its_own(monkeypatch):
    met = {}
    data = PlanarSet("ring")
    for name, seed in itertools.product(("gtp", "ddpm", "consistency"), (0, 1)):
        seen = met[name, seed] = []

        def recorded(samples, reference, within, seen=seen):
            seen.append(reference)
            measured = compare(samples, reference, within)
            assert measured == compare(samples, reference)
            return measured

        monkeypatch.setattr(evaluation, "compare", recorded)
        method = dataclasses.replace(METHODS[name], most_steps=2)
        evaluation.measure(make_actor(method, data, Network()), method, data, 20, seed)
    for seed in (0, 1):
        draws = [
            reference for name in ("gtp", "ddpm", "consistency") for reference in met[name, seed]
        ]
        for which in ("first", "second"):
            actions = [getattr(reference, which).action for reference in draws]
            assert len(actions) > 5 and all(torch.equal(actions[0], other) for other in actions)
    assert not torch.equal(met["gtp", 0][0].second.action, met["gtp", 1][0].second.action)


@pytest.mark.parametrize("name", ALL_METHODS)
def test_every_method_trains_and_gets_the_same_number_of_network_evaluations(name):
    torch.manual_seed(0)
    method, data = ALL_METHODS[name], PlanarSet("ring")
    actor, num_updates, evaluations = cells_module.train(method, data, TINY)
    # The updates of distillation cost more than those of the denoiser before it.
    most = 5 if isinstance(method, Distilled) else evaluations
    assert 0 <= 3 * TINY.num_updates - num_updates * evaluations < most
    for sampler in method.samplers.values():
        action = sample(actor, sampler, torch.zeros(7, 1), torch.randn(7, 2), 3)
        assert action.shape == (7, 2) and action.isfinite().all() and action.abs().max() <= 1


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_differs_by_what_its_name_says(name):
    base, settings = name.split(":")
    method, variant = METHODS[base], VARIANTS[name]
    changed = [
        field.name
        for field in dataclasses.fields(Method)
        if getattr(method, field.name) != getattr(variant, field.name)
    ]
    if settings == "sigma_max=80,spacing=edm":  # EDM as published
        assert changed == ["samplers", "noise_levels"]
        assert variant.samplers == VARIANTS["diffusion:spacing=edm"].samplers
        assert variant.noise_levels == VARIANTS["diffusion:sigma_max=80"].noise_levels
    elif "sigma_max" in settings:
        sigma_max = float(settings.split("=")[1])
        assert changed == ([] if sigma_max == method.noise_levels.sigma_max else ["noise_levels"])
        assert variant.noise_levels == NoiseLevels(sigma_max=sigma_max)
    elif settings in ("spacing=edm", "heun=linear"):
        assert changed == ["samplers"] and method.samplers.keys() == variant.samplers.keys()
    elif settings == "lr=2e-3,some_rows=4":
        assert changed == ["objective", "lr"] and variant.lr == 2e-3
    elif settings == "end=cubic,std=1.6,lr=2e-3":
        assert changed == ["objective", "lr"] and variant.lr == 2e-3
        assert variant.denoiser == method.denoiser and variant.denoiser.lr is None
        terms, former = dict(variant.objective.terms), method.objective.terms["consistency"]
        times = dataclasses.replace(former.time_sampler, end="cubic", std=1.6)
        assert terms.pop("consistency") == dataclasses.replace(former, time_sampler=times)
        assert terms == {"flow": method.objective.terms["flow"]}
    elif settings.startswith("lr="):
        assert changed == ["lr"] and variant.lr == float(settings.removeprefix("lr="))
    else:
        assert changed == ["objective"]


def test_ctm_without_the_comparison_at_the_data():
    assert METHODS["ctm"].objective.terms["consistency"].at_data
    assert not VARIANTS["ctm:at_data=false"].objective.terms["consistency"].at_data
    # The terms are those of the library with a solver, and nothing else.
    changed = VARIANTS["gtp:solver=euler"].objective.terms
    assert changed["consistency"] == Consistency(solver="euler", semigroup_every=8)
    assert changed["flow"] == METHODS["gtp"].objective.terms["flow"]


def test_the_paper_has_its_own_range_of_noise():
    assert METHODS["paper"].noise_levels.sigma_max == family("paper").noise_levels.sigma_max == 80


@pytest.mark.parametrize(
    ("name", "expected"),
    # CTM: student, its jump to the data and the teacher's two, the solver's two, and the flow term.
    # Distillation: student, teacher and the solver's two of the frozen denoiser.
    [
        ("gtp", 3.125),
        ("paper", 3),
        ("diffusion", 1),
        ("shortcut", 4),
        ("ctm", 7),
        ("mean_flow", 2),
        ("consistency_distillation", 4),
        ("gtp_distillation", 5),
    ],
)
def test_network_evaluations_are_counted(name, expected):
    data = PlanarSet("ring")
    condition, action, _ = data.draw(8)
    batch = TensorDict({"observation": condition, "action": action}, [8])
    method = METHODS[name]
    actor, other = (make_actor(method, data, Network()) for _ in range(2))
    loss = make_loss(method, data, actor, other if isinstance(method, Distilled) else None)
    assert network_evaluations(loss, batch) == expected


def test_a_distilled_method_trains_its_denoiser_first_and_begins_with_its_weights(monkeypatch):
    method, data, made = METHODS["consistency_distillation"], PlanarSet("ring"), []

    def recorded(*arguments):
        update, evaluations = make_update(*arguments)
        start = {k: v.clone() for k, v in update.loss_module.target_actor().state_dict().items()}
        made.append((arguments[0], update, start))
        return update, evaluations

    make_update = training_module._make_update
    monkeypatch.setattr(training_module, "_make_update", recorded)
    options = dataclasses.replace(TINY, num_updates=8)
    torch.manual_seed(0)
    actor, num_updates, evaluations = training_module.train(method, data, options)
    (first, before, _), (second, after, start) = made
    assert (first, second) == (METHODS["diffusion"], method)
    # Half of 24 evaluations: 12 updates of the denoiser, 3 of four evaluations after it.
    assert (before.num_updates, after.num_updates) == (12, 3)
    assert (num_updates, evaluations) == (15, 24 / 15)
    denoiser = before.loss_module.target_actor()
    assert_close(start, denoiser.state_dict(), rtol=0, atol=0)
    frozen = after.loss_module.denoiser.state_dict()
    assert_close(frozen, dict(denoiser.flow_map.state_dict()), rtol=0, atol=0)
    changed = [not torch.equal(value, start[key]) for key, value in actor.state_dict().items()]
    assert any(changed)


@pytest.mark.parametrize("num_updates", [1, 2, 3])
def test_too_few_evaluations_for_a_denoiser_and_what_is_distilled_are_refused(num_updates):
    options = dataclasses.replace(TINY, num_updates=num_updates)
    with pytest.raises(ValueError, match=f"num_updates={num_updates} is not.*give at least 4"):
        cells_module.train(METHODS["gtp_distillation"], PlanarSet("ring"), options)


def test_each_network_on_a_gpu_is_distilled_from_its_own_denoiser(monkeypatch):
    method, seen = METHODS["gtp_distillation"], []

    def recorded(method, sets, seeds, options, device, denoisers):
        seen.append((method, seeds, options.num_updates, denoisers))
        actors = [make_actor(method, data, Network()) for data in sets]
        return [training_module.Trained(actor, 10 * len(seen), len(seen)) for actor in actors]

    monkeypatch.setattr(training_module, "_train_at_once", recorded)
    data, options = PlanarSet("ring"), dataclasses.replace(TINY, num_updates=9)
    cpu = torch.device("cpu")
    trained = train_side_by_side(method, [data, data], [3, 4], options, cpu)
    (first, _, before, none), (second, seeds, after, denoisers) = seen
    assert (first, before, none) == (METHODS["diffusion"], 4, [None, None])
    assert (second, after, seeds) == (method, 5, [3, 4])
    assert len(set(map(id, denoisers))) == 2
    assert [(one.num_updates, one.evaluations) for one in trained] == [(30, 50 / 30)] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"denoiser_share": 1.0}, r"denoiser_share must lie in \(0, 1\), got 1.0"),
        ({"noise_levels": NoiseLevels(sigma_max=80.0)}, "the same noise_levels"),
    ],
)
def test_bad_distilled_methods_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(METHODS["gtp_distillation"], **changes)


@pytest.mark.parametrize("name", ["gtp", "diffusion", "ddpm", "consistency", "shortcut"])
@pytest.mark.parametrize("num_steps", [1, 4])
def test_trajectories_end_at_the_samples(name, num_steps):
    torch.manual_seed(0)
    method = METHODS[name]
    actor = make_actor(method, PlanarSet("ring"), Network())
    condition, noise = torch.zeros(9, 1), torch.randn(9, 2)
    for sampler in method.samplers.values():
        # Some samplers draw noise on the way.
        torch.manual_seed(1)
        passed, times = trajectory(actor, sampler, condition, noise, num_steps)
        torch.manual_seed(1)
        samples = sample(actor, sampler, condition, noise, num_steps)
        assert passed.shape == (sampler.evaluations(num_steps) + 1, 9, 2)
        if name != "ddpm":  # It starts with the spread of noised data, not of the noise alone.
            torch.testing.assert_close(passed[0], times[0] * noise)
        torch.testing.assert_close(passed[-1].clamp(-1, 1), samples)


def test_a_finished_cell_is_not_run_again(tmp_path, monkeypatch):
    runs = []
    monkeypatch.setattr(cells_module, "run_cell", lambda *arguments: runs.append(arguments))
    first, second = tiny_cell(seed=0), tiny_cell(seed=1)
    run_cell(first, tmp_path)
    before = first.path(tmp_path).stat().st_mtime_ns
    run_cells([first, second], tmp_path, compiled=True)
    assert runs == [(second, tmp_path, True)]
    assert first.path(tmp_path).stat().st_mtime_ns == before


def test_the_cells_of_a_set_share_one_measurement_of_its_floor(tmp_path, monkeypatch):
    measured = []

    def counted(data, *arguments):
        measured.append(data.name)
        return evaluation.measure_floor(data, *arguments)

    monkeypatch.setattr(cells_module, "measure_floor", counted)
    # A size that no other test has: the floors of a process are kept.
    cells = [
        Cell("gtp", data, seed, TINY, num_samples=41)
        for data in ("ring", "line")
        for seed in (0, 1)
    ]
    run_cells(cells, tmp_path)
    assert measured == ["ring", "line"]
    floors = [json.loads(cell.path(tmp_path).read_text())["floor"] for cell in cells]
    assert floors[0] == floors[1] != floors[2] == floors[3]


def test_a_cell_without_its_weights_is_finished_and_left_out_of_the_pictures(tmp_path):
    arguments = ["--methods", "gtp", "diffusion", "--sets", "ring", "--seeds", "0"]
    arguments += ["--updates", "2", "--samples", "30", "--out", str(tmp_path)]
    main(arguments)
    before = (tmp_path / "results.csv").read_text()
    picture = tmp_path / "ring-samples.png"
    for name in ("gtp", "diffusion"):
        whole = picture.stat().st_size
        (tmp_path / "cells" / f"ring-{name}-0.pt").unlink()
        picture.unlink()
        main(arguments)
        assert (tmp_path / "results.csv").read_text() == before
        if name == "gtp":
            assert picture.stat().st_size < whole
        else:
            assert not picture.exists()


def test_an_interrupted_cell_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    cell = tiny_cell()
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_cell(cell, tmp_path)
    assert not finished(cell, tmp_path)
    assert not list((tmp_path / "cells").iterdir())


def test_a_cell_of_a_method_that_has_changed_since_is_an_error(tmp_path, monkeypatch):
    cell = tiny_cell()
    run_cell(cell, tmp_path)
    assert finished(cell, tmp_path)
    changed = {"gtp": VARIANTS["gtp:semigroup_every=none"]}
    monkeypatch.setattr(cells_module, "ALL_METHODS", changed)
    with pytest.raises(ValueError, match="other settings"):
        finished(cell, tmp_path)


def test_a_cell_of_other_settings_is_an_error(tmp_path):
    cell = tiny_cell()
    run_cell(cell, tmp_path)
    other = dataclasses.replace(cell, training=dataclasses.replace(TINY, num_updates=5))
    with pytest.raises(ValueError, match="other settings"):
        run_cells([other], tmp_path)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon is new")
def test_muon_trains_the_hidden_weights(tmp_path):
    training = dataclasses.replace(TINY, tau=1.0, num_updates=2)
    adam = dataclasses.replace(tiny_cell(), training=training)
    muon = dataclasses.replace(adam, training=dataclasses.replace(training, muon_lr=0.02))
    for cell, folder in ((adam, "adam"), (muon, "muon")):
        run_cell(cell, tmp_path / folder)
        assert finished(cell, tmp_path / folder)
    with pytest.raises(ValueError, match=r"other settings.*'muon_lr': 0\.02"):
        finished(muon, tmp_path / "adam")
    # Two updates' evaluations are one update with its rows of two jumps: before a second one all
    # but the hidden weights are those of Adam.
    weights = [torch.load(adam.weights(tmp_path / folder)) for folder in ("adam", "muon")]
    moved = {key for key in weights[0] if not torch.equal(weights[0][key], weights[1][key])}
    assert moved == {f"flow_map.backbone.trunk.{layer}.weight" for layer in (2, 4)}


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon is new")
@pytest.mark.parametrize(
    ("method", "rates"),
    [
        ("gtp", [(4e-3, 0.02)]),
        ("consistency", [(1e-3, 0.005)]),
        # First the denoiser, which has the common rates.
        ("gtp_distillation:end=cubic,std=1.6,lr=2e-3", [(4e-3, 0.02), (2e-3, 0.01)]),
    ],
)
def test_muon_follows_a_rate_of_the_methods_own(monkeypatch, method, rates):
    asked = []

    def recorded(loss, lr, *, muon_lr):
        asked.append((lr, muon_lr))
        return make_optimizer(loss, lr, muon_lr=muon_lr)

    monkeypatch.setattr(training_module, "make_optimizer", recorded)
    options = dataclasses.replace(TINY, lr=4e-3, muon_lr=0.02)
    train(ALL_METHODS[method], PlanarSet("ring"), options)
    assert asked == [pytest.approx(pair) for pair in rates]


def test_a_cell_depends_on_its_seed_alone(tmp_path):
    for folder in ("a", "b"):
        torch.rand(1)
        run_cell(tiny_cell(), tmp_path / folder)
    run_cell(tiny_cell(seed=1), tmp_path / "a")
    rows = [
        json.loads(tiny_cell(seed=seed).path(tmp_path / folder).read_text())
        for folder, seed in (("a", 0), ("b", 0), ("a", 1))
    ]
    assert rows[0]["rows"] == rows[1]["rows"] != rows[2]["rows"]
    # The data that samples are compared with are those of every seed.
    assert rows[0]["floor"] == rows[2]["floor"]


def test_the_table_gives_means_and_spreads(tmp_path):
    cells = [tiny_cell(seed=seed) for seed in (0, 1)]
    run_cells(cells, tmp_path)
    rows = read_rows([*cells, tiny_cell(seed=2)], tmp_path)
    shares = [
        row["energy_distance"]
        for row in rows
        if (row["method"], row["sampler"], row["num_steps"]) == ("gtp", "jumps", 1)
    ]
    # The deviation of a sample, with n - 1: two figures are its root of two times from their mean.
    mean, spread = sum(shares) / 2, abs(shares[0] - shares[1]) / 2**0.5
    text = write_markdown(rows, tmp_path / "results.md", "A head.")
    assert text.startswith("A head.\n") and f"{1e3 * mean:.2f} ± {1e3 * spread:.2f}" in text
    assert text.count("| data ") == text.count("###") == 4


def test_a_number_of_steps_that_a_method_does_not_take_is_a_dash(tmp_path):
    arguments = ["--methods", "ddpm", "gtp", "--sets", "ring", "--seeds", "0"]
    main([*arguments, "--updates", "2", "--samples", "30", "--out", str(tmp_path)])
    lines = (tmp_path / "results.md").read_text().splitlines()
    header = next(line for line in lines if line.startswith("| method"))
    steps = [one.strip() for one in header.split("|")[4:-1]]
    for name in ("ddpm", "gtp"):
        line = next(line for line in lines if line.startswith(f"| {name} "))
        cells = dict(zip(steps, [one.strip() for one in line.split("|")[4:-1]], strict=True))
        assert {key for key, value in cells.items() if value == "-"} == (
            {"K = 10", "K = 40"} if name == "ddpm" else set()
        )
    assert (tmp_path / "ring-samples.png").is_file()


def test_the_table_says_what_made_it(tmp_path, monkeypatch):
    """The command as it was typed, the day and the versions."""
    arguments = ["--quick", "--methods", "gtp", "--updates", "2", "--samples", "20"]
    arguments += ["--sets", "line", "--out", str(tmp_path / "a folder")]
    monkeypatch.setattr(sys, "argv", ["few_step", *arguments])
    main()
    head = (tmp_path / "a folder" / "quick" / "results.md").read_text().splitlines()[0]
    typed = " ".join(arguments[:-1])
    assert f"`python -m benchmarks.few_step {typed} '{tmp_path}/a folder'`" in head
    today = datetime.datetime.now(datetime.timezone.utc).date()
    assert any(str(today - datetime.timedelta(days=days)) in head for days in (0, 1))
    for package in (torch, torchrl, tensordict, torchrl_gtp):
        assert f"{package.__name__} {package.__version__}" in head


def test_a_cell_notes_when_and_with_what_it_was_made(tmp_path):
    cell = tiny_cell()
    before = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    run_cell(cell, tmp_path)
    origin = read_origin(cell.path(tmp_path))
    date = datetime.datetime.fromisoformat(origin["date"])
    assert before <= date <= datetime.datetime.now(datetime.timezone.utc)
    assert origin["versions"]["torch"] == torch.__version__
    assert origin["versions"]["torchrl_gtp"] == torchrl_gtp.__version__
    assert origin["commit"] == commit()
    # A cell of before is finished, too, and read.
    record = json.loads(cell.path(tmp_path).read_text())
    del record["origin"]
    cell.path(tmp_path).write_text(json.dumps(record))
    assert finished(cell, tmp_path) and read_origin(cell.path(tmp_path)) is None
    assert read_rows([cell], tmp_path)


def test_a_compiled_cell_says_so_and_trains_as_an_eager_one(tmp_path):
    cell = tiny_cell()
    run_cell(cell, tmp_path / "eager")
    with inductor_config.patch(fallback_random=True):  # the random numbers of the eager cell
        run_cell(cell, tmp_path / "compiled", compiled=True)
    eager, compiled = (torch.load(cell.weights(tmp_path / name)) for name in ("eager", "compiled"))
    torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-4)
    paths = [cell.path(tmp_path / name) for name in ("eager", "compiled")]
    assert [read_origin(path).get("compiled") for path in paths] == [None, True]
    assert "on CPU (compiled); commit" in provenance("a command", paths[1:])
    assert "on CPU and CPU (compiled)" in provenance("a command", paths)


@pytest.mark.parametrize(
    ("origins", "expected"),
    [
        ([], "0 cells without a date."),
        ([None, None], "2 cells without a date."),
        ([("2026-11-28", "2.13", "a")], "Cells of 2026-11-28; torch 2.13, on CPU; commit a."),
        (
            [("2026-12-01", "2.13", "b"), None, ("2026-11-28", "2.13", None)],
            "Cells of 2026-11-28 to 2026-12-01; 1 cells without a date; torch 2.13, on CPU; "
            "commit b, unknown.",
        ),
        (
            [("2026-11-28", "2.13", "a"), ("2026-11-28", "2.15", "a")],
            "Cells of 2026-11-28; torch 2.13 and 2.15, on CPU; commit a. **They are mixed.**",
        ),
    ],
)
def test_the_head_of_a_table_says_when_and_with_what_its_cells_were_made(
    tmp_path, origins, expected
):
    paths = []
    for index, origin in enumerate(origins):
        record = {}
        if origin is not None:
            date, version, of = origin
            record["origin"] = {"date": f"{date}T01:02:03+00:00", "commit": of}
            record["origin"]["versions"] = {"torch": version}
        paths.append(tmp_path / f"{index}.json")
        paths[-1].write_text(json.dumps(record))
    lines = provenance("a command", paths).splitlines()
    assert lines[0].startswith("`a command`, 20")
    assert lines[2] == f"{expected} Behind ± stands the standard deviation over seeds, of a " + (
        "sample (n - 1)."
    )


def test_the_finished_cells_of_the_repository_are_taken_for_the_present_methods():
    """Whoever changes a method finds out that they are not its cells any more."""
    root = Path(__file__).parents[2] / "docs" / "results" / "few_step"
    paths = sorted(root.glob("**/cells/*.json"))
    assert len(paths) >= 254
    for path in paths:
        settings = json.loads(path.read_text())["cell"]
        training = dict(settings.pop("training"))
        training["network"] = Network(**training.pop("network"))
        cell, folder = Cell(**settings, training=Training(**training)), path.parents[1]
        assert cell.path(folder) == path and finished(cell, folder)


def test_a_set_that_is_too_small_is_left_out_as_one_that_is_not_there(tmp_path, monkeypatch):
    def too_small(name):
        if "/" in name:
            raise ValueError(f"{name} has 3 held-out states, but a group takes 50.")
        return PlanarSet(name)

    monkeypatch.setattr("benchmarks.few_step.__main__.make_set", too_small)
    arguments = ["--methods", "ddpm", "--seeds", "0", "--updates", "1", "--samples", "20"]
    arguments += ["--out", str(tmp_path)]
    main([*arguments, "--sets", "too/small-v0", "ring"])
    assert [path.name for path in (tmp_path / "cells").glob("*.json")] == ["ring-ddpm-0.json"]
    with pytest.raises(SystemExit, match="None of the sets"):
        main([*arguments, "--sets", "too/small-v0"])


@pytest.mark.parametrize("own", [True, False])
def test_a_learning_rate_that_does_not_apply_is_said(tmp_path, monkeypatch, own):
    said = []
    monkeypatch.setattr("benchmarks.few_step.__main__.torchrl_logger.info", said.append)
    method = "consistency" if own else "ddpm"
    arguments = ["--methods", method, "--sets", "ring", "--seeds", "0", "--updates", "1"]
    main([*arguments, "--samples", "20", "--lr", "0.0005", "--out", str(tmp_path)])
    text = "consistency has a learning rate of its own: 0.001, not 0.0005."
    assert (text in said) == own


def test_a_budget_below_one_update_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"num_updates=2 .* takes 7.* give at least 3"):
        run_cell(Cell("ctm", "ring", 0, Training(num_updates=2, batch_size=16), 20), tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_one_command_writes_tables_and_pictures(tmp_path):
    arguments = ["--quick", "--updates", "2", "--samples", "30", "--out", str(tmp_path)]
    main([*arguments, "--sets", "ring", "not/there-v0"])
    folder = tmp_path / "quick"
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    rows_of_a_set = len(NUM_STEPS) * sum(
        len(METHODS[name].samplers) for name in ("gtp", "diffusion")
    )
    assert len([row for row in rows if row["method"] != "data"]) == rows_of_a_set
    assert {row["data"] for row in rows} == {"ring"}
    assert "share on a mode" in (folder / "results.md").read_text()
    for kind in ("samples", "trajectories"):
        assert (folder / f"ring-{kind}.png").stat().st_size > 10_000


@pytest.mark.slow
def test_cells_run_in_processes(tmp_path):
    cells = [tiny_cell(seed=seed) for seed in (0, 1)]
    run_cells(cells, tmp_path, num_jobs=2)
    assert all(finished(cell, tmp_path) for cell in cells)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", METHODS)
def test_on_a_gpu_the_cells_of_a_method_are_trained_side_by_side(name, tmp_path):
    training = dataclasses.replace(TINY, num_updates=4_000)
    cells = [
        Cell(name, data, seed, training, num_samples=500)
        for data in ("ring", "turned_ring", "chunks")
        for seed in (0, 1)
    ]
    run_cells(cells, tmp_path, device=torch.device("cuda"))
    for cell in cells:
        (before, *_), data = METHODS[name].samplers, make_set(cell.data)
        record = json.loads(cell.path(tmp_path).read_text())
        assert record["origin"]["device"] == torch.cuda.get_device_name()
        # Both devices meet the same data, and a training of so few updates has learnt something.
        floor = evaluation.measure_floor(data, 500)
        assert record["floor"] == pytest.approx(floor, rel=1e-4, abs=1e-6)
        torch.manual_seed(cell.seed)
        untrained = make_actor(METHODS[name], data, Network())
        at_start = evaluation.measure(untrained, METHODS[name], data, 500, cell.seed)
        begin, end = (
            next(row for row in rows if (row["sampler"], row["num_steps"]) == (before, 5))
            for rows in (at_start, record["rows"])
        )
        assert end["energy_distance"] < 0.7 * begin["energy_distance"]
    # A network is not that of another seed.
    weights = [torch.load(cell.weights(tmp_path)) for cell in cells[:2]]
    assert not any(
        torch.equal(weights[0][key], weights[1][key]) for key in weights[0] if "weight" in key
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_neighbours_on_a_gpu_draw_for_themselves():
    device, data = torch.device("cuda"), PlanarSet("ring")
    first, second = (
        one.actor.state_dict()
        for one in train_side_by_side(METHODS["gtp"], [data, data], [0, 0], TINY, device)
    )
    assert not any(torch.equal(first[key], second[key]) for key in first if "weight" in key)


def test_cells_of_one_method_and_training_are_trained_together():
    other = dataclasses.replace(TINY, num_updates=5)
    cells = [tiny_cell("gtp", seed) for seed in range(30)] + [tiny_cell("ddpm", 0)]
    cells += [dataclasses.replace(tiny_cell("gtp", 0), training=other)]
    groups = cells_module._groups(cells)
    assert [len(group) for group in groups] == [24, 6, 1, 1]
    assert [cell for group in groups for cell in group] == cells
    assert all(len({(cell.method, cell.training) for cell in group}) == 1 for group in groups)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--methods", "gpt"],
        ["--jobs", "0"],
        ["--samples", "0"],
        ["--updates", "0"],
        ["--seeds", "0", "-5"],
        ["--seeds", "10000"],
        ["--sets", "rings"],
        ["--lr", "0"],
        ["--lr", "nan"],
        ["--muon-lr", "0"],
        ["--muon-lr", "inf"],
        ["--tau", "1.5"],
        ["--device", "meta"],
        ["--device", "gpu"],
        ["--device", ""],
        ["--device", "cuda:-1"],
        ["--device", "cuda:99"],
        ["--compile", "--device", "cuda"],
    ],
)
def test_bad_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(arguments)
    # The usage before it names all options.
    assert arguments[0] in capsys.readouterr().err.rpartition("error:")[2]


def test_pytorch_init_has_smaller_hidden_layers():
    method, data = METHODS["gtp"], PlanarSet("ring")
    stds = {}
    for init in ("pytorch", "kaiming"):
        trunk = make_actor(method, data, Network(init=init)).flow_map.backbone.trunk
        layers = [layer for layer in trunk if isinstance(layer, torch.nn.Linear)]
        stds[init] = [layer.weight.std().item() for layer in layers]
    # Variances of 2 / fan_in and 1 / (3 fan_in).
    for large, small in zip(stds["kaiming"][:-1], stds["pytorch"][:-1], strict=True):
        assert large / small == pytest.approx(6**0.5, rel=0.05)
    assert stds["kaiming"][-1] == pytest.approx(stds["pytorch"][-1], rel=0.2)
