"""Diffusion-QL (arXiv 2208.06193) beside its published program."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.parity.adapters import NoisePrediction
from benchmarks.parity.batch import ACTION_DIM
from benchmarks.parity.comparison import Comparison
from benchmarks.parity.draws import Chain, take_chain
from benchmarks.parity.networks import make_actor
from benchmarks.parity.peers import import_from
from benchmarks.parity.program import AGENT_OPTIONS, Program, StepDraws
from benchmarks.parity.q_gradient import compare_candidates, compare_sampler, compare_step
from torchrl_gtp import GTPActor
from torchrl_gtp.flow_map import AncestralSampler, VPSchedule, family

__all__ = ["compare"]

_LEVELS = 5
_SCHEDULE = VPSchedule(_LEVELS)
# Its logger wants packages that nothing else does, and nothing is logged here.
_STUBS: dict[str, dict[str, Any]] = {"utils.logger": {"logger": None}}


class _DiffusionQL(Program):
    ema_name = "ema_model"
    term, title = "flow", "cloning loss"
    # They take the mean over the dimensions of the action, we the sum.
    factor, factor_name = 1 / ACTION_DIM, "1/A"
    objective = family("ddpm").objective

    def wrap(self, policy: Any) -> GTPActor:
        backbone = NoisePrediction(copy.deepcopy(policy.model), _SCHEDULE)
        return make_actor(backbone, AncestralSampler(_SCHEDULE), _LEVELS)

    def network(self, policy: Any) -> nn.Module:
        return policy.model

    def read_chain(self, draws: Iterator[Tensor]) -> Chain:
        return take_chain(draws, _LEVELS, num_drawn=_LEVELS)

    def read_step(self, draws: Iterator[Tensor]) -> StepDraws:
        backup, index, noise = self.read_chain(draws), next(draws), next(draws)
        term = {"flow_time": (index.unsqueeze(-1) + 0.5) / _LEVELS, "flow_noise": noise}
        return StepDraws(backup, self.read_chain(draws), term)


def compare(peer: Path) -> Comparison:
    """Compares everything that docs/systems.md lists.

    Args:
        peer: the checkout of the published program.
    """
    comparison, program = Comparison(), _DiffusionQL()
    names = ("agents.diffusion", "agents.ql_diffusion")
    diffusion, ql_diffusion = import_from(peer, *names, stubs=_STUBS)
    # Made in single precision, the table alone would be 1e-8 away.
    betas = functools.partial(diffusion.vp_beta_schedule, dtype=torch.float64)
    comparison.add("variances `beta_i`", "VPSchedule", _SCHEDULE.betas(), betas(_LEVELS))
    with mock.patch.object(diffusion, "vp_beta_schedule", betas):
        agent = ql_diffusion.Diffusion_QL(**AGENT_OPTIONS, beta_schedule="vp", n_timesteps=_LEVELS)
    program.train_a_little(agent)
    compare_sampler(comparison, program, agent, f"sampler, {_LEVELS} steps")
    for num_backup_samples in (1, 10):
        for coin in (0.25, 0.75):
            compare_step(
                comparison,
                program,
                agent,
                coin=coin,
                num_backup_samples=num_backup_samples,
            )
    compare_candidates(comparison, program, agent)
    return comparison
