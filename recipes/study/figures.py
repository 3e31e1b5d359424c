"""The figures of a report, as PNG in memory. Drawn without pyplot: no display is needed."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from recipes.study.measures import bootstrap_interval, interquartile_mean, performance_profile
from recipes.study.results import StudyResults, curve, mean_and_deviation

_COLUMNS = 3


def styles(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line of each method, the same in all figures."""
    # As many colours as markers would give each colour the same one again.
    colours, markers = colormaps["tab10"].colors, "osD^vP*X<"  # type: ignore[attr-defined]
    return {
        method: {
            "color": colours[index % len(colours)],
            "marker": markers[index % len(markers)],
            "ls": ("-", "--", ":", "-.")[(index // len(colours)) % 4],
        }
        for index, method in enumerate(methods)
    }


def learning_curves(study: StudyResults, *, against_time: bool = False) -> bytes | None:
    """Evaluation scores against updates or seconds of training: mean and deviation over seeds."""

    def draw(axes: Axes, task: str, style: Mapping[str, dict[str, Any]]) -> None:
        scored = study.of_task(task, "score_kind") == "normalised score"
        key = "eval/normalized_score" if scored else "eval/return"
        for method in study.methods_of(task):
            steps, mean, deviation, seconds = curve(study.of(task, method), key)
            if not len(steps):
                continue
            x = seconds if against_time else steps
            look = {**style[method], "ms": 3}
            axes.plot(x, mean, label=study.label(method), **look)
            if deviation.any():
                axes.fill_between(
                    x, mean - deviation, mean + deviation, color=look["color"], alpha=0.15, lw=0
                )
        axes.set_xlabel("seconds of training" if against_time else "updates")

    if not any("eval/return" in row for cell in study.cells for row in cell.curves):
        return None
    return _by_task(study, draw, study.tasks)


def score_against_steps(study: StudyResults, *, against_time: bool = False) -> bytes | None:
    """Score of the last checkpoint against K, or against the time that an action takes."""

    def draw(axes: Axes, task: str, style: Mapping[str, dict[str, Any]]) -> None:
        for method in study.methods_of(task):
            cells = study.of(task, method)
            sweeps = [cell.result["sweep"] for cell in cells if cell.result["sweep"]]
            if not sweeps:
                # Without steps, or without a sweep, one point, drawn where only time is compared.
                sweeps = [{"": cell.result["last"]} for cell in cells]
            steps = sorted(set.intersection(*(set(s) for s in sweeps)), key=lambda k: int(k or 0))
            if not against_time and steps == [""]:
                continue
            pairs = [
                [(s[k]["score"], s[k]["milliseconds_per_action"]) for s in sweeps] for k in steps
            ]
            values = np.array([mean_and_deviation([score for score, _ in at])[0] for at in pairs])
            spread = np.array([mean_and_deviation([s for s, _ in at])[1] or 0.0 for at in pairs])
            times = np.array([np.mean([time for _, time in at]) for at in pairs])
            x = times if against_time else np.array([int(k) for k in steps])
            axes.errorbar(x, values, spread, label=study.label(method), capsize=2, **style[method])
        axes.set_xlabel("milliseconds an action" if against_time else "K, steps an action")
        if against_time:
            axes.set_xscale("log")
            # One decade or less is usual, where the powers of ten alone are too few.
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    swept = {cell.result["task"] for cell in study.cells if cell.result["sweep"]}
    if not swept:
        return None
    tasks = study.tasks if against_time else [task for task in study.tasks if task in swept]
    return _by_task(study, draw, tasks)


def aggregate(study: StudyResults, tasks: Sequence[str], methods: Sequence[str]) -> bytes:
    """Interquartile means of the last checkpoints with their 95 % intervals."""
    style = styles(study.methods)
    figure = Figure(figsize=(6.4, 0.9 + 0.32 * len(methods)), layout="constrained")
    axes = figure.subplots()
    for row, method in enumerate(reversed(methods)):
        scores = [study.scores(task, method) for task in tasks]
        interval = bootstrap_interval(scores)
        colour = style[method]["color"]
        if interval is not None:
            axes.barh(row, interval[1] - interval[0], 0.6, interval[0], color=colour, alpha=0.4)
        middle = interquartile_mean([s for task in scores for s in task])
        axes.plot([middle] * 2, [row - 0.3, row + 0.3], color=colour, lw=2)
    axes.set_yticks(range(len(methods)), [study.label(method) for method in reversed(methods)])
    axes.set_xlabel("normalised score, interquartile mean and 95 % interval")
    axes.grid(alpha=0.3, axis="x")
    return _png(figure)


def profiles(study: StudyResults, tasks: Sequence[str], methods: Sequence[str]) -> bytes:
    """Share of runs above each score, a line a method."""
    style = styles(study.methods)
    scores = {m: np.concatenate([study.scores(task, m) for task in tasks]) for m in methods}
    everything = np.concatenate(list(scores.values()))
    margin = 0.05 * max(float(np.ptp(everything)), 1.0)
    thresholds = np.linspace(everything.min() - margin, everything.max() + margin, 400)
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for method in methods:
        look = {key: style[method][key] for key in ("color", "ls")}
        share = performance_profile(scores[method], thresholds)
        axes.plot(thresholds, share, label=study.label(method), **look)
    axes.set(xlabel="normalised score", ylabel="share of runs above", ylim=(-0.03, 1.03))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return _png(figure)


def _by_task(
    study: StudyResults,
    draw: Callable[[Axes, str, Mapping[str, dict[str, Any]]], None],
    tasks: Sequence[str],
) -> bytes:
    style = styles(study.methods)
    rows = -(-len(tasks) // _COLUMNS)
    columns = min(len(tasks), _COLUMNS)
    figure = Figure(figsize=(4.4 * columns, 3.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    handles: dict[str, Any] = {}
    for axes, task in zip(panels, tasks, strict=False):
        draw(axes, task, style)
        axes.set_title(study.of_task(task, "task_name"))
        axes.set_ylabel(study.of_task(task, "score_kind"))
        axes.grid(alpha=0.3)
        drawn, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, drawn, strict=True))
    for axes in panels[len(tasks) :]:
        axes.set_axis_off()
    # Wide labels in few columns, below panels that keep their height; inches, estimated.
    entry = 0.7 + 0.08 * max(map(len, handles), default=0)
    legend_columns = max(1, min(4, int(figure.get_figwidth() / entry)))
    legend_rows = -(-len(handles) // legend_columns)
    figure.set_figheight(figure.get_figheight() + 0.3 + 0.2 * legend_rows)
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=legend_columns,
        fontsize="small",
    )
    return _png(figure)


def _png(figure: Figure) -> bytes:
    drawn, file = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=110, format="png")
    # A page holds its pictures: of few colours, which they have, they take a third of the space.
    Image.open(drawn).convert("RGB").quantize(128).save(file, format="png", optimize=True)
    return file.getvalue()
