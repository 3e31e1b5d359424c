"""What do fitted times, fresh noise and an adaptive number of jumps buy?

Reads finished cells of GTP or a variant of it, and samples from each on the Karras grid, with times
fitted to other data, with fresh noise between the jumps, and adaptively. Each is compared with the
grid at equal network evaluations, between whose numbers of jumps the figures are interpolated.
Writes ``steps.csv`` and ``steps.md``::

    python -m benchmarks.few_step --sets ring --methods gtp
    python -m benchmarks.few_step.steps --cells outputs/few_step/cells
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchrl import torchrl_logger

from benchmarks.few_step.cells import Cell
from benchmarks.few_step.evaluation import compare
from benchmarks.few_step.method import Network, flat_bounds, make_actor, sample
from benchmarks.few_step.methods import ALL_METHODS, METHODS
from benchmarks.few_step.report import command_line, mean_and_spread, provenance
from benchmarks.few_step.sets import make_set
from benchmarks.few_step.training import Training
from recipes.common.tables import markdown_table, number
from torchrl_gtp import GTPActor
from torchrl_gtp.flow_map import AdaptiveSampler, JumpSampler, Sampler, fit_times

__all__ = ["cell_of", "interpolated", "measure_cell", "read_cell", "spearman"]

MOST_STEPS = 8
"""The most jumps of the adaptive sampler: it goes through 1, 2, 4 and 8."""
# The last is what the adaptive sampler takes at most.
GRID = (1, 2, 3, 5, 10, AdaptiveSampler().evaluations(MOST_STEPS))
FITTED = (2, 3, 5)
NOISED = (2, 3, 5)
TOLERANCES = (0.2, 0.1, 0.05, 0.02)
_REFERENCE_STEPS = 40
_ESTIMATED = (1, 2, 5)
# Of the fit; evaluations have the next ones, training has 0, 1, 2, ...
_SEED = 20_000


def read_cell(path: Path) -> tuple[Cell, GTPActor]:
    """Reads a finished cell: what was trained, and the actor with its weights.

    Args:
        path: the JSON file of the cell; its weights lie beside it.
    """
    cell = cell_of(json.loads(path.read_text()))
    actor = make_actor(ALL_METHODS[cell.method], make_set(cell.data), cell.training.network)
    actor.load_state_dict(torch.load(path.with_suffix(".pt"), weights_only=True))
    return cell, actor


def cell_of(record: dict[str, Any]) -> Cell:
    """What was trained, by the content of a cell's file."""
    settings = dict(record["cell"])
    training = dict(settings.pop("training"))
    network = Network(**training.pop("network"))
    return Cell(**settings, training=Training(**training, network=network))


def measure_cell(
    cell: Cell, actor: GTPActor, num_samples: int, num_fitted: int
) -> list[dict[str, Any]]:
    """Measures all ways to sample from an actor.

    Args:
        cell: what was trained.
        actor: the actor.
        num_samples: samples that are compared with data.
        num_fitted: pairs that the times are fitted to.

    Returns:
        list of dict: a row for each way, and one for each K of which the error was estimated,
        with the rank correlation of estimate and distance to 40 jumps over the samples.
    """
    data = make_set(cell.data)
    bounds = flat_bounds(actor)
    torch.manual_seed(_SEED)
    pairs = data.draw(num_fitted)
    fit_noise = torch.randn(2, *pairs.action.shape)
    torch.manual_seed(_SEED + 1 + cell.seed)
    reference = data.reference(num_samples)
    condition = reference.first.condition
    noise = torch.randn_like(reference.first.action)

    def draw(sampler: Sampler, num_steps: int) -> Tensor:
        return sample(actor, sampler, condition, noise, num_steps)

    about = {"data": cell.data, "method": cell.method, "seed": cell.seed}
    rows: list[dict[str, Any]] = []

    def add(way: str, setting: str, evaluations: float, samples: Tensor, **more: Any) -> None:
        measured = compare(samples, reference)
        rows.append(
            {**about, "way": way, "setting": setting, "evaluations": evaluations} | measured | more
        )

    add("data", "-", 0, reference.first.action)
    numbers = {*GRID, *_ESTIMATED, *(2 * n for n in _ESTIMATED), _REFERENCE_STEPS}
    jumps = {number: draw(JumpSampler(), number) for number in sorted(numbers)}
    for num_steps in GRID:
        add("grid", f"K = {num_steps}", num_steps, jumps[num_steps])
    for num_steps in FITTED:
        times = fit_times(
            actor.flow_map, pairs.action, fit_noise, pairs.condition, num_steps, bounds=bounds
        )
        found = " ".join(number(time, 3) for time in times)
        samples = draw(JumpSampler(times=times), num_steps)
        add("fitted", f"K = {num_steps}", num_steps, samples, times=found)
    for num_steps in NOISED:
        samples = draw(METHODS["gtp"].samplers["gamma=0.9"], num_steps)
        add("noised", f"K = {num_steps}", num_steps, samples)
    for tolerance in TOLERANCES:
        with torch.no_grad():
            samples, spent = AdaptiveSampler(tolerance, skip_finished=True).sample_with_evaluations(
                actor.flow_map, noise, condition, MOST_STEPS, bounds=bounds
            )
        mean = spent.double().mean().item()
        add("adaptive", f"tolerance {tolerance}", mean, samples.clamp(*bounds))
    for num_steps in _ESTIMATED:
        estimate = (jumps[num_steps] - jumps[2 * num_steps]).norm(dim=-1)
        error = (jumps[num_steps] - jumps[_REFERENCE_STEPS]).norm(dim=-1)
        rows.append(
            {
                **about,
                "way": "estimate",
                "setting": f"K = {num_steps}",
                "evaluations": 3 * num_steps,
                "spearman": spearman(estimate, error),
            }
        )
    return rows


