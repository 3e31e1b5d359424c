"""The table over all finished cells, as CSV and as Markdown."""

from __future__ import annotations

import csv
import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.few_step.cells import Cell, finished, read_origin, versions
from recipes.common.tables import markdown_table, number

__all__ = [
    "command_line",
    "mean_and_spread",
    "provenance",
    "read_rows",
    "write_csv",
    "write_markdown",
    "write_tables",
]

_KEYS = ("data", "method", "sampler", "num_steps", "seed")
_MEASURES = (
    "energy_distance",
    "sliced_wasserstein",
    "share_on_mode",
    "modes_covered",
    "best_of_16_mse",
)
_TITLES = {
    "energy_distance": ("energy distance x 1000", 1_000.0, 2),
    "share_on_mode": ("share on a mode", 1.0, 3),
    "modes_covered": ("modes covered", 1.0, 1),
    "sliced_wasserstein": ("sliced Wasserstein", 1.0, 3),
    "best_of_16_mse": ("squared error of the best of 16", 1.0, 4),
}


def command_line(module: str, arguments: Sequence[str]) -> str:
    """Returns the shell command that runs a module with these arguments.

    Examples:
        >>> command_line("benchmarks.few_step", ["--sets", "a set"])
        "python -m benchmarks.few_step --sets 'a set'"
    """
    return shlex.join(["python", "-m", module, *arguments])


def provenance(command: str, cells: Sequence[Path]) -> str:
    """Says in Markdown what made a table and its cells, and when: the head of the table.

    Args:
        command: the command of the table; see :func:`command_line`.
        cells: the files of its cells.
    """
    day = datetime.now(timezone.utc).date().isoformat()
    made = ", ".join(f"{name} {version}" for name, version in versions().items())
    return (
        f"`{command}`, {day}; {made}.\n\n{_origin_of_cells(list(map(read_origin, cells)))} "
        "Behind ± stands the standard deviation over seeds, of a sample (n - 1).\n"
    )


def _origin_of_cells(origins: Sequence[Mapping[str, Any] | None]) -> str:
    dated = [origin for origin in origins if origin is not None]
    undated = f"{len(origins) - len(dated)} cells without a date"
    if not dated:
        return f"{undated}."
    days = [origin["date"][:10] for origin in dated]
    span = min(days) if min(days) == max(days) else f"{min(days)} to {max(days)}"
    names = dict.fromkeys(name for origin in dated for name in origin["versions"])
    found = {
        name: sorted({origin["versions"].get(name, "unknown") for origin in dated})
        for name in names
    }
    found["on"] = sorted({_where(origin) for origin in dated})
    made = ", ".join(f"{name} {' and '.join(versions)}" for name, versions in found.items())
    commits = ", ".join(sorted({origin["commit"] or "unknown" for origin in dated}))
    mixed = any(len(versions) > 1 for versions in found.values())
    return (
        f"Cells of {span}{f'; {undated}' if len(dated) < len(origins) else ''}; {made}; commit "
        f"{commits}.{' **They are mixed.**' if mixed else ''}"
    )


def _where(origin: Mapping[str, Any]) -> str:
    device: str = origin.get("device", "CPU")
    return f"{device} (compiled)" if origin.get("compiled") else device


def read_rows(cells: Sequence[Cell], folder: Path) -> list[dict[str, Any]]:
    """Reads the rows of those cells that are finished; the data's own row has the sampler "-"."""
    rows = []
    for cell in cells:
        if not finished(cell, folder):
            continue
        record = json.loads(cell.path(folder).read_text())
        about = {"data": cell.data, "method": cell.method, "seed": cell.seed}
        costs = {key: record[key] for key in ("num_updates", "network_evaluations", "cpu_seconds")}
        rows += [{**about, **costs, **row} for row in record["rows"]]
        floor = {**about, "method": "data", "sampler": "-", "num_steps": 0, **record["floor"]}
        rows.append(floor)
    return rows


def write_tables(cells: Sequence[Cell], folder: Path, name: str, command: str) -> str:
    """Writes the figures of cells as ``<name>.csv`` and ``<name>.md``, and returns the latter.

    Args:
        cells: finished cells.
        folder: where their files are, and where both go.
        name: the name of both.
        command: what made them; see :func:`command_line`.
    """
    rows = read_rows(cells, folder)
    write_csv(rows, folder / f"{name}.csv")
    head = provenance(command, [cell.path(folder) for cell in cells])
    return write_markdown(rows, folder / f"{name}.md", head)


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes one line for each data set, method, sampler, K and seed."""
    fields = [*_KEYS, *_MEASURES, "num_updates", "network_evaluations", "cpu_seconds"]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: [row[key] for key in _KEYS]))


def write_markdown(rows: Sequence[dict[str, Any]], path: Path, head: str) -> str:
    """Writes one table for each data set and measure: mean ± standard deviation over seeds.

    Args:
        rows: what :func:`read_rows` gives.
        path: the file.
        head: what stands above the tables; see :func:`provenance`.
    """
    parts = [head]
    for data in dict.fromkeys(row["data"] for row in rows):
        of_set = [row for row in rows if row["data"] == data]
        for measure, (title, factor, digits) in _TITLES.items():
            measured = [row for row in of_set if measure in row]
            if measured:
                table = _table(measured, measure, factor, digits)
                parts.append(f"### {data}: {title}\n\n{table}\n")
    text = "\n".join(parts)
    path.write_text(text)
    return text


def _table(rows: Sequence[dict[str, Any]], measure: str, factor: float, digits: int) -> str:
    num_steps = sorted({row["num_steps"] for row in rows} - {0})
    groups: dict[tuple[str, str], dict[int, dict[int, float]]] = {}
    for row in rows:
        by_steps = groups.setdefault((row["method"], row["sampler"]), {})
        by_steps.setdefault(row["num_steps"], {})[row["seed"]] = factor * row[measure]
    lines = []
    for (method, sampler), by_steps in groups.items():
        seeds = len(next(iter(by_steps.values())))
        if method == "data":
            # It does not depend on K, nor on the seed of a training but for rounding.
            floor = statistics.fmean(by_steps[0].values())
            by_steps = {steps: {0: floor} for steps in num_steps}
        # Not every method takes every K: the levels of DDPM limit its steps.
        cells = [
            mean_and_spread(list(by_steps[steps].values()), digits) if steps in by_steps else "-"
            for steps in num_steps
        ]
        lines.append([method, sampler, "-" if method == "data" else str(seeds), *cells])
    lines.sort(key=lambda line: line[0] == "data")
    return markdown_table(
        ["method", "sampler", "seeds", *(f"K = {steps}" for steps in num_steps)], lines
    )


def mean_and_spread(values: Sequence[float], digits: int) -> str:
    """Formats mean ± standard deviation of a sample (n - 1), or one value alone.

    Figures that do not differ at all stand alone as well.

    Examples:
        >>> mean_and_spread([1.0, 3.0], 2), mean_and_spread([1.0], 2), mean_and_spread([1.0, 1], 2)
        ('2.00 ± 1.41', '1.00', '1.00')
    """
    mean = number(statistics.fmean(values), digits)
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{mean} ± {number(spread, digits)}" if spread else mean
