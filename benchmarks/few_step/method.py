"""What a method is: how the flow map is trained, and how it is sampled in K steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.autograd import forward_ad
from torchrl.data import Bounded

from benchmarks.few_step.data_set import DataSet
from torchrl_gtp import GTPActor, GTPLoss, NoiseLevels, make_gtp_actor
from torchrl_gtp.flow_map import FlowMap, Objective, Sampler
from torchrl_gtp.objectives import PrecomputedAdvantage

__all__ = [
    "Distilled",
    "Method",
    "Network",
    "flat_bounds",
    "make_actor",
    "make_loss",
    "network_evaluations",
    "sample",
    "trajectory",
]


@dataclass(frozen=True)
class Method:
    """One way to train and to sample; the network is the same for all.

    Attributes:
        objective: what trains the flow map.
        samplers: how to sample from what was trained, by name: each is a row of the table. K steps
            take K network evaluations, but 2 K - 1 with Heun's method.
        noise_levels: the range of noise levels of the flow map.
        most_steps: the largest K, where it is limited.
        lr: the initial learning rate, where it is not that of the others.
    """

    objective: Objective
    samplers: Mapping[str, Sampler]
    noise_levels: NoiseLevels = field(default_factory=NoiseLevels)
    most_steps: int | None = None
    lr: float | None = None


@dataclass(frozen=True)
class Distilled(Method):
    """A method that is distilled from a denoiser, with whose weights it begins.

    Rates fall to 0 and weights are averaged in the training of either. A rate of its own is that of
    the distillation; the denoiser may have another.

    Attributes:
        denoiser: how the denoiser is trained, before the method; over the same noise levels.
        denoiser_share: the share of all network evaluations that its training gets, in (0, 1).

    Raises:
        ValueError: for another share, or other noise levels.
    """

    denoiser: Method = field(kw_only=True)
    denoiser_share: float = field(kw_only=True)

    def __post_init__(self) -> None:
        """Checks the options."""
        if not 0.0 < self.denoiser_share < 1.0:
            raise ValueError(f"denoiser_share must lie in (0, 1), got {self.denoiser_share}.")
        if self.denoiser.noise_levels != self.noise_levels:
            raise ValueError(
                f"denoiser has {self.denoiser.noise_levels}, the method {self.noise_levels}: give "
                "both the same noise_levels."
            )


@dataclass(frozen=True)
class Network:
    """The network that every method gets: three layers of 256.

    Attributes:
        activation: ``"relu"`` (the library's default), ``"silu"`` or ``"mish"``.
        init: ``"kaiming"``, the library's weights of variance ``2 / fan_in`` in the layers of 256;
            or ``"pytorch"``, those of variance ``1 / (3 fan_in)`` that PyTorch's layers begin with.
    """

    activation: Literal["mish", "silu", "relu"] = "relu"
    init: Literal["kaiming", "pytorch"] = "kaiming"


_ACTIVATIONS = {"mish": nn.Mish, "silu": nn.SiLU, "relu": nn.ReLU}


def make_actor(method: Method, data: DataSet, network: Network) -> GTPActor:
    """Builds an untrained actor."""
    actor = make_gtp_actor(
        data.condition_dim,
        Bounded(-1, 1, (data.action_dim // (data.chunk_length or 1),)),
        chunk_length=data.chunk_length,
        sigma_data=data.sigma_data,
        noise_levels=method.noise_levels,
        activation=_ACTIVATIONS[network.activation],
    )
    if network.init == "pytorch":
        for layer in actor.flow_map.backbone.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    return actor


def make_loss(
    method: Method, data: DataSet, actor: GTPActor, denoiser: GTPActor | None = None
) -> GTPLoss:
    """Builds the loss of a method; its only critic is the advantage in the data, if there is one.

    A positive advantage gives the largest weight, 100, and others the weight 1.

    Args:
        method: the method.
        data: the data set.
        actor: the actor to train.
        denoiser: the trained denoiser, for a method that is distilled from one.
    """
    critic = PrecomputedAdvantage() if data.has_advantage else None
    return GTPLoss(
        actor,
        objective=method.objective,
        critic=critic,
        eta=1e3,
        denoiser_network=denoiser,
    )


@torch.no_grad()
def sample(
    actor: GTPActor, sampler: Sampler, condition: Tensor, noise: Tensor, num_steps: int
) -> Tensor:
    """Samples actions [..., A], within the bounds, from standard normal noise in K steps."""
    low, high = flat_bounds(actor)
    action = sampler(actor.flow_map, noise, condition, num_steps, bounds=(low, high))
    return action.clamp(low, high)


@torch.no_grad()
def trajectory(
    actor: GTPActor, sampler: Sampler, condition: Tensor, noise: Tensor, num_steps: int
) -> tuple[Tensor, Tensor]:
    """Follows :func:`sample` from noise to data.

    Returns:
        tuple of Tensor: the noisy actions at which the network is evaluated, and the actions in
        the end, not clamped, [E + 1, N, A] for E evaluations; and their noise levels [E + 1, N, 1].
    """
    recorded = _RecordedFlowMap(actor.flow_map)
    action = sampler(recorded, noise, condition, num_steps, bounds=flat_bounds(actor))
    actions, times = zip(*recorded.evaluated, strict=True)
    last = torch.zeros_like(times[-1])
    return torch.stack([*actions, action]), torch.stack([*times, last])


def flat_bounds(actor: GTPActor) -> tuple[Tensor, Tensor]:
    """Returns the bounds of all numbers that the flow map makes at once, each [A]."""
    shape = actor.event_shape
    return actor.low.expand(shape).flatten(), actor.high.expand(shape).flatten()


class _RecordedFlowMap(FlowMap):
    """A flow map that keeps where it is evaluated; jumps and denoiser are both its end point."""

    def __init__(self, flow_map: FlowMap) -> None:
        super().__init__(
            flow_map.backbone,
            sigma_data=flow_map.sigma_data,
            noise_levels=flow_map.noise_levels,
        )
        self.evaluated: list[tuple[Tensor, Tensor]] = []

    def endpoint(
        self, action_t: Tensor, t: Tensor, s: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        self.evaluated.append((action_t, t))
        return super().endpoint(action_t, t, s, condition)


def network_evaluations(loss: GTPLoss, batch: TensorDictBase) -> float:
    """Counts the forward evaluations of the network, for each sample, in one call of a loss.

    Those of a frozen denoiser count, too. An evaluation together with its forward-mode derivative
    counts twice.

    Args:
        loss (GTPLoss): the loss.
        batch (TensorDictBase): a batch of transitions.

    Examples:
        >>> from tensordict import TensorDict
        >>> from benchmarks.few_step.planar import PlanarSet
        >>> actor = make_gtp_actor(1, Bounded(-1, 1, (2,)))
        >>> batch = {"observation": torch.zeros(8, 1), "action": torch.zeros(8, 2)}
        >>> network_evaluations(GTPLoss(actor), TensorDict(batch, batch_size=[8]))
        3.125
    """
    rows = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal rows
        rows += output.shape[0] * (1 if forward_ad.unpack_dual(output).tangent is None else 2)

    flow_maps = [loss.actor_network.flow_map, loss.denoiser]
    handles = [
        flow_map.backbone.register_forward_hook(count)
        for flow_map in flow_maps
        if flow_map is not None
    ]
    try:
        loss(batch)
    finally:
        for handle in handles:
            handle.remove()
    return rows / len(batch)
