"""Training of methods on data sets, for a given number of network evaluations."""

from __future__ import annotations

import dataclasses
import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import CudaGraphModule

from benchmarks.few_step.data_set import DataSet
from benchmarks.few_step.method import (
    Distilled,
    Method,
    Network,
    make_actor,
    make_loss,
    network_evaluations,
)
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

# On a GPU the batches of a data set come from this many samples at most: those of a whole training
# of three evaluations an update with the default budget are three million.
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
        muon_lr: initial learning rate of Muon for the weights of hidden layers, which falls
            likewise, and differs by the same factor for methods with an ``lr`` of their own;
            ``None``: Adam for all weights.
    """

    num_updates: int = 12_000
    batch_size: int = 256
    lr: float = 3e-3
    tau: float = 0.005
    network: Network = field(default_factory=Network)
    muon_lr: float | None = None


class Trained(NamedTuple):
    """What a training gives.

    Attributes:
        actor: the actor with averaged weights.
        num_updates: the updates made, of a distilled method those of its denoiser among them.
        evaluations: network evaluations for each sample in an update, in the mean over all updates.
    """

    actor: GTPActor
    num_updates: int
    evaluations: float


def train(method: Method, data: DataSet, options: Training, *, compiled: bool = False) -> Trained:
    """Trains a method on a CPU; the random numbers are those of torch's global generator.

    Args:
        method: the method.
        data: the data set.
        options: how it is trained.
        compiled: whether the loss is compiled, which takes 10 to 30 seconds and then makes updates
            1.2 (a denoiser) to 1.6 times (GTP) as fast. It rounds otherwise
            and draws other random numbers. Defaults to ``False``.

    Returns:
        Trained: the actor, and what it cost.

    Raises:
        ValueError: if the evaluations do not suffice for one update.
    """
    if isinstance(method, Distilled):
        first, rest = _split(method, options)
        denoiser = train(method.denoiser, data, first, compiled=compiled)
        return _with_denoiser(_train_one(method, data, rest, compiled, denoiser.actor), denoiser)
    return _train_one(method, data, options, compiled)


def _train_one(
    method: Method,
    data: DataSet,
    options: Training,
    compiled: bool,
    denoiser: GTPActor | None = None,
) -> Trained:
    update, evaluations = _make_update(method, data, options, torch.device("cpu"), None, denoiser)
    if compiled:
        # A process compiles a few losses at most, and runs others eagerly without a word.
        torch.compiler.reset()
        update.model = torch.compile(update.loss_module)
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

    Networks as small as these leave a GPU idle; each has a stream of its own. At the start they are
    those of :func:`train` with the same seed, of a distilled method those of its denoiser. What is
    drawn after that comes from one generator of the GPU, so that a training can be repeated with
    all of its neighbours only. The batches of a data set are drawn from one pool of its samples, of
    three million or as many as a training draws.

    Args:
        method: the method.
        sets: a data set for each network.
        seeds: a seed for each network.
        options: how all are trained.
        device: the GPU.

    Returns:
        list of Trained: one for each network.

    Raises:
        ValueError: if the evaluations do not suffice for one update.
    """
    if isinstance(method, Distilled):
        first, rest = _split(method, options)
        denoisers = train_side_by_side(method.denoiser, sets, seeds, first, device)
        trained = _train_at_once(
            method, sets, seeds, rest, device, [one.actor for one in denoisers]
        )
        return [_with_denoiser(*both) for both in zip(trained, denoisers, strict=True)]
    return _train_at_once(method, sets, seeds, options, device, [None] * len(sets))


def _train_at_once(
    method: Method,
    sets: Sequence[DataSet],
    seeds: Sequence[int],
    options: Training,
    device: torch.device,
    denoisers: Sequence[GTPActor | None],
) -> list[Trained]:
    pools: dict[str, TensorDict] = {}
    updates, evaluations = [], 0.0
    for data, seed, denoiser in zip(sets, seeds, denoisers, strict=True):
        # What is distilled would draw what its denoiser was trained with.
        if denoiser is None:
            torch.manual_seed(seed)
        update, evaluations = _make_update(method, data, options, device, pools, denoiser)
        updates.append(update)
    step = CudaGraphModule(_SideBySide(updates), in_keys=[], out_keys=[], device=device)
    for _ in range(updates[0].num_updates):
        step(TensorDict(device=device))
    trained = [
        Trained(one.loss_module.target_actor(), one.num_updates, evaluations) for one in updates
    ]
    # The graph and what it reads make up a cycle: gigabytes that the next method needs.
    del step, update, updates, pools
    gc.collect()
    return trained


def _split(method: Distilled, options: Training) -> tuple[Training, Training]:
    """The trainings of the denoiser and of what is distilled from it."""
    first = round(method.denoiser_share * options.num_updates)
    # With fewer neither part is sure to have evaluations for an update.
    if min(first, options.num_updates - first) < 2:
        raise ValueError(
            f"num_updates={options.num_updates} is not enough for a denoiser and what is distilled "
            f"from it, of which it gets {method.denoiser_share:.0%}: give at least "
            f"{math.ceil(2 / min(method.denoiser_share, 1 - method.denoiser_share))}."
        )
    return (
        dataclasses.replace(options, num_updates=first),
        dataclasses.replace(options, num_updates=options.num_updates - first),
    )


def _with_denoiser(trained: Trained, denoiser: Trained) -> Trained:
    """What was distilled, with the cost of its denoiser."""
    num_updates = trained.num_updates + denoiser.num_updates
    evaluations = sum(one.num_updates * one.evaluations for one in (trained, denoiser))
    return Trained(trained.actor, num_updates, evaluations / num_updates)


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
    method: Method,
    data: DataSet,
    options: Training,
    device: torch.device,
    pools: dict[str, TensorDict] | None,
    denoiser: GTPActor | None,
) -> tuple[Update, float]:
    """The update, and the network evaluations in it; with pools it draws its batches from them.

    With a denoiser the actor begins with its weights and is distilled from it.
    """
    actor = make_actor(method, data, options.network)
    if denoiser is not None:
        actor.load_state_dict(denoiser.state_dict())
    loss = make_loss(method, data, actor, denoiser).to(device)
    target_update = TargetUpdate(loss, options.tau)
    evaluations = network_evaluations(loss, make_batch(data, options.batch_size).to(device))
    num_updates = int(options.num_updates * EVALUATIONS_PER_UPDATE / evaluations)
    if num_updates < 1:
        least = math.ceil(evaluations / EVALUATIONS_PER_UPDATE)
        raise ValueError(
            f"num_updates={options.num_updates} is not enough for one update of this method, which "
            f"takes {evaluations} network evaluations: give at least {least}."
        )
    pool: dict[str, Any] = {}
    if pools is not None:
        if data.name not in pools:
            size = min(_POOL_SIZE, num_updates * options.batch_size)
            pools[data.name] = make_batch(data, size).to(device)
        pool = {"data": pools[data.name], "batch_size": options.batch_size}
    lr = options.lr if method.lr is None else method.lr
    muon_lr = None if options.muon_lr is None else options.muon_lr * (lr / options.lr)
    update = Update(
        loss,
        make_optimizer(loss, lr, muon_lr=muon_lr),
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
