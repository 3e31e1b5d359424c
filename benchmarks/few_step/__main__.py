"""How good are samples after K jumps?

Trains each method on each data set with the same network and the same number of network
evaluations, and measures its samples for several K. Writes ``results.csv``, ``results.md`` and,
for the sets in the plane, pictures::

    python -m benchmarks.few_step --quick                          # one set, one seed: two minutes
    python -m benchmarks.few_step --sets ring --seeds 0 1 2 --jobs 2
    python -m benchmarks.few_step                                  # all 9 methods, 8 sets, 3 seeds

A cell (method, set, seed) that is finished is not run again. Minari datasets are looked for in
``MINARI_DATASETS_PATH`` and left out where they are not; any other id works too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from torchrl import torchrl_logger

from benchmarks.few_step.cells import Cell, run_cells
from benchmarks.few_step.method import Network
from benchmarks.few_step.methods import ALL_METHODS, METHODS, VARIANTS
from benchmarks.few_step.pictures import draw_pictures
from benchmarks.few_step.planar import PLANAR_SETS
from benchmarks.few_step.report import command_line, read_rows, write_csv, write_markdown
from benchmarks.few_step.sets import DEFAULT_SETS, make_set
from benchmarks.few_step.training import Training

_FULL = {
    "methods": list(METHODS),
    "sets": list(DEFAULT_SETS),
    "seeds": [0, 1, 2],
    "updates": Training().num_updates,
}
_QUICK = {"methods": ["gtp", "diffusion"], "sets": ["ring"], "seeds": [0], "updates": 2_000}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.few_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names, variants = ", ".join(METHODS), ", ".join(VARIANTS)
    parser.add_argument("--methods", nargs="+", help=f"of: {names}; variants: {variants}")
    parser.add_argument("--sets", nargs="+", help=f"of: {', '.join(DEFAULT_SETS)}; or Minari ids")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: 0 1 2")
    parser.add_argument(
        "--updates", type=int, help=f"of three network evaluations, default: {_FULL['updates']}"
    )
    parser.add_argument("--samples", type=int, default=12_000, help="default: %(default)s")
    parser.add_argument("--lr", type=float, default=Training.lr, help="default: %(default)s")
    parser.add_argument("--tau", type=float, default=Training.tau, help="default: %(default)s")
    parser.add_argument("--activation", choices=["mish", "silu", "relu"], default="relu")
    parser.add_argument("--init", choices=["kaiming", "pytorch"], default="kaiming")
    parser.add_argument("--out", type=Path, default=Path("outputs/few_step"))
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--quick", action="store_true", help=f"other defaults: {_QUICK}")
    parsed = parser.parse_args(arguments)
    for key, value in (_QUICK if parsed.quick else _FULL).items():
        if getattr(parsed, key) is None:
            setattr(parsed, key, value)
    unknown = sorted(set(parsed.methods) - ALL_METHODS.keys())
    if unknown:
        parser.error(f"--methods knows no {unknown}, only {sorted(ALL_METHODS)}")
    if parsed.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {parsed.jobs}")
    return parsed


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the cells and writes table and pictures."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse_arguments(arguments)
    folder = options.out / "quick" if options.quick else options.out
    training = Training(
        num_updates=options.updates,
        lr=options.lr,
        tau=options.tau,
        network=Network(options.activation, options.init),
    )
    sets = _available(options.sets)
    # Seed by seed: stopped early, the table still has every method.
    cells = [
        Cell(method, data, seed, training, options.samples)
        for seed in options.seeds
        for data in sets
        for method in options.methods
    ]
    run_cells(cells, folder, options.jobs)
    rows = read_rows(cells, folder)
    write_csv(rows, folder / "results.csv")
    command = command_line("benchmarks.few_step", arguments)
    table = write_markdown(rows, folder / "results.md", command)
    for name in [name for name in sets if name in PLANAR_SETS]:
        first = [cell for cell in cells if cell.data == name and cell.seed == options.seeds[0]]
        for path in draw_pictures(first, folder):
            torchrl_logger.info(f"Wrote {path}.")
    torchrl_logger.info(f"Wrote {folder / 'results.md'}:\n\n{table}")


def _available(names: Sequence[str]) -> list[str]:
    available = []
    for name in names:
        try:
            make_set(name)
        except FileNotFoundError as error:
            torchrl_logger.warning(f"Leaving out {name}: {error}")
        else:
            available.append(name)
    return available


if __name__ == "__main__":
    main()
