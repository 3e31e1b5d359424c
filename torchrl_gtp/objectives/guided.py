"""Losses of a policy that a critic guides: their own one, or any other."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.objectives.common import LossModule

from torchrl_gtp.modules import ActionGradient, CandidateActor, GTPActor
from torchrl_gtp.modules.candidates import Selection
from torchrl_gtp.objectives.actor_critic import ActorCriticLoss
from torchrl_gtp.objectives.base import PolicyLoss
from torchrl_gtp.objectives.critic_protocol import Critic, check_critic, check_own_options
from torchrl_gtp.objectives.double_q import ClippedDoubleQLoss

__all__ = ["GuidedLoss"]

_CRITICS_KEYS = {"state_action_value", "value", "reward", "done", "terminated"}


class GuidedLoss(ClippedDoubleQLoss):
    """Base of a policy's loss with clipped double-Q critics of its own, or with a ``critic``.

    All that goes to a critic inside the loss goes through this class: losses, advantages, keys,
    masks, random draws and candidates. Such a critic sees the very parameters of this policy and
    its moving average, so that there is one of each.

    Args:
        actor_network (GTPActor): the policy.
        qvalue_network (TensorDictModule or list of them, optional): as in
            :class:`~torchrl_gtp.objectives.ClippedDoubleQLoss`.
        value_network (TensorDictModule, optional): likewise.

    Keyword Args:
        critic (Critic, optional): another critic, exclusive with ``qvalue_network``.
        **critic_options: further arguments of that class.
    """

    critic: Critic | None

    def __init__(
        self,
        actor_network: GTPActor,
        qvalue_network: TensorDictModule | list[TensorDictModule] | None = None,
        value_network: TensorDictModule | None = None,
        *,
        critic: Critic | None = None,
        **critic_options: Any,
    ) -> None:
        super().__init__(actor_network, qvalue_network, value_network, **critic_options)
        if critic is not None:
            check_critic(critic, self.reduction)
            check_own_options(qvalue_network, critic_options)
            self._share_policy(critic)
        self.critic = critic
        self.has_critic = self.has_qvalue_network or critic is not None
        self._set_in_keys()

    def _share_policy(self, critic: Critic) -> None:
        """Gives the critic's losses this policy's parameters and targets in place of their own."""
        ours = {id(parameter) for parameter in self.actor_network_params.parameters()}
        for loss in _losses_in(critic):
            params = loss._modules.get("actor_network_params")
            if params is None or not isinstance(loss.__dict__.get("actor_network"), GTPActor):
                continue
            if not ours & {id(parameter) for parameter in params.parameters()}:
                raise ValueError(
                    f"{type(loss).__name__} samples another actor_network than the one that this "
                    "loss trains: build both with the same object."
                )
            for name in ("actor_network_params", "target_actor_network_params"):
                if name in loss._modules and name in self._modules:
                    loss._modules[name] = self._modules[name]

    def _set_in_keys(self) -> None:
        super()._set_in_keys()
        # While the base class is set up there is no critic yet.
        critic = getattr(self, "critic", None)
        if critic is not None:
            self._in_keys = list(dict.fromkeys([*self._in_keys, *critic.in_keys]))

    def set_keys(self, **kwargs: NestedKey | None) -> None:
        """Sets entries, also those of a critic inside the loss.

        Raises:
            ValueError: for an unknown name, or for one that a critic of another kind reads: set
                it there.
        """
        critic = getattr(self, "critic", None)
        theirs = sorted(_CRITICS_KEYS & kwargs.keys())
        if theirs and critic is not None and not isinstance(critic, PolicyLoss):
            raise ValueError(
                f"{theirs} are read by the critic alone, a {type(critic).__name__} with keys of "
                "its own: set them there, before it is given to this loss."
            )
        super().set_keys(**kwargs)
        if isinstance(critic, PolicyLoss):
            critic.set_keys(**kwargs)
            self._set_in_keys()

    @property
    def loss_mask_key(self) -> NestedKey | str | None:
        """The entry that masks samples out, ``"auto"`` or ``None``; for the critic as well."""
        return self._loss_mask_key

    @loss_mask_key.setter
    def loss_mask_key(self, value: NestedKey | str | None) -> None:
        self._loss_mask_key = value
        for loss in _losses_in(getattr(self, "critic", None)):
            loss.loss_mask_key = value

    def make_value_estimator(self, value_type: Any = None, **hyperparams: Any) -> GuidedLoss:
        """Chooses the value estimator of the critic; see the base class.

        Raises:
            ValueError: without a critic, or for one of another kind, which has an estimator of
                its own.
        """
        critic = getattr(self, "critic", None)
        if isinstance(critic, ActorCriticLoss):
            critic.make_value_estimator(value_type, **hyperparams)
        else:
            super().make_value_estimator(value_type, **hyperparams)
        return self

    def draw_noise(self, tensordict: TensorDictBase) -> TensorDict:
        """Draws all random numbers of the policy's losses and of the critic; see the base class."""
        noise = super().draw_noise(tensordict)
        if isinstance(self.critic, PolicyLoss):
            noise.update(self.critic.draw_noise(tensordict))
        return noise

    def losses(self, tensordict: TensorDictBase) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Computes the losses of the critic; see :class:`~torchrl_gtp.objectives.Critic`.

        Raises:
            ValueError: for a loss without a critic.
        """
        if self.critic is None:
            return super().losses(tensordict)
        return self.critic.losses(self._for_critic(tensordict))

    @torch.no_grad()
    def advantage(self, tensordict: TensorDictBase) -> Tensor:
        """Computes the advantage of each sample, without gradient, as the critic defines it.

        Args:
            tensordict (TensorDictBase): a batch with observations and actions; not modified.

        Returns:
            Tensor: advantages of the shape of the batch.

        Raises:
            ValueError: for a loss without a critic.
        """
        if self.critic is None:
            return super().advantage(tensordict)
        advantage = self.critic.advantage(self._for_critic(tensordict)).to(self._dtype)
        leading = self._leading(tensordict)
        return advantage.squeeze(-1) if advantage.shape == (*leading, 1) else advantage

    def candidate_actor(
        self,
        num_candidates: int = 50,
        temperature: float = 1.0,
        selection: Selection = "softmax",
    ) -> CandidateActor:
        """Returns the delayed policy choosing among candidates by the critic's Q-networks.

        Args:
            num_candidates (int): candidates for each observation. Defaults to ``50``.
            temperature (float): temperature of the softmax over their Q-values; 0 keeps the
                best. Defaults to ``1.0``.
            selection ("softmax", "greedy" or "expectile"): how one is chosen; see
                :class:`~torchrl_gtp.CandidateActor`. Defaults to ``"softmax"``.

        Raises:
            ValueError: if there are no Q-networks of this library to choose by.
        """
        if self.critic is None:
            return super().candidate_actor(num_candidates, temperature, selection)
        if not isinstance(self.critic, ClippedDoubleQLoss):
            raise ValueError(
                f"The critic, a {type(self.critic).__name__}, has no Q-networks of this library to "
                "choose candidates by: make a CandidateActor of your own."
            )
        return self.critic.candidate_actor(num_candidates, temperature, selection)

    def action_gradient(self, **options: Any) -> ActionGradient:
        """Returns what moves actions uphill in the critic's Q; see the base class.

        Raises:
            ValueError: if there are no Q-networks of this library.
        """
        if self.critic is None:
            return super().action_gradient(**options)
        if not isinstance(self.critic, ClippedDoubleQLoss):
            raise ValueError(
                f"The critic, a {type(self.critic).__name__}, has no Q-networks of this library to "
                "follow: make an ActionGradient of your own."
            )
        return self.critic.action_gradient(**options)

    def _for_critic(self, tensordict: TensorDictBase) -> TensorDictBase:
        """A shallow copy, because critics may write, with the batch size, which some ask for."""
        batch, leading = tensordict.copy(), self._leading(tensordict)
        following = batch.get("next", default=None)
        if following is not None:
            batch.set("next", following.copy())
            batch.get("next").batch_size = leading
        batch.batch_size = leading
        return batch


def _losses_in(critic: Any) -> list[LossModule]:
    modules = critic.modules() if isinstance(critic, nn.Module) else ()
    return [module for module in modules if isinstance(module, LossModule)]
