"""Trained networks measured from a matched start."""

from __future__ import annotations

import csv
import json

import pytest

from benchmarks.few_step.cells import Cell, run_cell
from benchmarks.few_step.evaluation import NUM_STEPS
from benchmarks.few_step.matched import MATCHED, main
from benchmarks.few_step.training import Training

TINY = Training(num_updates=4, batch_size=16)


def test_rows_of_a_matched_start_stand_beside_those_of_the_cell(tmp_path):
    cells = [Cell(method, "spiral", 0, TINY, 40) for method in ("gtp", "diffusion", "consistency")]
    for cell in cells:
        run_cell(cell, tmp_path)
    arguments = ["--cells", str(tmp_path / "cells"), "--out", str(tmp_path / "matched")]
    main(arguments)
    with (tmp_path / "matched" / "matched.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    samplers = {(row["method"], row["sampler"]) for row in rows}
    plain = {(m, s) for m, s in samplers if s != "-" and not s.endswith(MATCHED)}
    measured = {
        *(("gtp", name) for name in ("jumps", "gamma=0.9", "heun")),
        *(("diffusion", name) for name in ("heun", "euler")),
    }
    # A consistency policy has no denoiser: its cell is there as it was.
    assert plain == measured | {("consistency", "consistency")}
    matched = {(m, f"{s}{MATCHED}") for m, s in measured} | {("gtp", f"gamma=0.7{MATCHED}")}
    assert samplers - plain == matched | {("data", "-")}
    before = json.loads(cells[0].path(tmp_path).read_text())
    after = json.loads(cells[0].path(tmp_path / "matched").read_text())
    assert after["rows"][: len(before["rows"])] == before["rows"]
    assert (
        after["rows"][len(before["rows"])]["energy_distance"]
        != before["rows"][0]["energy_distance"]
    )
    text = (tmp_path / "matched" / "matched.md").read_text()
    assert text.startswith("`python -m benchmarks.few_step.matched --cells")
    gtp, diffusion = (cell.path(tmp_path / "matched") for cell in cells[:2])
    whole = {path: json.loads(path.read_text()) for path in (gtp, diffusion)}
    made = gtp.stat().st_mtime_ns
    # A file of another training is of no use; what is measured is not measured again.
    diffusion.write_text(json.dumps({**whole[diffusion], "cpu_seconds": -1.0}))
    main(arguments)
    assert gtp.stat().st_mtime_ns == made
    # Without the rows of its last sampler, which draws noise on its way.
    gtp.write_text(json.dumps({**whole[gtp], "rows": whole[gtp]["rows"][: -len(NUM_STEPS)]}))
    main(arguments)
    assert {path: json.loads(path.read_text()) for path in (gtp, diffusion)} == whole


def test_the_cells_are_not_written_over(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--cells", str(tmp_path / "cells"), "--out", str(tmp_path)])
    assert "--out must be another folder" in capsys.readouterr().err


def test_a_method_that_starts_elsewhere(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--cells", str(tmp_path), "--methods", "ddpm"])
    assert "invalid choice: 'ddpm'" in capsys.readouterr().err


def test_no_cell_of_these_methods(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--cells", str(tmp_path), "--out", str(tmp_path / "out")])
    assert "there is no finished cell of ['gtp', 'diffusion']" in capsys.readouterr().err
