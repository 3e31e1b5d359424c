"""Modules on the networks of a loss, with which they share their tensors."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule
from torchrl.objectives.common import LossModule

from torchrl_gtp.modules import ActionGradient, CandidateActor
from torchrl_gtp.modules.candidates import Selection
from torchrl_gtp.modules.sharing import share_parameters

__all__ = ["make_action_gradient", "make_candidate_actor"]


def make_candidate_actor(
    loss: Any, num_candidates: int, temperature: float, selection: Selection
) -> CandidateActor:
    """Builds the delayed policy of an actor-critic loss that chooses by its delayed Q-networks."""
    if not loss.has_qvalue_network:
        raise ValueError("This loss has no qvalue_network to choose candidates by.")
    options: dict[str, Any] = {}
    if selection == "expectile" and loss.has_value_network:
        options["value_network"] = _shared(loss, "value_network", loss.value_network_params)
        options["expectile"] = loss.expectile
        options["state_value_key"] = loss.tensor_keys.value
    return CandidateActor(
        loss.target_actor(),
        _qvalue_networks(loss, loss.target_qvalue_network_params),
        num_candidates=num_candidates,
        temperature=temperature,
        selection=selection,
        state_action_value_key=loss.tensor_keys.state_action_value,
        qvalue_action_key=loss.tensor_keys.action,
        **options,
    ).eval()


def make_action_gradient(loss: Any, **options: Any) -> ActionGradient:
    """Builds what moves actions uphill in the current Q-networks of an actor-critic loss."""
    if not loss.has_qvalue_network:
        raise ValueError("This loss has no qvalue_network whose gradient could be followed.")
    return ActionGradient(
        _qvalue_networks(loss, loss.qvalue_network_params),
        low=loss.actor_network_params["low"],
        high=loss.actor_network_params["high"],
        state_action_value_key=loss.tensor_keys.state_action_value,
        qvalue_action_key=loss.tensor_keys.action,
        **{"action_key": loss.tensor_keys.action, **options},
    ).eval()


def _qvalue_networks(loss: LossModule, params: TensorDictBase) -> list[TensorDictModule]:
    """The members of the ensemble as networks of their own."""
    return [_shared(loss, "qvalue_network", member) for member in params.unbind(0)]


def _shared(loss: LossModule, name: str, params: TensorDictBase) -> TensorDictModule:
    network = deepcopy(getattr(loss, name))
    share_parameters(network, params)
    return network
