"""Our actors and Q-networks with the weights of a published program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.modules import ValueOperator

from benchmarks.parity.adapters import PublishedEndpoint
from benchmarks.parity.batch import ACTION_DIM, OBSERVATION_DIM
from torchrl_gtp import CandidateActor, FlowMap, GTPActor, NoiseLevels, make_qvalue
from torchrl_gtp.flow_map.samplers import Sampler
from torchrl_gtp.objectives import GTPLoss

__all__ = [
    "actor_gradient",
    "candidate_scores",
    "copy_qvalues",
    "gradient_of",
    "make_actor",
    "set_targets",
]


def make_actor(
    backbone: PublishedEndpoint,
    sampler: Sampler,
    num_steps: int,
    noise_levels: NoiseLevels | None = None,
) -> GTPActor:
    """Builds our policy around a published network, with actions in [-1, 1]."""
    flow_map = FlowMap(backbone, sigma_data=backbone.sigma_data, noise_levels=noise_levels)
    bounds: dict[str, Any] = {"low": [-1.0] * ACTION_DIM, "high": [1.0] * ACTION_DIM}
    return GTPActor(flow_map, **bounds, sampler=sampler, num_steps=num_steps)


def copy_qvalues(critic: Any) -> list[ValueOperator]:
    """Builds our Q-networks with the weights of a critic's ``q1_model`` and ``q2_model``."""
    networks = []
    for published in (critic.q1_model, critic.q2_model):
        network = make_qvalue(OBSERVATION_DIM, ACTION_DIM)
        pairs = zip(network.parameters(), published.parameters(), strict=True)
        with torch.no_grad():
            for ours, theirs in pairs:
                ours.copy_(theirs)
        networks.append(network)
    return networks


def set_targets(loss: GTPLoss, name: str, networks: Sequence[TensorDictModule]) -> None:
    """Gives the delayed copy of a network of the loss the weights of other ones.

    Args:
        loss: the loss.
        name: ``"actor_network"`` or ``"qvalue_network"``.
        networks: one, or the members of an ensemble.
    """
    sources = [TensorDict.from_module(network).data for network in networks]
    source = sources[0] if len(sources) == 1 else torch.stack(sources)
    getattr(loss, f"target_{name}_params").data.copy_(source)


def gradient_of(network: nn.Module) -> Tensor:
    """Concatenates the gradients of all parameters of a published network."""
    return torch.cat([_gradient(parameter) for parameter in network.parameters()])


def actor_gradient(loss: GTPLoss, network: nn.Module) -> Tensor:
    """Concatenates the gradients of our actor in the order of the published network in it."""
    inside = loss.actor_network_params["flow_map", "backbone", "network"]
    names = [tuple(name.split(".")) for name, _ in network.named_parameters()]
    return torch.cat([_gradient(inside[name]) for name in names])


@contextmanager
def candidate_scores(policy: CandidateActor) -> Iterator[list[Tensor]]:
    """Takes down the logits by which a policy chooses, without the noise that makes it a draw."""
    scores: list[Tensor] = []
    original = policy._scores

    def watching(*args: Any) -> Tensor:
        # The noise is minus the logarithm of exponential draws: of ones it is 0.
        with mock.patch.object(torch.Tensor, "exponential_", lambda drawn: drawn.fill_(1.0)):
            scores.append(original(*args))
        return scores[-1]

    with mock.patch.object(policy, "_scores", watching):
        yield scores


def _gradient(parameter: Tensor) -> Tensor:
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return gradient.flatten()
