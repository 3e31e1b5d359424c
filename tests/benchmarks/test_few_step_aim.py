"""Trained networks measured with many samples."""

from __future__ import annotations

import csv
import dataclasses
import json

import pytest
import torch

from benchmarks.few_step import aim
from benchmarks.few_step.aim import COMPARED, main, measure_ways, ways_of
from benchmarks.few_step.cells import Cell, run_cell
from benchmarks.few_step.method import Network, make_actor, sample
from benchmarks.few_step.methods import METHODS
from benchmarks.few_step.sets import make_set
from benchmarks.few_step.training import Training

TINY = Training(num_updates=4, batch_size=16)


def test_what_is_compared_is_measured(tmp_path):
    others = ["diffusion", "consistency", "consistency_distillation"]
    trainings = [("gtp", 0), ("gtp", 1), *((name, 0) for name in others), ("shortcut", 0)]
    cells = [Cell(method, "spiral", seed, TINY, 40) for method, seed in trainings]
    for cell in cells:
        run_cell(cell, tmp_path)
    arguments = ["--cells", str(tmp_path / "cells"), "--samples", "50"]
    arguments += ["--out", str(tmp_path / "aim")]
    main(arguments)
    with (tmp_path / "aim" / "aim.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    measured = {(row["method"], row["sampler"], int(row["num_steps"])) for row in rows}
    for comparison, samplers in COMPARED:
        other = comparison.other
        assert (other.method, other.sampler, other.num_steps) in measured
        for name in samplers:
            assert ("gtp", name, comparison.num_steps) in measured
    assert {method for method, _, _ in measured} == {"gtp", *others, "data"}
    text = (tmp_path / "aim" / "aim.md").read_text()
    assert text.startswith("`python -m benchmarks.few_step.aim --cells")

    first, second = (cells[i].path(tmp_path / "aim") for i in (0, 1))
    whole = {path: json.loads(path.read_text()) for path in (first, second)}
    assert whole[first]["cell"]["num_samples"] == 50
    made = first.stat().st_mtime_ns
    # Of another training, without a way, of another number of samples: measured again.
    for change in (
        {"cpu_seconds": -1.0},
        {"rows": whole[second]["rows"][1:]},
        {"cell": {**whole[second]["cell"], "num_samples": 60}},
    ):
        second.write_text(json.dumps({**whole[second], **change}))
        main(arguments)
        assert json.loads(second.read_text()) == whole[second]
    assert first.stat().st_mtime_ns == made


def _record_samples(monkeypatch):
    """Records what is sampled from: conditions and noise, in the order of the ways."""
    seen = []

    def recorded(actor, sampler, condition, noise, num_steps):
        seen.append((condition, noise))
        return sample(actor, sampler, condition, noise, num_steps)

    monkeypatch.setattr(aim, "sample", recorded)
    return seen


def test_all_methods_meet_the_draw_of_their_seed(monkeypatch):
    seen = _record_samples(monkeypatch)
    data = make_set("turned_ring")
    first = {}
    for method, seed in (("gtp", 0), ("diffusion", 0), ("gtp", 1)):
        actor = make_actor(METHODS[method], data, Network())
        seen.clear()
        rows = measure_ways(data, Cell(method, "turned_ring", seed, TINY, 50), actor)
        assert all(0 <= row["share_on_mode"] <= 1 for row in rows)
        assert all(torch.equal(noise, seen[0][1]) for _, noise in seen)
        first[method, seed] = seen[0]
    assert torch.equal(first["gtp", 0][0], first["diffusion", 0][0])
    assert torch.equal(first["gtp", 0][1], first["diffusion", 0][1])
    assert not torch.equal(first["gtp", 0][1], first["gtp", 1][1])


def test_samples_in_parts_are_those_at_once(monkeypatch):
    data = make_set("ring")
    cell = Cell("diffusion", "ring", 0, TINY, 50)
    actor = make_actor(METHODS["diffusion"], data, Network())
    at_once = measure_ways(data, cell, actor)
    monkeypatch.setattr(aim, "_SAMPLES_AT_ONCE", 7)
    seen = _record_samples(monkeypatch)
    in_parts = measure_ways(data, cell, actor)
    assert [len(noise) for _, noise in seen[:8]] == [7] * 7 + [1]
    assert [row["energy_distance"] for row in in_parts] == pytest.approx(
        [row["energy_distance"] for row in at_once], rel=1e-4
    )


def test_only_sets_in_the_plane_get_more_samples(tmp_path):
    cell = Cell("consistency", "line", 0, TINY, 40)
    run_cell(cell, tmp_path)
    main(["--cells", str(tmp_path / "cells"), "--out", str(tmp_path / "aim")])
    assert json.loads(cell.path(tmp_path / "aim").read_text())["cell"]["num_samples"] == 40


def test_cells_that_cannot_be_measured_are_left_out(tmp_path):
    cells = [Cell("consistency", "ring", seed, TINY, 40) for seed in range(4)]
    for cell in cells:
        run_cell(cell, tmp_path)
    cells[1].weights(tmp_path).unlink()
    records = [json.loads(cell.path(tmp_path).read_text()) for cell in cells]
    records[2]["definition"] = "another"
    records[3]["cell"]["method"] = "gtp:of_another_time"
    for cell, record in zip(cells, records, strict=True):
        cell.path(tmp_path).write_text(json.dumps(record))
    main(["--cells", str(tmp_path / "cells"), "--samples", "40", "--out", str(tmp_path / "aim")])
    there = [path.name for path in (tmp_path / "aim" / "cells").iterdir()]
    assert there == [cells[0].path(tmp_path).name]


def test_trainings_are_not_mixed(tmp_path, capsys):
    longer = dataclasses.replace(TINY, num_updates=5)
    for seed, training in enumerate((TINY, longer)):
        run_cell(Cell("consistency", "ring", seed, training, 40), tmp_path)
    with pytest.raises(SystemExit):
        main(["--cells", str(tmp_path / "cells"), "--samples", "9", "--out", str(tmp_path / "aim")])
    assert "a table must not mix them" in capsys.readouterr().err
    # Nothing was measured in vain.
    assert not (tmp_path / "aim").exists()


@pytest.mark.parametrize("name", ["gtp:some_rows=2,semigroup_every=4", "gtp_distillation"])
def test_a_variant_of_gtp_is_sampled_as_gtp_is(name):
    variant = [way[::2] for way in ways_of(name)]
    assert variant == [way[::2] for way in ways_of("gtp")]
    assert len(variant) == 12


@pytest.mark.parametrize("method", ["ddpm", "paper", "shortcut"])
def test_other_methods_are_not_compared(method):
    assert method in METHODS
    assert not list(ways_of(method))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "{folder}"], "--out must be another folder"),
        (["--samples", "0", "--out", "{folder}/aim"], "--samples must be at least 1, got 0"),
        (["--out", "{folder}/aim"], "there is no finished cell of a method that is compared"),
    ],
)
def test_bad_arguments(tmp_path, capsys, arguments, message):
    given = [one.format(folder=tmp_path) for one in arguments]
    with pytest.raises(SystemExit):
        main(["--cells", str(tmp_path / "cells"), *given])
    assert message in capsys.readouterr().err
