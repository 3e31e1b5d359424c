"""Where a given number of jumps does best: noise levels fitted to data."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from torchrl_gtp.flow_map.flow_map import FlowMap
from torchrl_gtp.flow_map.samplers import JumpSampler, JumpSpacing, sampling_times

__all__ = ["energy_score", "fit_times"]

# Logarithms of the factors that a level is moved by: 2.7, 1.6, 1.3 and 1.13.
_FIRST_MOVE, _LAST_MOVE = 1.0, 0.12
# Standard errors by which a move has to be better: some of many would be by chance.
_CERTAINTY = 2.0


def energy_score(samples: Tensor, action: Tensor) -> Tensor:
    """Computes the energy score ``E|X - a| - 1/2 E|X - X'|`` of samples against one observation.

    It is a proper score (Gneiting and Raftery 2007): its mean over data is least for samples of
    the data's conditional distribution, though each condition occurs but once.

    Args:
        samples (Tensor): S >= 2 samples under each condition [S, ..., A].
        action (Tensor): the action of the data under each condition [..., A].

    Returns:
        Tensor: the unbiased estimate of the score of each condition [...].

    Raises:
        ValueError: for fewer than two samples.

    Examples:
        >>> energy_score(torch.tensor([[[0.0]], [[2.0]]]), torch.tensor([[0.0]]))
        tensor([0.])
    """
    num_samples = len(samples)
    if num_samples < 2:
        raise ValueError(
            f"energy_score needs at least 2 samples under each condition, got {num_samples}."
        )
    to_data = (samples - action).norm(dim=-1).mean(0)
    apart = (samples.unsqueeze(0) - samples.unsqueeze(1)).norm(dim=-1)
    return to_data - apart.sum((0, 1)) / (2 * num_samples * (num_samples - 1))


@torch.no_grad()
def fit_times(
    flow_map: FlowMap,
    action: Tensor,
    noise: Tensor,
    condition: Tensor | None,
    num_steps: int,
    *,
    bounds: tuple[Tensor, Tensor] | None = None,
    spacing: JumpSpacing = "karras",
) -> tuple[float, ...]:
    """Fits the intermediate noise levels of K jumps to data.

    From the levels of a spacing on, one level at a time is moved up or down by a factor, as long as
    the mean :func:`energy_score` falls by more than twice the standard error of the difference;
    then the factor shrinks. All placements see the same data and noise, so that they differ by what
    they do alone. With few data the levels stay where they are. It is a search for a local optimum:
    measure on other data what it gives.

    Args:
        flow_map (FlowMap): the flow map.
        action (Tensor): actions of the data [N, A].
        noise (Tensor): standard normal noise [S, N, A], for S >= 2 samples under each condition;
            what a matched start adds to it, over ``sigma_max``, is part of it.
        condition (Tensor, optional): the conditions of the actions [N, C].
        num_steps (int): the number of jumps K, at least 2.
        bounds (pair of Tensor, optional): the bounds of an action, each [A], that samples are
            clamped to.
        spacing ("karras" or "linear"): the levels that the search begins with: those that the flow
            map is sampled with otherwise. Defaults to ``"karras"``.

    Returns:
        tuple of float: the levels ``t_1 > ... > t_{K-1}`` for ``JumpSampler(times=...)``.

    Raises:
        ValueError: if ``num_steps`` is smaller than 2, there are fewer than two actions, the shapes
            do not agree, an input or a sample is not finite, or for another ``spacing``.

    Examples:
        >>> from torchrl_gtp.flow_map import MLPBackbone
        >>> flow_map = FlowMap(MLPBackbone(action_dim=2))
        >>> times = fit_times(flow_map, torch.randn(9, 2), torch.randn(2, 9, 2), None, num_steps=3)
        >>> JumpSampler(times=times)(flow_map, torch.randn(8, 2), None, num_steps=3).shape
        torch.Size([8, 2])
    """
    if num_steps < 2:
        raise ValueError(
            f"num_steps must be at least 2 jumps, got {num_steps}: a single jump has no time "
            "between its ends."
        )
    if action.ndim != 2 or len(action) < 2:
        raise ValueError(
            "action must be [N, A] with at least 2 rows, best thousands: how sure a difference is "
            f"cannot be told from fewer; got the shape {tuple(action.shape)}."
        )
    if noise.shape[1:] != action.shape:
        raise ValueError(
            f"noise must be [S, *action.shape] for S samples of each action, got "
            f"{tuple(noise.shape)} for actions {tuple(action.shape)}."
        )
    for name, given in (("action", action), ("noise", noise), ("condition", condition)):
        if given is not None:
            check_values(name, given, "drop the rows that hold them")
    if condition is not None:
        condition = condition.expand(len(noise), *condition.shape)
    levels = flow_map.noise_levels
    # Sums of many distances need more digits than bfloat16 has.
    precise = torch.promote_types(action.dtype, torch.float32)

    def scores(logs: list[float]) -> Tensor:
        sampler = JumpSampler(times=tuple(math.exp(log) for log in logs))
        samples = sampler(flow_map, noise, condition, num_steps)
        samples = samples if bounds is None else samples.clamp(*bounds)
        return energy_score(samples.to(precise), action.to(precise))

    spacing = JumpSampler(spacing).spacing  # refuses what is none of jumps
    grid = sampling_times(spacing, levels, num_steps, None, torch.zeros(()))
    logs = grid[1:-1].log().tolist()
    lowest, highest = math.log(levels.sigma_min), math.log(levels.sigma_max)
    best, move = scores(logs), _FIRST_MOVE
    check_values("the score of flow_map's samples", best, "look at the weights of flow_map")
    while move >= _LAST_MOVE:
        has_moved = False
        for i in range(len(logs)):
            for direction in (move, -move):
                moved = [*logs[:i], logs[i] + direction, *logs[i + 1 :]]
                ends = itertools.pairwise([highest, *moved, lowest])
                if any(above <= below for above, below in ends):
                    continue
                found = scores(moved)
                if _is_less(found, best):
                    best, logs, has_moved = found, moved, True
        if not has_moved:
            move /= 2
    return tuple(math.exp(log) for log in logs)


def _is_less(scores: Tensor, others: Tensor) -> bool:
    gain = others - scores
    return gain.mean().item() > _CERTAINTY * gain.std().item() / math.sqrt(len(gain))


def check_values(name: str, values: Tensor, remedy: str) -> None:
    """Raises a ``ValueError`` unless all values are finite."""
    # A score that is not finite compares as no better: nothing would be fitted, without a word.
    bad = (~values.isfinite()).sum().item()
    if bad:
        raise ValueError(
            f"{name} must be finite, but {bad} of {values.numel()} values are not: {remedy}."
        )
