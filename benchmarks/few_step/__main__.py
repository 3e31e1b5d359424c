"""How good are samples after K jumps?

Trains each method on each data set with the same network and the same number of network
evaluations, and measures its samples for several K. Writes ``results.csv``, ``results.md`` and,
for the sets in the plane, pictures::

    python -m benchmarks.few_step --quick                          # one set, one seed: two minutes
    python -m benchmarks.few_step --sets ring --seeds 0 1 2 --jobs 2
    python -m benchmarks.few_step                                  # all methods, 8 sets, 3 seeds
    python -m benchmarks.few_step --device cuda --jobs 4           # the same on a GPU

A cell (method, set, seed) that is finished is not run again. Minari datasets are looked for in
``MINARI_DATASETS_PATH`` and left out where they are not, or are too small; any other id works too.
``docs/few_step_quality.md`` says how to get those of the default.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torchrl import torchrl_logger

from benchmarks.few_step.cells import Cell, run_cells
from benchmarks.few_step.evaluation import FIRST_EVALUATION_SEED
from benchmarks.few_step.method import Network
from benchmarks.few_step.methods import ALL_METHODS, METHODS, VARIANTS
from benchmarks.few_step.pictures import draw_pictures
from benchmarks.few_step.planar import PLANAR_SETS
from benchmarks.few_step.report import command_line, write_tables
from benchmarks.few_step.sets import DEFAULT_SETS, is_known, make_set
from benchmarks.few_step.shapes import SHAPES
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
    own = ", ".join(f"{name} {method.lr}" for name, method in METHODS.items() if method.lr)
    parser.add_argument(
        "--lr",
        type=float,
        default=Training.lr,
        help=f"of the methods that have none of their own, as {own} and those named 'lr=...' "
        "have; default: %(default)s",
    )
    parser.add_argument(
        "--muon-lr",
        type=float,
        help="trains the weights between hidden layers of all methods by Muon at this rate, such "
        "as 0.02, times own rate / --lr where a method has its own; default: Adam for all weights",
    )
    parser.add_argument("--tau", type=float, default=Training.tau, help="default: %(default)s")
    parser.add_argument("--activation", choices=["mish", "silu", "relu"], default="relu")
    parser.add_argument("--init", choices=["kaiming", "pytorch"], default="kaiming")
    parser.add_argument("--out", type=Path, default=Path("outputs/few_step"))
    parser.add_argument("--jobs", type=int, default=1, help="processes, with a thread each")
    parser.add_argument(
        "--device",
        type=_device,
        default=torch.device("cpu"),
        help="cuda trains all cells of a method at once; default: %(default)s",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the losses, on a CPU: 1.2 to 1.6 times as fast after 10 to 30 seconds",
    )
    parser.add_argument("--quick", action="store_true", help=f"other defaults: {_QUICK}")
    parsed = parser.parse_args(arguments)
    for key, value in (_QUICK if parsed.quick else _FULL).items():
        if getattr(parsed, key) is None:
            setattr(parsed, key, value)
    for problem in _problems(parsed):
        parser.error(problem)
    return parsed


def _device(name: str) -> torch.device:
    with contextlib.suppress(RuntimeError):
        device = torch.device(name)
        if device.type in ("cpu", "cuda"):
            return device
    raise argparse.ArgumentTypeError(f"{name!r} is neither cpu nor cuda nor cuda:0 and so on")


def _problems(parsed: argparse.Namespace) -> Iterator[str]:
    unknown = sorted(set(parsed.methods) - ALL_METHODS.keys())
    if unknown:
        yield f"--methods knows no {unknown}, only {sorted(ALL_METHODS)}"
    unknown = [name for name in parsed.sets if not is_known(name)]
    if unknown:
        known = sorted({*PLANAR_SETS, *SHAPES})
        yield f"--sets knows no {unknown}, only {known} and ids of Minari datasets, with a slash"
    for name in ("updates", "samples", "jobs"):
        if getattr(parsed, name) < 1:
            yield f"--{name} must be at least 1, got {getattr(parsed, name)}"
    if parsed.compile and parsed.device.type != "cpu":
        yield f"--compile is for a CPU, --device is {parsed.device}; updates are captured there"
    if parsed.device.type == "cuda" and (parsed.device.index or 0) >= torch.cuda.device_count():
        yield (
            f"--device is {parsed.device}, but torch {torch.__version__} finds "
            f"{torch.cuda.device_count()} CUDA devices"
        )
    for seed in parsed.seeds:
        if not 0 <= seed < FIRST_EVALUATION_SEED:
            # Others would draw in training what they are measured with.
            yield f"--seeds must lie in [0, {FIRST_EVALUATION_SEED}), got {seed}"
    if not 0.0 < parsed.lr < math.inf:
        yield f"--lr must be a finite rate above 0, got {parsed.lr}"
    if parsed.muon_lr is not None and not 0.0 < parsed.muon_lr < math.inf:
        yield f"--muon-lr must be a finite rate above 0, got {parsed.muon_lr}"
    if not 0.0 < parsed.tau <= 1.0:
        yield f"--tau must lie in (0, 1], got {parsed.tau}"


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
        muon_lr=options.muon_lr,
    )
    sets = _available(options.sets)
    if not sets:
        raise SystemExit("None of the sets is there; the warnings above say why.")
    for name in options.methods:
        own = ALL_METHODS[name].lr
        if own is not None and own != options.lr:
            torchrl_logger.info(f"{name} has a learning rate of its own: {own}, not {options.lr}.")
    # Seed by seed: stopped early, the table still has every method.
    cells = [
        Cell(method, data, seed, training, options.samples)
        for seed in options.seeds
        for data in sets
        for method in options.methods
    ]
    run_cells(cells, folder, options.jobs, options.device, options.compile)
    command = command_line("benchmarks.few_step", arguments)
    table = write_tables(cells, folder, "results", command)
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
        # Not there, or too small. Unknown names were refused before.
        except (FileNotFoundError, ValueError) as error:
            torchrl_logger.warning(f"Leaving out {name}: {error}")
        else:
            available.append(name)
    return available


if __name__ == "__main__":
    main()
