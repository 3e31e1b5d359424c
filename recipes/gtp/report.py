"""The results of a run: table, learning curves and, for point mazes, paths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recipes.common.evaluation import Evaluation
from recipes.common.mazes import fixed_goal_maze
from recipes.common.plots import plot_learning_curves
from recipes.common.tables import markdown_table, number
from torchrl_gtp.data import MinariMetadata, MinariReplayBuffer, normalized_score

PATHS_DRAWN = 20


@dataclass(frozen=True)
class MethodResults:
    """One row of the table; ``None`` where a number does not exist.

    Attributes:
        name: the row's title.
        episodes: number of episodes.
        return_mean: mean return in the raw rewards of the environment.
        return_std: standard deviation of the returns over episodes.
        success_rate: share of successful episodes in [0, 1].
        normalized_score: mean normalised score, 100 being the reference policy.
        updates_per_second: speed of training, evaluation left out.
        milliseconds_per_action: time of one action for one observation.
    """

    name: str
    episodes: int
    return_mean: float
    return_std: float
    success_rate: float | None = None
    normalized_score: float | None = None
    updates_per_second: float | None = None
    milliseconds_per_action: float | None = None


def mean_score(returns: Tensor, metadata: MinariMetadata) -> float | None:
    """Mean normalised score of returns, ``None`` for a dataset without reference scores."""
    if metadata.ref_min_score is None or metadata.ref_max_score is None:
        return None
    return torch.as_tensor(normalized_score(returns, metadata)).mean().item()


def method_results(
    name: str,
    evaluation: Evaluation,
    metadata: MinariMetadata,
    *,
    updates_per_second: float | None = None,
    milliseconds_per_action: float | None = None,
) -> MethodResults:
    """Make the row of one method out of its evaluation."""
    return MethodResults(
        name=name,
        episodes=len(evaluation.returns),
        return_mean=evaluation.return_mean,
        return_std=evaluation.return_std,
        success_rate=evaluation.success_rate,
        normalized_score=mean_score(evaluation.returns, metadata),
        updates_per_second=updates_per_second,
        milliseconds_per_action=milliseconds_per_action,
    )


def behaviour_results(buffer: MinariReplayBuffer) -> MethodResults:
    """Make the row of the data itself: its episodes in the environment's own rewards.

    Success is known for the fixed-goal mazes alone: their reward is 1 at the goal and 0 elsewhere.
    """
    metadata = buffer.metadata
    returns = metadata.behavior_returns
    is_maze = fixed_goal_maze(metadata.env_spec) is not None
    return MethodResults(
        name="behaviour data",
        episodes=len(returns),
        return_mean=returns.mean().item(),
        return_std=returns.std(unbiased=False).item(),
        success_rate=(returns > 0).float().mean().item() if is_maze else None,
        normalized_score=mean_score(returns, metadata),
    )


def behaviour_paths(buffer: MinariReplayBuffer) -> tuple[list[Tensor], Tensor]:
    """Paths and returns of a few episodes of the data, evenly spread."""
    metadata = buffer.metadata
    returns = metadata.behavior_returns
    chosen = torch.linspace(0, len(returns) - 1, min(len(returns), PATHS_DRAWN)).round().long()
    data = buffer[:]
    observations, episodes = data["observation"], data["episode"]
    if metadata.observation_loc is not None and metadata.observation_scale is not None:
        observations = observations * metadata.observation_scale + metadata.observation_loc
    numbers = episodes.unique_consecutive()
    return [observations[episodes == numbers[index]] for index in chosen], returns[chosen]


def write_report(
    folder: Path,
    rows: Mapping[str, MethodResults],
    histories: Mapping[str, list[dict[str, float]]],
    settings: Mapping[str, Any],
    events: Mapping[str, float] | None = None,
) -> str:
    """Write ``results.json``, ``results.md`` and ``learning_curves.png``.

    Args:
        folder: where the files go.
        rows: the table's rows by key, ``"behaviour"`` among them.
        histories: the logged values of each trained method, by key.
        settings: what identifies the run, stored beside the results.
        events: numbers of updates to mark in the learning curves, by name.

    Returns:
        the table, in Markdown.
    """
    table = results_table(list(rows.values()))
    results = {**settings, "results": {key: asdict(row) for key, row in rows.items()}}
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (folder / "results.md").write_text(table + "\n")
    plot_learning_curves(
        folder / "learning_curves.png",
        {rows[key].name: history for key, history in histories.items()},
        {rows["behaviour"].name: rows["behaviour"].return_mean},
        events,
    )
    return table


def results_table(rows: list[MethodResults]) -> str:
    """Lay out the rows as a Markdown table."""
    headers = ["policy", "return", "success", "normalised score", "updates/s", "ms/action"]
    cells = [
        [
            row.name,
            f"{row.return_mean:,.1f} ± {row.return_std:,.1f}",
            number(row.success_rate, 2),
            number(row.normalized_score),
            number(row.updates_per_second),
            number(row.milliseconds_per_action, 2),
        ]
        for row in rows
    ]
    return markdown_table(headers, cells)
