"""Learning curves and paths in a maze. Drawn without pyplot: no display is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from torch import Tensor

from recipes.common.mazes import Maze

_LINE_STYLES = ("-", ":", "--", "-.")

History = Sequence[Mapping[str, float]]


def _draw_series(axes: Axes, history: History, key: str, **style: Any) -> bool:
    points = [(row["step"], row[key]) for row in history if key in row]
    if points:
        axes.plot(*zip(*points, strict=True), **style)
    return bool(points)


def plot_learning_curves(
    path: Path,
    histories: Mapping[str, History],
    references: Mapping[str, float] | None = None,
    events: Mapping[str, float] | None = None,
) -> None:
    """Draw evaluation return, and success rate and losses if there are any, against updates.

    Args:
        path: PNG file to write.
        histories: for each method its rows; a row has ``"step"`` and any of ``"eval/return"``,
            ``"eval/success_rate"`` and ``"train/loss_*"``.
        references: horizontal lines in the panel of returns, by name.
        events: vertical lines in every panel, the number of updates by name.
    """
    rows = [row for history in histories.values() for row in history]
    with_success = any("eval/success_rate" in row for row in rows)
    losses = sorted({key for row in rows for key in row if key.startswith("train/loss_")})
    keys = ["eval/return", *(["eval/success_rate"] if with_success else [])]
    keys += ["train/loss"] if losses else []
    titles = {
        "eval/return": "Return per evaluation episode",
        "eval/success_rate": "Success rate",
        "train/loss": "Training losses",
    }
    figure = Figure(figsize=(4.6 * len(keys), 3.6), layout="constrained")
    for axes, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys, strict=True):
        axes.set_title(titles[key])
        axes.set_xlabel("updates")
        axes.grid(alpha=0.3)
        for index, (name, history) in enumerate(histories.items()):
            if key == "train/loss":
                for style, loss in zip(cycle(_LINE_STYLES), losses):
                    label = f"{name}, {loss.removeprefix('train/loss_')}"
                    _draw_series(
                        axes, history, loss, color=f"C{index}", ls=style, lw=1, label=label
                    )
            else:
                _draw_series(axes, history, key, color=f"C{index}", marker="o", ms=3, label=name)
        for name, value in (events or {}).items():
            axes.axvline(value, color="0.3", ls=":", lw=1, label=name)
        if key == "eval/return":
            for name, value in (references or {}).items():
                axes.axhline(value, color="0.5", ls="--", lw=1, label=name)
        if key == "eval/success_rate":
            axes.set_ylim(-0.03, 1.03)
        if key == "train/loss":
            axes.set_yscale("log")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    figure.savefig(path, dpi=130)


def plot_maze_paths(
    path: Path,
    maze: Maze,
    panels: Mapping[str, tuple[Sequence[Tensor], Tensor]],
) -> None:
    """Draw paths in a maze, one panel a policy, coloured by return; paths without reward are grey.

    Args:
        path: PNG file to write.
        maze: walls and goal.
        panels: for each policy its paths, each of shape ``[steps, >= 2]`` that starts with x and y,
            and their returns, shape ``[paths]``.
    """
    best = max(returns.max().item() for _, returns in panels.values())
    colours = ScalarMappable(Normalize(0, max(best, 1e-6)), "viridis")
    wall_x, wall_y = zip(*maze.walls, strict=True)
    half = maze.cell / 2
    figure = Figure(figsize=(3.4 * len(panels) + 0.8, 3.7), layout="constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, (paths, returns)) in zip(all_axes, panels.items(), strict=True):
        axes.set_title(name)
        # The outer wall is cut at its middle.
        axes.set(xlim=(min(wall_x), max(wall_x)), ylim=(min(wall_y), max(wall_y)), aspect="equal")
        axes.set(xticks=[], yticks=[])
        for x, y in maze.walls:
            axes.add_patch(Rectangle((x - half, y - half), maze.cell, maze.cell, color="0.25"))
        rgba = colours.to_rgba(returns.numpy())
        # The best paths come last, so that they are not hidden.
        for index in returns.argsort().tolist():
            positions = paths[index][:, :2].tolist()
            colour = rgba[index] if returns[index] > 0 else "0.65"
            axes.add_collection(LineCollection([positions], colors=[colour], lw=0.9, alpha=0.8))
            axes.plot(*positions[0], "o", ms=3, mfc="white", mec=colour, mew=0.8)
        axes.add_patch(Circle(maze.goal, maze.goal_radius, fill=False, ec="crimson", lw=1.5))
        axes.plot(*maze.goal, "*", color="crimson", ms=9)
    figure.colorbar(colours, ax=all_axes, label="return of the episode")
    figure.savefig(path, dpi=130)
