"""Consistency-AC (arXiv 2309.16984) beside its published program."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.parity.adapters import ConsistencyEndpoint
from benchmarks.parity.batch import ACTION_DIM
from benchmarks.parity.comparison import Comparison
from benchmarks.parity.draws import Chain, take_chain
from benchmarks.parity.networks import make_actor
from benchmarks.parity.peers import import_from
from benchmarks.parity.program import AGENT_OPTIONS, Program, StepDraws
from benchmarks.parity.q_gradient import compare_sampler, compare_step
from torchrl_gtp import GTPActor, NoiseLevels
from torchrl_gtp.flow_map import (
    Consistency,
    ConsistencySampler,
    KarrasGridTimes,
    Objective,
    square_root_curriculum,
)

__all__ = ["compare"]

_LEVELS = (80.0, 2.0)
_NOISE_LEVELS = NoiseLevels(sigma_max=80.0)
_TIMES = KarrasGridTimes(first=1, last=149, growth="square_root", end="data")
_NUM_STEPS = 1_000
# Its logger wants packages that nothing else does, and nothing is logged here.
_STUBS: dict[str, dict[str, Any]] = {"utils.logger": {"logger": None}}


class _ConsistencyAC(Program):
    ema_name = "ema_actor"
    term, title = "consistency", "consistency loss"
    # They take 100 times the mean over the dimensions of the action, we the sum.
    factor, factor_name = 100 / ACTION_DIM, "100/A"
    objective = Objective(
        {"consistency": Consistency(_TIMES, time_weight="gap", robust_power=0.0)}, teacher="ema"
    )

    def __init__(self) -> None:
        self.num_nodes = 2
        self.scales_noise = False

    def wrap(self, policy: Any) -> GTPActor:
        backbone = ConsistencyEndpoint(copy.deepcopy(policy))
        sampler = ConsistencySampler(levels=_LEVELS)
        return make_actor(backbone, sampler, len(_LEVELS), _NOISE_LEVELS)

    def network(self, policy: Any) -> nn.Module:
        return policy

    def read_chain(self, draws: Iterator[Tensor]) -> Chain:
        start, (noise,) = take_chain(draws, len(_LEVELS), num_drawn=len(_LEVELS) - 1)
        # They noise again with sqrt(t^2 - 0.002^2), we with t.
        scale = math.sqrt(1 - (0.002 / _LEVELS[1]) ** 2) if self.scales_noise else 1.0
        return Chain(start, [scale * noise])

    def read_step(self, draws: Iterator[Tensor]) -> StepDraws:
        backup, policy, noise = self.read_chain(draws), self.read_chain(draws), next(draws)
        intervals = self.num_nodes - 1
        # Their intervals are counted from the data, ours from the noise.
        from_noise = intervals - 1 - next(draws)
        times = (from_noise + 0.5) / intervals
        term = {"consistency_times": times.expand(-1, 2), "consistency_noise": noise}
        return StepDraws(backup, policy, term)


def _compare_schedule(comparison: Comparison, ql_consistency: ModuleType) -> None:
    steps = range(_NUM_STEPS)
    theirs = [ql_consistency.timesteps_schedule(step, _NUM_STEPS) for step in steps]
    ours = square_root_curriculum(torch.tensor([step / _NUM_STEPS for step in steps]))
    comparison.add(
        f"number of nodes, {_NUM_STEPS:,} steps",
        "square_root_curriculum",
        ours,
        torch.tensor(theirs, dtype=ours.dtype),
    )
    for nodes in sorted(set(theirs)):
        boundaries = ql_consistency.kerras_boundaries(7.0, 0.002, nodes, 80.0)
        levels = _NOISE_LEVELS.karras(nodes).flip(0)
        comparison.add("noise levels of a grid", "NoiseLevels", levels, boundaries)


@contextmanager
def _alike(program: _ConsistencyAC, consistency: Any) -> Iterator[None]:
    """Removes the two points in which the samplers differ, to see that there is no third.

    Theirs makes tensors of its levels in single precision, whatever that of the network is, and
    noises again with a little less noise than ours.
    """
    published = consistency.predict_consistency

    def in_double(self: Any, state: Tensor, action: Tensor, t: Tensor | float) -> Tensor:
        if isinstance(t, float):
            t = action.new_full((len(action), 1), t)
        return published(self, state, action, t)

    program.scales_noise = True
    with mock.patch.object(consistency, "predict_consistency", in_double):
        yield
    program.scales_noise = False


def compare(peer: Path) -> Comparison:
    """Compares everything that docs/systems.md lists.

    Args:
        peer: the checkout of the published program.
    """
    comparison, program = Comparison(), _ConsistencyAC()
    (ql_consistency,) = import_from(peer, "agents.ql_consistency", stubs=_STUBS)
    _compare_schedule(comparison, ql_consistency)
    agent = ql_consistency.Consistency_QL(**AGENT_OPTIONS, n_timesteps=len(_LEVELS))
    program.train_a_little(agent)
    _compare_agent(comparison, program, ql_consistency, agent)
    with _alike(program, ql_consistency.Consistency):
        _compare_agent(comparison, program, ql_consistency, agent, ", samplers made alike")
    return comparison


def _compare_agent(
    comparison: Comparison,
    program: _ConsistencyAC,
    ql_consistency: ModuleType,
    agent: Any,
    suffix: str = "",
) -> None:
    compare_sampler(comparison, program, agent, f"sampler at 80 and 2{suffix}")
    schedule = ql_consistency.timesteps_schedule
    for step in (0, 260, 999):
        # A step of the program is the first one of its schedule: it is told that it is another.
        program.num_nodes = schedule(step, _NUM_STEPS)
        with mock.patch.object(ql_consistency, "timesteps_schedule") as told:
            told.return_value = program.num_nodes
            for num_backup_samples in (1, 10):
                for coin in (0.25, 0.75):
                    compare_step(
                        comparison,
                        program,
                        agent,
                        coin=coin,
                        num_backup_samples=num_backup_samples,
                        progress=step / _NUM_STEPS,
                        suffix=suffix,
                    )
