"""Trained networks measured with many samples."""

from __future__ import annotations

import csv
import json

import pytest

from benchmarks.few_step.aim import COMPARED, main, ways_of
from benchmarks.few_step.cells import Cell, run_cell
from benchmarks.few_step.methods import METHODS
from benchmarks.few_step.training import Training

TINY = Training(num_updates=4, batch_size=16)


def test_what_is_compared_is_measured(tmp_path):
    trainings = [("gtp", 0), ("gtp", 1), ("diffusion", 0), ("consistency", 0), ("shortcut", 0)]
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
            if comparison.num_steps > 1:
                assert ("gtp", name, comparison.num_steps) in measured
    assert {method for method, _, _ in measured} == {"gtp", "diffusion", "consistency", "data"}
    # One draw for all seeds, so that the floor is one as well.
    floors = {row["energy_distance"] for row in rows if row["method"] == "data"}
    assert len(floors) == 1
    assert (
        (tmp_path / "aim" / "aim.md").read_text().startswith("`python -m benchmarks.few_step.aim")
    )

    first, second = (cells[i].path(tmp_path / "aim") for i in (0, 1))
    whole = {path: json.loads(path.read_text()) for path in (first, second)}
    assert whole[first]["cell"]["num_samples"] == 50
    made = first.stat().st_mtime_ns
    # Of another training: measured again, to the same figures.
    second.write_text(json.dumps({**whole[second], "cpu_seconds": -1.0, "rows": []}))
    main(arguments)
    assert first.stat().st_mtime_ns == made
    assert json.loads(second.read_text()) == whole[second]


def test_a_variant_of_gtp_is_sampled_as_gtp_is():
    variant = [way[::2] for way in ways_of("gtp:some_rows=2,semigroup_every=4")]
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