def spearman(first: Tensor, second: Tensor) -> float:
    """Computes Spearman's rank correlation of two samples [N] without ties.

    Examples:
        >>> round(spearman(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 4.0, 9.0])), 4)
        1.0
    """
    ranks = [values.argsort().argsort().double() for values in (first, second)]
    return torch.corrcoef(torch.stack(ranks))[0, 1].item()


def interpolated(grid: Sequence[tuple[float, float]], evaluations: float) -> float:
    """Interpolates a figure of the grid linearly to a number of evaluations.

    Args:
        grid: pairs of evaluations, rising, and the figure.
        evaluations: the number, within the grid's.

    Examples:
        >>> interpolated([(1, 0.0), (3, 1.0), (5, 3.0)], 4)
        2.0
    """
    for (low, first), (high, second) in itertools.pairwise(grid):
        if low <= evaluations <= high:
            return first + (evaluations - low) / (high - low) * (second - first)
    raise ValueError(f"evaluations={evaluations} lies outside {grid[0][0]} to {grid[-1][0]}.")


_MEASURES = {"energy_distance": (1_000.0, 2), "share_on_mode": (1.0, 3)}


def make_tables(rows: Sequence[dict[str, Any]]) -> str:
    """Makes one table of the ways for each data set, and one of the estimates."""
    parts = []
    estimates: dict[str, list[str]] = {}
    for data, of_set in _grouped(rows, "data").items():
        lines = []
        for (way, setting), of_way in _by_way(of_set).items():
            if way == "estimate":
                values = [row["spearman"] for row in of_way]
                estimates.setdefault(data, []).append(number(statistics.fmean(values), 2))
                continue
            mean = statistics.fmean(row["evaluations"] for row in of_way)
            lines.append([way, setting, "-" if way == "data" else number(mean, 2)])
            for measure, (factor, digits) in _MEASURES.items():
                lines[-1] += _figures(of_way, of_set, measure, factor, digits)
        seeds = len({row["seed"] for row in of_set})
        titles = ["energy distance x 1000", "grid at equal cost", "share on a mode"]
        header = ["way", "setting", "evaluations", *titles, "grid at equal cost"]
        parts.append(f"### {data} ({seeds} seeds)\n\n{markdown_table(header, lines)}\n")
    header = ["data", *(f"K = {num_steps}" for num_steps in _ESTIMATED)]
    table = markdown_table(header, [[data, *values] for data, values in estimates.items()])
    parts.append(f"### Rank correlation of estimated and true error\n\n{table}\n")
    return "\n".join(parts)


def _figures(
    of_way: Sequence[dict[str, Any]],
    of_set: Sequence[dict[str, Any]],
    measure: str,
    factor: float,
    digits: int,
) -> list[str]:
    if any(measure not in row for row in of_way):
        return ["-", "-"]
    mine = [factor * row[measure] for row in of_way]
    if of_way[0]["way"] in ("data", "grid"):
        return [mean_and_spread(mine, digits), "-"]
    equal = []
    for row in of_way:
        grid = [
            (other["evaluations"], factor * other[measure])
            for other in of_set
            if other["way"] == "grid" and other["seed"] == row["seed"]
        ]
        equal.append(interpolated(grid, row["evaluations"]))
    return [mean_and_spread(mine, digits), mean_and_spread(equal, digits)]


def _grouped(rows: Sequence[dict[str, Any]], key: str) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


def _by_way(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["way"], row["setting"]), []).append(row)
    return groups


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures the cells of a folder and writes the tables beside it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.few_step.steps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cells", type=Path, required=True, help="folder of finished cells")
    parser.add_argument("--method", default="gtp", help="default: %(default)s")
    parser.add_argument("--samples", type=int, default=12_000, help="default: %(default)s")
    parser.add_argument("--fit", type=int, default=8_000, help="pairs; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("outputs/few_step"))
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    for name, least in (("samples", 1), ("fit", 2)):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(options, name)}")
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    measured: list[Path] = []
    for path in sorted(options.cells.glob("*.json")):
        if json.loads(path.read_text())["cell"]["method"] != options.method:
            continue
        if not path.with_suffix(".pt").is_file():
            torchrl_logger.warning(f"Leaving out {path.stem}, whose weights were not kept.")
            continue
        cell, actor = read_cell(path)
        rows += measure_cell(cell, actor, options.samples, options.fit)
        measured.append(path)
        torchrl_logger.info(f"Measured {path.stem}.")
    if not rows:
        parser.error(
            f"--cells: there is no finished cell of {options.method} with its weights in "
            f"{options.cells}"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    fields = list(dict.fromkeys(key for row in rows for key in row))
    with (options.out / "steps.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)
    command = command_line("benchmarks.few_step.steps", arguments)
    text = f"{provenance(command, measured)}\n{make_tables(rows)}"
    (options.out / "steps.md").write_text(text)
    torchrl_logger.info(f"Wrote {options.out / 'steps.md'}:\n\n{text}")


if __name__ == "__main__":
    main()
