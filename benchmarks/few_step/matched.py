"""What a matched start buys: trained networks of the benchmark measured once more.

Takes finished cells with their weights, samples from them with a
:class:`~torchrl_gtp.flow_map.MatchedStart` before each sampler that can have one, and writes cells
with these rows beside their own, ``matched.csv`` and ``matched.md``. Cells of methods that are not
measured go into the tables as they are::

    python -m benchmarks.few_step.matched --cells outputs/few_step/cells

Data and first noise are those that the cells were measured with. Jumps with fresh noise are
measured with another share of it besides. What has been measured is not measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torchrl import torchrl_logger

from benchmarks.few_step.cells import Cell, write_record
from benchmarks.few_step.evaluation import measure
from benchmarks.few_step.methods import ALL_METHODS
from benchmarks.few_step.report import command_line, write_tables
from benchmarks.few_step.sets import make_set
from benchmarks.few_step.steps import cell_of, read_cell
from torchrl_gtp import GTPActor
from torchrl_gtp.flow_map import AncestralSampler, JumpSampler, MatchedStart, Sampler

__all__ = ["MATCHED", "matched_samplers", "measure_matched"]

MATCHED = ", matched start"
"""What the names of samplers end with."""

_LESS_NOISE = {"gamma=0.7": JumpSampler(gamma=0.7)}


def measure_matched(
    cell: Cell, actor: GTPActor, samplers: Mapping[str, Sampler]
) -> list[dict[str, Any]]:
    """Measures samplers that begin at a matched start.

    K counts the steps of the sampler; the start takes one evaluation more.

    Args:
        cell: what was trained.
        actor: the actor.
        samplers: the samplers by name.
    """
    method = ALL_METHODS[cell.method]
    data = make_set(cell.data)
    rows = []
    for name, sampler in samplers.items():
        # One at a time, so that what it draws does not depend on those before.
        one = dataclasses.replace(method, samplers={name: sampler})
        rows += measure(actor, one, data, cell.num_samples, cell.seed)
    return rows


def matched_samplers(method: str) -> dict[str, Sampler]:
    """Returns the samplers of a method with a matched start, by name."""
    samplers = dict(ALL_METHODS[method].samplers)
    if "gamma=0.9" in samplers:
        samplers |= _LESS_NOISE
    return {f"{name}{MATCHED}": MatchedStart(sampler) for name, sampler in samplers.items()}


def _has_own_levels(method: str) -> bool:
    samplers = ALL_METHODS[method].samplers.values()
    return any(isinstance(sampler, AncestralSampler) for sampler in samplers)


def _begun(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """The record, with the rows that are there already from the same training."""
    if path.is_file():
        there: dict[str, Any] = json.loads(path.read_text())
        own = {**there, "rows": there["rows"][: len(record["rows"])]}
        # As text: a figure that is no number is not equal to itself.
        if json.dumps(own) == json.dumps(record):
            return there
    return record


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures the cells of a folder and writes the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.few_step.matched",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cells", type=Path, required=True, help="folder of finished cells")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["gtp", "diffusion"],
        choices=[name for name in ALL_METHODS if not _has_own_levels(name)],
        metavar="METHOD",
        help="those to measure, which need a trained denoiser; not DDPM, which starts at levels "
        "of its own; default: %(default)s",
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/few_step/matched"))
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    if (options.out / "cells").resolve() == options.cells.resolve():
        parser.error(f"--out must be another folder than that of --cells, got {options.out}")
    torch.set_num_threads(1)
    (options.out / "cells").mkdir(parents=True, exist_ok=True)
    cells, measured = [], False
    for path in sorted(options.cells.glob("*.json")):
        record = json.loads(path.read_text())
        to = options.out / "cells" / path.name
        cell = cell_of(record)
        if cell.method not in options.methods:
            write_record(record, to)
            cells.append(cell)
            continue
        if not path.with_suffix(".pt").is_file():
            torchrl_logger.warning(f"Leaving out {path.stem}, whose weights were not kept.")
            continue
        cells.append(cell)
        measured = True
        record = _begun(to, record)
        known = {row["sampler"] for row in record["rows"]}
        missing = {
            name: sampler
            for name, sampler in matched_samplers(cell.method).items()
            if name not in known
        }
        if missing:
            _, actor = read_cell(path)
            rows = measure_matched(cell, actor, missing)
            write_record({**record, "rows": [*record["rows"], *rows]}, to)
            torchrl_logger.info(f"Measured {path.stem}.")
    if not measured:
        parser.error(
            f"--cells: there is no finished cell of {options.methods} with its weights in "
            f"{options.cells}"
        )
    command = command_line("benchmarks.few_step.matched", arguments)
    write_tables(cells, options.out, "matched", command)


if __name__ == "__main__":
    main()
