"""Is GTP after a few jumps as good as the others after many steps? Measured with many samples.

Takes finished cells with their weights, samples in the ways that :data:`COMPARED` has, and writes
``aim.csv`` and ``aim.md``::

    python -m benchmarks.few_step.aim --cells outputs/few_step/cells

Each condition of a set in the plane gets 100,000 samples, in the place of the 12,000 of a cell;
other sets have as many as their cells. All methods meet the same draw of data and first noise, and
each seed has its own, so that the spread over seeds is that of trainings and measurements together.
What has been measured is not measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchrl import torchrl_logger

from benchmarks.few_step.cells import Cell, write_record
from benchmarks.few_step.data_set import DataSet, Reference
from benchmarks.few_step.matched import MATCHED, matched_samplers
from benchmarks.few_step.measures import (
    grouped_energy_distance,
    grouped_planar_energy_distance,
    mode_statistics,
)
from benchmarks.few_step.method import sample
from benchmarks.few_step.methods import ALL_METHODS
from benchmarks.few_step.report import command_line, write_tables
from benchmarks.few_step.sets import make_set
from benchmarks.few_step.steps import cell_of, read_cell
from benchmarks.few_step.ways import COMPARISONS, DISTILLED_COMPARISONS, Comparison
from torchrl_gtp import GTPActor
from torchrl_gtp.flow_map import Sampler

__all__ = ["COMPARED", "measure_ways", "ways_of"]

_PLAIN = {"jumps": "jumps", "gamma=0.9": "`gamma=0.9`"}
_FROM_MATCHED = {
    f"jumps{MATCHED}": "matched",
    f"gamma=0.7{MATCHED}": "matched, `gamma=0.7`",
    f"gamma=0.9{MATCHED}": "matched, `gamma=0.9`",
}
_ALSO_MATCHED = [
    one._replace(
        title=f"{one.title}, matched",
        other=one.other._replace(sampler=f"{one.other.sampler}{MATCHED}"),
    )
    for one in COMPARISONS
    if one.other.method == "diffusion"
]


def _with_samplers(
    comparison: Comparison, samplers: Mapping[str, str]
) -> tuple[Comparison, Mapping[str, str]]:
    # A single jump leaves no level for fresh noise.
    noised = comparison.num_steps > 1
    return comparison, {k: v for k, v in samplers.items() if noised or "gamma" not in k}


COMPARED = [
    *(
        _with_samplers(one, {**_PLAIN, **_FROM_MATCHED})
        for one in [*COMPARISONS, *DISTILLED_COMPARISONS]
    ),
    *(_with_samplers(one, _FROM_MATCHED) for one in _ALSO_MATCHED),
]
"""The comparisons, each with the samplers of GTP that are compared and their titles."""

# Each seed of a training has a draw of its own, with two generator seeds.
_DRAW_SEED = 30_000
_FLOOR_SEED = 31_000
_FLOOR_DRAWS = 4
# At a time, so that what the layers make of them fits into the cache.
_SAMPLES_AT_ONCE = 4_000


def ways_of(method: str) -> Iterator[tuple[str, Sampler, int]]:
    """Gives the samplers of a method that are compared, by name, with their numbers of steps.

    GTP from a trained denoiser and variants of GTP are sampled as GTP is.

    Examples:
        >>> [(name, num_steps) for name, _, num_steps in ways_of("consistency")]
        [('consistency', 1), ('consistency', 2)]
    """
    is_gtp = method.split(":")[0] in ("gtp", "gtp_distillation")
    asked = {
        *((name, one.num_steps) for one, names in COMPARED for name in names if is_gtp),
        *(
            (one.other.sampler, one.other.num_steps)
            for one, _ in COMPARED
            if one.other.method == method
        ),
    }
    if not asked:
        return
    known = {**ALL_METHODS[method].samplers, **matched_samplers(method)}
    for name, num_steps in sorted(asked):
        yield name, known[name], num_steps


def measure_ways(data: DataSet, cell: Cell, actor: GTPActor) -> list[dict[str, Any]]:
    """Measures the samples of an actor in each way that is compared.

    Args:
        data: the data set.
        cell: what was trained, with the number of samples for each condition.
        actor: the actor.
    """
    draw_seed = _DRAW_SEED + 2 * cell.seed
    torch.manual_seed(draw_seed)
    reference = data.reference(cell.num_samples)
    noise = torch.randn_like(reference.first.action)
    rows = []
    for name, sampler, num_steps in ways_of(cell.method):
        # What is drawn on the way does not depend on the ways before.
        torch.manual_seed(draw_seed + 1)
        parts = zip(
            reference.first.condition.split(_SAMPLES_AT_ONCE),
            noise.split(_SAMPLES_AT_ONCE),
            strict=True,
        )
        samples = torch.cat([sample(actor, sampler, *part, num_steps) for part in parts])
        measured = _compare(data, samples, reference)
        rows.append({"sampler": name, "num_steps": num_steps, **measured})
    return rows


def _compare(data: DataSet, samples: Tensor, reference: Reference) -> dict[str, float]:
    distance = grouped_planar_energy_distance if _is_planar(data) else grouped_energy_distance
    group = reference.group
    measured = {"energy_distance": distance(samples, reference.second.action, group).item()}
    if reference.modes is not None:
        share, _ = mode_statistics(
            samples, reference.modes, reference.mode_radius, group, reference.mode_share
        )
        measured["share_on_mode"] = share.item()
    return measured


def _is_planar(data: DataSet) -> bool:
    # Groups of 25 states are compared pair by pair: that is cheap, and exact.
    return data.action_dim == 2 and not data.has_one_action


_data_set = functools.cache(make_set)


@functools.cache
def _floor(name: str, num_samples: int) -> dict[str, float]:
    """The data against another draw of the data: means over several, once for each process."""
    data = _data_set(name)
    torch.manual_seed(_FLOOR_SEED)
    pairs = [data.reference(num_samples) for _ in range(_FLOOR_DRAWS)]
    rows = [_compare(data, pair.first.action, pair) for pair in pairs]
    return {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}


def _cells_to_measure(folder: Path, num_samples: int) -> dict[Path, Cell]:
    """The finished cells whose methods are compared, with their new numbers of samples.

    Raises:
        ValueError: if cells of one method and data set were trained otherwise.
    """
    cells: dict[Path, Cell] = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        why_not = _why_not(path, record)
        if why_not is not None:
            torchrl_logger.warning(f"Leaving out {path.stem}, {why_not}.")
            continue
        cell = cell_of(record)
        if not any(ways_of(cell.method)):
            continue
        try:
            data = _data_set(cell.data)
        except FileNotFoundError as error:
            torchrl_logger.warning(f"Leaving out {path.stem}: {error}")
            continue
        if _is_planar(data):
            cell = dataclasses.replace(cell, num_samples=num_samples)
        for other in cells.values():
            alike = dataclasses.replace(cell, seed=other.seed)
            if (other.method, other.data) == (cell.method, cell.data) and other != alike:
                raise ValueError(
                    f"{path.stem} and {other.path(folder).stem} were trained with other settings, "
                    f"{cell.training} and {other.training}: a table must not mix them. Put them "
                    "into folders of their own."
                )
        cells[path] = cell
    return cells


def _why_not(path: Path, record: Mapping[str, Any]) -> str | None:
    """Says why a cell cannot be measured; ``None`` where it can."""
    method = record["cell"]["method"]
    if method not in ALL_METHODS or record.get("definition") != repr(ALL_METHODS[method]):
        return "whose method is another one now"
    if not path.with_suffix(".pt").is_file():
        return "whose weights were not kept"
    return None


def _measure_once(path: Path, cell: Cell, folder: Path) -> None:
    """Writes a cell with what is compared in the place of its own rows, if it is not there."""
    record = json.loads(path.read_text())
    record["cell"]["num_samples"] = cell.num_samples
    to = cell.path(folder)
    if to.is_file():
        there: dict[str, Any] = json.loads(to.read_text())
        asked = [(name, num_steps) for name, _, num_steps in ways_of(cell.method)]
        own = [(row["sampler"], row["num_steps"]) for row in there["rows"]]
        if own == asked and {**record, "floor": there["floor"], "rows": there["rows"]} == there:
            return
    record["floor"] = _floor(cell.data, cell.num_samples)
    record["rows"] = measure_ways(_data_set(cell.data), cell, read_cell(path)[1])
    write_record(record, to)
    torchrl_logger.info(f"Measured {path.stem}.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures the cells of a folder and writes the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.few_step.aim",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cells", type=Path, required=True, help="folder of finished cells")
    parser.add_argument(
        "--samples",
        type=int,
        default=100_000,
        help="for each condition of a set in the plane; default: %(default)s",
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/few_step/aim"))
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    if options.samples < 1:
        parser.error(f"--samples must be at least 1, got {options.samples}")
    if (options.out / "cells").resolve() == options.cells.resolve():
        parser.error(f"--out must be another folder than that of --cells, got {options.out}")
    torch.set_num_threads(1)
    try:
        cells = _cells_to_measure(options.cells, options.samples)
    except ValueError as error:
        parser.error(f"--cells: {error}")
    if not cells:
        parser.error(
            "--cells: there is no finished cell of a method that is compared, with its weights, "
            f"in {options.cells}"
        )
    (options.out / "cells").mkdir(parents=True, exist_ok=True)
    for path, cell in cells.items():
        _measure_once(path, cell, options.out)
    command = command_line("benchmarks.few_step.aim", arguments)
    write_tables(list(cells.values()), options.out, "aim", command)


if __name__ == "__main__":
    main()
