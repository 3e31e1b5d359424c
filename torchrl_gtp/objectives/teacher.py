"""The frozen policy that makes the targets of a loss."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from tensordict import TensorDictParams
from torch import Tensor

from torchrl_gtp.flow_map import FlowMap
from torchrl_gtp.modules import GTPActor

__all__ = ["FrozenActor", "frozen_denoiser"]


# Compared by identity: torch 2.11 compiles a call of an object made while it traces only if its
# hash reads no field.
@dataclass(frozen=True, eq=False)
class FrozenActor:
    """The flow map of an actor with given parameters, without gradient to them.

    A :class:`~torchrl_gtp.flow_map.Teacher`. It is used where the actor's current parameters are
    in place.

    Args:
        actor (GTPActor): the stateless actor.
        params (TensorDictParams): the parameters to use.
        in_place (bool): whether these are the current ones, so that they need no change.
        denoiser (FlowMap, optional): another denoiser for ODE solvers. Defaults to ``None``: the
            flow map's own.
    """

    actor: GTPActor
    params: TensorDictParams
    in_place: bool
    denoiser: FlowMap | None = None

    def __call__(self, action_t: Tensor, t: Tensor, s: Tensor, condition: Tensor | None) -> Tensor:
        """Evaluates the flow map, without gradient."""
        with torch.no_grad(), self._params_in_place():
            return self.actor.flow_map(action_t, t, s, condition)

    def endpoint(self, action_t: Tensor, t: Tensor, s: Tensor, condition: Tensor | None) -> Tensor:
        """Evaluates the end point of the flow map, without gradient."""
        with torch.no_grad(), self._params_in_place():
            return self.actor.flow_map.endpoint(action_t, t, s, condition)

    def through(self, action_t: Tensor, t: Tensor, s: Tensor, condition: Tensor | None) -> Tensor:
        """Evaluates the flow map, with gradient to ``action_t`` alone."""
        with self.params.data.to_module(self.actor, preserve_module_state=False):
            return self.actor.flow_map(action_t, t, s, condition)

    def denoise(self, action_t: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """Evaluates the denoiser, without gradient."""
        if self.denoiser is None:
            return self.endpoint(action_t, t, t, condition)
        with torch.no_grad():
            return self.denoiser.denoise(action_t, t, condition)

    def _params_in_place(self) -> AbstractContextManager[object]:
        if self.in_place:
            return nullcontext()
        return self.params.to_module(self.actor, preserve_module_state=False)


def frozen_denoiser(denoiser_network: GTPActor, actor_network: GTPActor) -> FlowMap:
    """Copies the flow map of a trained policy, without gradient to it and without dropout.

    Args:
        denoiser_network (GTPActor): the trained policy.
        actor_network (GTPActor): the policy in training, for whose observations and actions the
            denoiser is asked.

    Raises:
        TypeError: if ``denoiser_network`` is no ``GTPActor``.
        ValueError: if it is a policy of other observations or actions.
    """
    if not isinstance(denoiser_network, GTPActor):
        raise TypeError(
            f"denoiser_network must be a GTPActor, got {type(denoiser_network).__name__}."
        )
    theirs, ours = _what_it_is_about(denoiser_network), _what_it_is_about(actor_network)
    different = [name for name in ours if theirs[name] != ours[name]]
    if different:
        raise ValueError(
            "denoiser_network must be a policy of the observations and actions of actor_network, "
            f"but it has { ({name: theirs[name] for name in different}) } in the place of "
            f"{ ({name: ours[name] for name in different}) }: build both alike."
        )
    return copy.deepcopy(denoiser_network.flow_map).requires_grad_(False).eval()


def _what_it_is_about(actor: GTPActor) -> dict[str, object]:
    return {
        "observation_keys": actor.observation_keys,
        "action_key": actor.action_key,
        "event_shape": tuple(actor.event_shape),
        "condition_dim": getattr(actor.flow_map.backbone, "condition_dim", None),
        "low": actor.low.tolist(),
        "high": actor.high.tolist(),
    }
