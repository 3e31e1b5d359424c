"""Training of one method on one data set, for a given number of network evaluations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tensordict import TensorDict
from torchrl.objectives import SoftUpdate

from benchmarks.few_step.data_set import DataSet
from benchmarks.few_step.method import Method, Network, make_actor, make_loss, network_evaluations
from torchrl_gtp import GTPActor
from torchrl_gtp.training import Update, cosine, make_optimizer

__all__ = ["EVALUATIONS_PER_UPDATE", "Training", "make_batch", "train"]

EVALUATIONS_PER_UPDATE = 3
"""Network evaluations for each sample in one update of the printed objective: student, teacher and
flow term."""


@dataclass(frozen=True)
class Training:
    """How all methods are trained.

    Attributes:
        num_updates: the budget in updates of three network evaluations, as the printed objective
            has; a method with more evaluations in each update gets fewer updates, and vice versa.
        batch_size: samples in an update, drawn afresh.
        lr: initial learning rate of Adam, which falls to 0 on half a cosine; some methods have one
            of their own.
        tau: rate of the moving average of the weights that are sampled with.
        network: the network.
    """

    num_updates: int = 12_000
    batch_size: int = 256
    lr: float = 3e-3
    tau: float = 0.005
    network: Network = field(default_factory=Network)


def train(method: Method, data: DataSet, options: Training) -> tuple[GTPActor, int, float]:
    """Trains a method; the random numbers are those of torch's global generator.

    Returns:
        tuple of GTPActor, int and float: the actor with averaged weights, the updates made, and the
        network evaluations for each sample in an update.

    Raises:
        ValueError: if the evaluations do not suffice for one update.
    """
    loss = make_loss(method, data, make_actor(method, data, options.network))
    target_update = SoftUpdate(loss, tau=options.tau)
    evaluations = network_evaluations(loss, make_batch(data, options.batch_size))
    num_updates = int(options.num_updates * EVALUATIONS_PER_UPDATE / evaluations)
    if num_updates < 1:
        least = math.ceil(evaluations / EVALUATIONS_PER_UPDATE)
        raise ValueError(
            f"num_updates={options.num_updates} is not enough for one update of this method, which "
            f"takes {evaluations} network evaluations: give at least {least}."
        )
    update = Update(
        loss,
        make_optimizer(loss, options.lr if method.lr is None else method.lr),
        target_update,
        num_updates=num_updates,
        schedules={"lr": cosine(1.0)},
    )
    for _ in range(num_updates):
        update(make_batch(data, options.batch_size))
    return loss.target_actor(), num_updates, evaluations


def make_batch(data: DataSet, batch_size: int) -> TensorDict:
    """Draws a batch of transitions."""
    condition, action, advantage = data.draw(batch_size)
    if data.chunk_length is not None:
        action = action.unflatten(-1, (data.chunk_length, -1))
    batch = {"observation": condition, "action": action}
    if advantage is not None:
        batch["advantage"] = advantage
    return TensorDict(batch, [batch_size])
