"""Samples of a trained actor against data, for each sampler and K."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import Tensor

from benchmarks.few_step.data_set import DataSet, Reference
from benchmarks.few_step.measures import (
    best_of_error,
    grouped_energy_distance,
    grouped_mean_distance,
    grouped_sliced_wasserstein,
    mode_statistics,
)
from benchmarks.few_step.method import Method, sample
from torchrl_gtp import GTPActor

__all__ = ["FIRST_EVALUATION_SEED", "NUM_STEPS", "compare", "measure", "measure_floor"]

NUM_STEPS = (1, 2, 3, 5, 10, 40)
"""The numbers of steps K."""

_BEST_OF = 16
# Sixteen samples under each of thousands of conditions would take minutes.
_BEST_OF_CONDITIONS = 1_200
_FLOOR_DRAWS = 8
FIRST_EVALUATION_SEED = 10_000
"""Of the draw that seed 0 is measured with; training has the seeds below."""

_FLOOR_SEED = 20_000
_CPU = torch.device("cpu")


def measure(
    actor: GTPActor, method: Method, data: DataSet, num_samples: int, seed: int
) -> list[dict[str, Any]]:
    """Measures the samples of an actor, on its device: one row for each sampler and K.

    With one seed all methods meet the same draw of data and noise; each seed has its own, so that
    the spread over seeds is that of training and measurement together.
    """
    torch.manual_seed(FIRST_EVALUATION_SEED + seed)
    # Drawn on the CPU, so that every device meets the same data and the same first noise.
    reference = data.reference(num_samples)
    noise = torch.randn_like(reference.first.action)
    # The rows are ordered by group: evenly spread ones are of all groups.
    few = torch.linspace(0, len(noise) - 1, min(len(noise), _BEST_OF_CONDITIONS)).long()
    candidate_noise = torch.randn(_BEST_OF, len(few), data.action_dim)
    device = actor.low.device
    reference, noise, few = reference.to(device), noise.to(device), few.to(device)
    candidate_noise = candidate_noise.to(device)
    within = grouped_mean_distance(reference.second.action, reference.group)
    condition, action, _ = reference.first
    candidate_condition = condition[few].expand(_BEST_OF, -1, -1)
    rows = []
    for name, sampler in method.samplers.items():
        for num_steps in NUM_STEPS:
            if method.most_steps is not None and num_steps > method.most_steps:
                continue
            samples = sample(actor, sampler, condition, noise, num_steps)
            row = compare(samples, reference, within)
            if data.has_one_action:
                candidates = sample(actor, sampler, candidate_condition, candidate_noise, num_steps)
                row["best_of_16_mse"] = best_of_error(candidates, action[few]).item()
            rows.append({"sampler": name, "num_steps": num_steps, **row})
    return rows


def measure_floor(data: DataSet, num_samples: int, device: torch.device = _CPU) -> dict[str, float]:
    """Measures data against another draw of the data: means over several such pairs."""
    torch.manual_seed(_FLOOR_SEED)
    pairs = [data.reference(num_samples).to(device) for _ in range(_FLOOR_DRAWS)]
    rows = [compare(pair.first.action, pair) for pair in pairs]
    return {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}


def compare(
    samples: Tensor, reference: Reference, within: Tensor | None = None
) -> dict[str, float]:
    """Measures samples [N, A] under the conditions of ``reference.first``.

    Args:
        samples: the samples.
        reference: what they are compared with.
        within: the mean distance of ``reference.second`` in each group [G], if it is known.
    """
    group, data = reference.group, reference.second.action
    measured = {
        "energy_distance": grouped_energy_distance(samples, data, group, within),
        "sliced_wasserstein": grouped_sliced_wasserstein(samples, data, group),
    }
    if reference.modes is not None:
        measured["share_on_mode"], measured["modes_covered"] = mode_statistics(
            samples, reference.modes, reference.mode_radius, group, reference.mode_share
        )
    return {key: value.item() for key, value in measured.items()}
