"""DIPO (arXiv 2305.13122) beside its published program."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from benchmarks.parity.adapters import NoisePrediction
from benchmarks.parity.batch import ACTION_DIM, BATCH_SIZE, GAMMA, OBSERVATION_DIM, make_batch
from benchmarks.parity.comparison import Comparison
from benchmarks.parity.draws import recorded, replayed, take_chain
from benchmarks.parity.networks import (
    actor_gradient,
    copy_qvalues,
    gradient_of,
    make_actor,
    set_targets,
)
from benchmarks.parity.peers import import_from
from torchrl_gtp import GTPActor, GTPLoss, TargetUpdate
from torchrl_gtp.flow_map import AncestralSampler, Denoising, Objective, VPSchedule

__all__ = ["compare"]

# The publication has 100 levels, spaced by a cosine; ours has the schedule of Diffusion-QL alone.
_SCHEDULE = VPSchedule(20)
_ACTION_STEPS = 20
# Its limits of the gradient's norm for each dimension of the action; 0 is none, 0.1 the published.
_LIMITS = (0.0, 0.1, 0.001)
_ARGUMENTS: dict[str, Any] = {
    "policy_type": "Diffusion",
    "noise_ratio": 1.0,
    "beta_schedule": "vp",
    "n_timesteps": _SCHEDULE.num_levels,
    "diffusion_lr": 3e-4,
    "critic_lr": 3e-4,
    "action_lr": 0.03,
    "action_gradient_steps": _ACTION_STEPS,
    # Gradients of the networks are not clipped: that of our actor is a multiple of theirs.
    "ac_grad_norm": 0.0,
    "tau": 0.005,
    "update_actor_target_every": 1,
}


class _Memory:
    """Stands for both buffers of the program; the second one keeps what it is told to store."""

    def __init__(self, batch: TensorDict | None = None) -> None:
        self.batch = batch
        self.stored: list[Tensor] = []

    def sample(self, batch_size: int) -> tuple[Tensor, ...]:
        """Gives observation, action, reward, next observation and discount."""
        batch = make_batch(batch_size) if self.batch is None else self.batch
        after = batch["next"]
        mask = GAMMA * (1 - after["terminated"].to(batch["action"].dtype))
        return batch["observation"], batch["action"], after["reward"], after["observation"], mask


class _ImprovedMemory(_Memory):
    def sample(self, batch_size: int) -> tuple[Any, ...]:
        observation, action, *_ = super().sample(batch_size)
        # The program moves it in place.
        return observation, action.clone().requires_grad_(), None

    def replace(self, _: None, action: np.ndarray) -> None:
        self.stored.append(torch.from_numpy(action.copy()))


@contextmanager
def _recorded_losses() -> Iterator[list[float]]:
    """Takes down each scalar of which a gradient is computed: the program returns no losses."""
    losses: list[float] = []
    original = Tensor.backward

    def backward(loss: Tensor, *args: Any, **kwargs: Any) -> None:
        if loss.ndim == 0:
            losses.append(loss.item())
        original(loss, *args, **kwargs)

    with mock.patch.object(Tensor, "backward", backward):
        yield losses


def _make_agent(dipo: ModuleType, diffusion: ModuleType, limit: float) -> Any:
    low, high = (np.full(ACTION_DIM, bound) for bound in (-1.0, 1.0))
    space = SimpleNamespace(shape=(ACTION_DIM,), low=low, high=high)
    arguments = SimpleNamespace(**_ARGUMENTS, ratio=limit)
    # Made in single precision, the table alone would be 1e-8 away.
    betas = functools.partial(diffusion.vp_beta_schedule, dtype=torch.float64)
    with mock.patch.object(diffusion, "vp_beta_schedule", betas):
        return dipo.DiPo(
            arguments, OBSERVATION_DIM, space, _Memory(), _ImprovedMemory(), torch.device("cpu")
        )


def _wrap(policy: Any) -> GTPActor:
    backbone = NoisePrediction(copy.deepcopy(policy.model), _SCHEDULE)
    return make_actor(backbone, AncestralSampler(_SCHEDULE), _SCHEDULE.num_levels)


def _make_loss(agent: Any) -> GTPLoss:
    objective = Objective({"flow": Denoising(_SCHEDULE, "noise")})
    loss = GTPLoss(
        _wrap(agent.actor), copy_qvalues(agent.critic), objective=objective, weighting="none"
    )
    loss.set_keys(policy_action="improved_action")
    loss.make_value_estimator(gamma=GAMMA)
    TargetUpdate(loss, _ARGUMENTS["tau"])
    set_targets(loss, "actor_network", [_wrap(agent.actor_target)])
    set_targets(loss, "qvalue_network", copy_qvalues(agent.critic_target))
    return loss


def _compare_step(comparison: Comparison, agent: Any, limit: float) -> None:
    agent, batch = copy.deepcopy(agent), make_batch()
    loss = _make_loss(agent)
    agent.memory, agent.diffusion_memory = _Memory(batch), _ImprovedMemory(batch)
    with recorded() as record, _recorded_losses() as losses:
        agent.train(iterations=1, batch_size=BATCH_SIZE)
    critic_loss, actor_loss = losses
    (improved,) = agent.diffusion_memory.stored
    draws, levels = iter(record), _SCHEDULE.num_levels
    backup = take_chain(draws, levels, num_drawn=levels).for_batch(BATCH_SIZE)
    index, noise = draws
    batch["improved_action"] = batch["action"]
    batch["loss_noise"] = loss.draw_noise(batch).update(
        {
            "backup": backup.start,
            "flow_time": (index.unsqueeze(-1) + 0.5) / levels,
            "flow_noise": noise,
        }
    )

    optimizer = torch.optim.Adam(loss.qvalue_network_params.parameters(), lr=3e-4, eps=1e-5)
    with replayed(backup.further):
        loss_qvalue = loss.losses(batch)[0]["loss_qvalue"]
    loss_qvalue.backward()
    optimizer.step()
    improve = loss.action_gradient(
        num_steps=_ACTION_STEPS,
        learning_rate=_ARGUMENTS["action_lr"],
        max_grad_norm=limit * ACTION_DIM or None,
    )
    batch = improve(batch)
    flow_loss, _ = loss.flow_loss(batch)
    flow_loss.backward()

    comparison.add(f"critic loss ({levels} levels)", "qvalue_loss", loss_qvalue, critic_loss)
    comparison.add(
        f"action gradient, {_ACTION_STEPS} steps, {len(_LIMITS)} limits of the norm",
        "action_gradient",
        batch["improved_action"],
        improved,
    )
    comparison.add(
        "cloning loss on the improved actions (times 1/A)",
        "flow_loss",
        flow_loss / ACTION_DIM,
        actor_loss,
    )
    network = agent.actor.model
    comparison.add(
        "gradient of the actor (times 1/A)",
        "flow_loss",
        actor_gradient(loss, network) / ACTION_DIM,
        gradient_of(network),
    )


def compare(peer: Path) -> Comparison:
    """Compares everything that docs/systems.md lists.

    Args:
        peer: the checkout of the published program.
    """
    comparison = Comparison()
    dipo, diffusion = import_from(peer, "agent.DiPo", "agent.diffusion")
    for limit in _LIMITS:
        agent = _make_agent(dipo, diffusion, limit)
        # So that copies differ and actions make sense.
        agent.train(iterations=20, batch_size=BATCH_SIZE)
        # Our optimiser is new in the step that is compared, and so is theirs.
        agent.critic_optimizer.state.clear()
        _compare_step(comparison, agent, limit)
    return comparison
