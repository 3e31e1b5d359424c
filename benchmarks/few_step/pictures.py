"""Pictures: samples for each method and K, and the trajectories from noise to data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor
from torchrl import torchrl_logger

from benchmarks.few_step.cells import Cell
from benchmarks.few_step.data_set import DataSet
from benchmarks.few_step.evaluation import NUM_STEPS
from benchmarks.few_step.method import make_actor, sample, trajectory
from benchmarks.few_step.methods import ALL_METHODS
from benchmarks.few_step.sets import make_set
from torchrl_gtp import GTPActor

__all__ = ["draw_pictures"]

_SAMPLES_DRAWN = 1_000
_TRAJECTORIES_DRAWN = 150


def draw_pictures(cells: Sequence[Cell], folder: Path) -> list[Path]:
    """Draws the samples, and the trajectories of some of them, of finished cells of one planar set.

    Args:
        cells: cells of one set in the plane, one for each method. Those whose weights were not
            kept are left out.
        folder: where the cells are, and where the pictures go.

    Returns:
        list of Path: the two pictures; none where no cell has weights.
    """
    without = [cell for cell in cells if not cell.weights(folder).is_file()]
    if without:
        names = ", ".join(cell.path(folder).stem for cell in without)
        torchrl_logger.warning(f"No pictures of cells whose weights were not kept: {names}.")
    cells = [cell for cell in cells if cell not in without]
    if not cells:
        return []
    data = make_set(cells[0].data)
    torch.manual_seed(0)
    reference = data.reference(_SAMPLES_DRAWN)
    # One condition is enough to see; the samples of the others would cover it.
    first = reference.group == 0
    condition, points = reference.first.condition[first], reference.first.action[first]
    noise = torch.randn_like(points)
    methods = [(ALL_METHODS[cell.method], cell) for cell in cells]
    rows = [
        (f"{cell.method}\n{name}", sampler, method, _load(cell, data, folder))
        for method, cell in methods
        for name, sampler in method.samplers.items()
    ]
    samples, samples_axes = _figure(len(rows), limit=1.1)
    # Standard normal noise reaches further than the data.
    trajectories, trajectories_axes = _figure(len(rows), limit=2.2)
    for row, (title, sampler, method, actor) in enumerate(rows):
        for axes in (samples_axes, trajectories_axes):
            axes[row][0].set_ylabel(title)
        for column, num_steps in enumerate(NUM_STEPS):
            if num_steps > (method.most_steps or num_steps):
                continue
            drawn = sample(actor, sampler, condition, noise, num_steps)
            _draw_points(samples_axes[row][column], drawn)
            some = slice(_TRAJECTORIES_DRAWN)
            passed, times = trajectory(actor, sampler, condition[some], noise[some], num_steps)
            # In units of the noise, so that it is in the picture.
            _draw_trajectories(trajectories_axes[row][column], passed / (1 + times**2).sqrt())
        _draw_points(samples_axes[row][-1], points)
        _draw_points(trajectories_axes[row][-1], points)
    paths = [folder / f"{data.name}-{kind}.png" for kind in ("samples", "trajectories")]
    for figure, path in zip((samples, trajectories), paths, strict=True):
        figure.savefig(path, dpi=90)
    return paths


def _load(cell: Cell, data: DataSet, folder: Path) -> GTPActor:
    actor = make_actor(ALL_METHODS[cell.method], data, cell.training.network)
    actor.load_state_dict(torch.load(cell.weights(folder), weights_only=True))
    return actor


def _figure(num_rows: int, limit: float) -> tuple[Figure, list[list[Axes]]]:
    num_columns = len(NUM_STEPS) + 1
    figure = Figure(figsize=(1.7 * num_columns, 1.75 * num_rows + 0.3), layout="constrained")
    grid = figure.subplots(num_rows, num_columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[], aspect="equal")
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit))
    for axes, num_steps in zip(grid[0], NUM_STEPS, strict=False):
        axes.set_title(f"K = {num_steps}")
    grid[0][-1].set_title("data")
    return figure, grid.tolist()


def _draw_points(axes: Axes, points: Tensor) -> None:
    axes.plot(*points.T.tolist(), ".", ms=2, alpha=0.6, color="C0", mec="none")


def _draw_trajectories(axes: Axes, passed: Tensor) -> None:
    # The noise lies far outside: only the directions matter there.
    segments = passed.transpose(0, 1).tolist()
    axes.add_collection(LineCollection(segments, colors="0.6", lw=0.3, alpha=0.7))
    _draw_points(axes, passed[-1])
