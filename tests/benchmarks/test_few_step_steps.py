"""What fitted times and adaptive numbers of jumps buy, over cells of a small run."""

from __future__ import annotations

import csv
import dataclasses

import pytest
import torch

from benchmarks.few_step.cells import Cell, run_cell
from benchmarks.few_step.steps import GRID, interpolated, main, make_tables, read_cell, spearman
from benchmarks.few_step.training import Training

WAYS = {"data", "grid", "fitted", "noised", "adaptive", "estimate"}
TINY = Training(num_updates=4, batch_size=16)


def cell(seed):
    return Cell("gtp", "ring", seed, TINY, num_samples=30)


def test_one_command_reads_cells_and_writes_the_table(tmp_path):
    for seed in (0, 1):
        run_cell(cell(seed), tmp_path)
    arguments = ["--samples", "40", "--fit", "30", "--out", str(tmp_path / "out")]
    main(["--cells", str(tmp_path / "cells"), *arguments])
    with (tmp_path / "out" / "steps.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["seed"] for row in rows} == {"0", "1"}
    assert {row["way"] for row in rows} == WAYS
    for row in rows:
        if row["way"] == "fitted":
            assert len(row["times"].split()) == float(row["evaluations"]) - 1
        if row["way"] == "noised":
            same = [one for one in rows if one["way"] == "grid" and one["seed"] == row["seed"]]
            grid = next(one for one in same if one["setting"] == row["setting"])
            assert grid["evaluations"] == row["evaluations"]
            assert grid["energy_distance"] != row["energy_distance"]
        if row["way"] == "adaptive":
            assert 3 <= float(row["evaluations"]) <= 15
        if row["way"] == "estimate":
            assert -1 <= float(row["spearman"]) <= 1
    text = (tmp_path / "out" / "steps.md").read_text()
    assert "ring (2 seeds)" in text and "tolerance 0.05" in text
    head, _, cells = text.splitlines()[:3]
    assert "`python -m benchmarks.few_step.steps --cells" in head and torch.__version__ in head
    assert cells.startswith("Cells of 20") and "of a sample (n - 1)" in cells


def test_chunks_of_actions_are_sampled_in_all_ways(tmp_path):
    run_cell(dataclasses.replace(cell(0), data="chunks"), tmp_path)
    arguments = ["--samples", "20", "--fit", "20", "--out", str(tmp_path / "out")]
    main(["--cells", str(tmp_path / "cells"), *arguments])
    with (tmp_path / "out" / "steps.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["way"] for row in rows} == WAYS


def test_a_cell_is_read_with_its_weights(tmp_path):
    run_cell(cell(0), tmp_path)
    # The folder may have any name.
    path = cell(0).path(tmp_path).parent.rename(tmp_path / "kept") / cell(0).path(tmp_path).name
    found, actor = read_cell(path)
    assert found == cell(0)
    weights = torch.load(path.with_suffix(".pt"), weights_only=True)
    torch.testing.assert_close(dict(actor.state_dict()), dict(weights))


def test_figures_are_compared_with_the_grid_at_equal_evaluations():
    """Means over seeds of figures between those of the grid of the same seed."""
    about = {"data": "ring", "method": "gtp"}
    rows = [
        {**about, "seed": seed, "way": "grid", "setting": f"K = {k}", "evaluations": k}
        | {"energy_distance": (k + seed) / 1_000}
        for seed in (0, 2)
        for k in GRID
    ]
    rows += [
        {**about, "seed": seed, "way": "adaptive", "setting": "tolerance 0.1"}
        | {"evaluations": 4.0 + seed, "energy_distance": 0.001}
        for seed in (0, 2)
    ]
    line = next(line for line in make_tables(rows).splitlines() if "adaptive" in line)
    cells = [one.strip() for one in line.strip("|").split("|")]
    # The deviation of a sample: of 4 and 8 it is the root of 8.
    assert cells[2:5] == ["5.00", "1.00", "6.00 ± 2.83"]


def test_interpolation_and_rank_correlation():
    grid = [(1, 0.0), (3, 1.0), (5, 3.0)]
    assert [interpolated(grid, at) for at in (1, 2, 3, 4, 5)] == [0.0, 0.5, 1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="lies outside 1 to 5"):
        interpolated(grid, 6)
    values = torch.tensor([3.0, 1.0, 2.0, 5.0])
    assert spearman(values, values**3) == pytest.approx(1.0)
    assert spearman(values, -values) == pytest.approx(-1.0)
    # Of the ranks 1 2 3 4 and 2 1 4 3 the squared differences sum to 4: 1 - 6 * 4 / 60.
    assert spearman(torch.arange(4.0), torch.tensor([2.0, 1.0, 4.0, 3.0])) == pytest.approx(0.6)


@pytest.mark.parametrize("arguments", [["--samples", "0"], ["--fit", "1"]])
def test_bad_arguments_are_refused(tmp_path, capsys, arguments):
    with pytest.raises(SystemExit):
        main(["--cells", str(tmp_path), *arguments])
    assert f"{arguments[0]} must be at least" in capsys.readouterr().err


def test_a_folder_without_cells_or_their_weights_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--cells", str(tmp_path)])
    assert "there is no finished cell" in capsys.readouterr().err
    run_cell(cell(0), tmp_path)
    cell(0).weights(tmp_path).unlink()
    with pytest.raises(SystemExit):
        main(["--cells", str(tmp_path / "cells")])
    assert "with its weights" in capsys.readouterr().err
