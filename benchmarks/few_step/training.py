"""Training of methods on data sets, for a given number of network evaluations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import CudaGraphModule

from benchmarks.few_step.data_set import DataSet
from benchmarks.few_step.method import Method, Network, make_actor, make_loss, network_evaluations
from torchrl_gtp import GTPActor, TargetUpdate
from torchrl_gtp.training import Update, cosine, make_optimizer

__all__ = [
    "EVALUATIONS_PER_UPDATE",
    "Trained",
    "Training",
    "make_batch",
    "train",
    "train_side_by_side",
]

EVALUATIONS_PER_UPDATE = 3
"""Network evaluations for each sample in one update of the printed objective: student, teacher and
flow term."""

# On a GPU the batches come from this many samples, at most: those of a whole training of three
# evaluations an update with the default budget are three million.
_POOL_SIZE = 3_000_000


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


class Trained(NamedTuple):
    """What a training gives.

    Attributes:
        actor: the actor with averaged weights.
        num_updates: the updates made.
        evaluations: network evaluations for each sample in an update.
    """

    actor: GTPActor
    num_updates: int
    evaluations: float


def train(method: Method, data: DataSet, options: Training) -> Trained:
    """Trains a method on a CPU; the random numbers are those of torch's global generator.

    Raises:
        ValueError: if the evaluations do not suffice for one update.
    """
    update, evaluations = _make_update(method, data, options, torch.device("cpu"))
    for _ in range(update.num_updates):
        update(make_batch(data, options.batch_size))
    return Trained(update.loss_module.target_actor(), update.num_updates, evaluations)


def train_side_by_side(
    method: Method,
    sets: Sequence[DataSet],
    seeds: Sequence[int],
    options: Training,
    device: torch.device,
) -> list[Trained]:
    """Trains a method on several data sets at once, in one CUDA graph.

    Networks as small as these leave a GPU idle; each has a stream of its own. Networks at the start
    are those of :func:`train` with the seed; batches are drawn from three million samples.

    Args:
        method: the method.
        sets: a data set for each network.
        seeds: a seed for each network.
        options: how all are trained.
        device: the GPU.

    Raises:
        ValueError: if the evaluations do not suffice for one update.
    """
    updates, evaluations = [], 0.0
    for data, seed in zip(sets, seeds, strict=True):
        torch.manual_seed(seed)
        update, evaluations = _make_update(method, data, options, device)
        updates.append(update)
    num_updates = updates[0].num_updates
    step = CudaGraphModule(_SideBySide(updates), in_keys=[], out_keys=[])
    for _ in range(num_updates):
        step(TensorDict(device=device))
    return [Trained(one.loss_module.target_actor(), num_updates, evaluations) for one in updates]


class _SideBySide:
    """Several updates as one, each on a stream of its own."""

    def __init__(self, updates: Sequence[Update]) -> None:
        self._updates = [(update, torch.cuda.Stream(update.step.device)) for update in updates]

    def __call__(self, batch: TensorDictBase) -> None:
        outside = torch.cuda.current_stream()
        for update, stream in self._updates:
            stream.wait_stream(outside)
            with torch.cuda.stream(stream):
                update(batch)
        for _, stream in self._updates:
            outside.wait_stream(stream)


def _make_update(
    method: Method, data: DataSet, options: Training, device: torch.device
) -> tuple[Update, float]:
    """The update, and the network evaluations in it; on a GPU it draws its own batches."""
    loss = make_loss(method, data, make_actor(method, data, options.network)).to(device)
    target_update = TargetUpdate(loss, options.tau)
    evaluations = network_evaluations(loss, make_batch(data, options.batch_size).to(device))
    num_updates = int(options.num_updates * EVALUATIONS_PER_UPDATE / evaluations)
    if num_updates < 1:
        least = math.ceil(evaluations / EVALUATIONS_PER_UPDATE)
        raise ValueError(
            f"num_updates={options.num_updates} is not enough for one update of this method, which "
            f"takes {evaluations} network evaluations: give at least {least}."
        )
    pool = {}
    if device.type == "cuda":
        size = min(_POOL_SIZE, num_updates * options.batch_size)
        pool = {"data": make_batch(data, size).to(device), "batch_size": options.batch_size}
    update = Update(
        loss,
        make_optimizer(loss, options.lr if method.lr is None else method.lr),
        target_update,
        num_updates=num_updates,
        schedules={"lr": cosine(1.0)},
        **pool,
    )
    return update, evaluations


def make_batch(data: DataSet, batch_size: int) -> TensorDict:
    """Draws a batch of transitions."""
    condition, action, advantage = data.draw(batch_size)
    if data.chunk_length is not None:
        action = action.unflatten(-1, (data.chunk_length, -1))
    batch = {"observation": condition, "action": action}
    if advantage is not None:
        batch["advantage"] = advantage
    return TensorDict(batch, [batch_size])
