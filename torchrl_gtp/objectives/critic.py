"""Clipped double-Q learning for a policy that is sampled, not differentiated."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Literal

import torch
from tensordict import TensorDictBase, TensorDictParams
from tensordict.nn import TensorDictModule
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.objectives.common import LossModule
from torchrl.objectives.utils import (
    ValueEstimators,
    _vmap_func,
    dispatch_value_estimator,
    distance_loss,
)
from torchrl.objectives.value import ValueEstimatorBase

from torchrl_gtp.modules import CandidateActor, GTPActor
from torchrl_gtp.modules.sharing import share_parameters
from torchrl_gtp.objectives.base import PolicyLoss

__all__ = ["ClippedDoubleQLoss"]


class ClippedDoubleQLoss(PolicyLoss):
    """Base of losses with a generative policy and clipped double-Q critics.

    It holds the networks and gives :meth:`qvalue_loss`, :meth:`value_loss` and
    :meth:`advantage`. The policy enters through samples only; the critics' gradient never
    reaches it. Subclasses add the policy's losses and ``forward``. The arguments are those of
    :class:`~torchrl_gtp.GTPLoss`.
    """

    default_value_estimator = ValueEstimators.TD0
    SUPPORTED_VALUE_ESTIMATORS = (
        ValueEstimators.TD0,
        ValueEstimators.TD1,
        ValueEstimators.TDLambda,
    )

    def __init__(
        self,
        actor_network: GTPActor,
        qvalue_network: TensorDictModule | list[TensorDictModule] | None = None,
        value_network: TensorDictModule | None = None,
        *,
        num_qvalue_nets: int = 2,
        loss_function: Literal["l2", "l1", "smooth_l1"] = "l2",
        expectile: float = 0.9,
        num_value_samples: int = 1,
        num_backup_samples: int = 1,
        policy_num_steps: int | None = None,
        delay_actor: bool = True,
        delay_qvalue: bool = True,
        separate_losses: bool = False,
        deactivate_vmap: bool = False,
        use_prioritized_weights: Literal["auto"] | bool = "auto",
        reduction: Literal["none", "mean", "sum"] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(actor_network, GTPActor):
            raise TypeError(
                "actor_network must be a GTPActor (see make_gtp_actor), got "
                f"{type(actor_network).__name__}."
            )
        if value_network is not None and qvalue_network is None:
            raise ValueError("value_network needs a qvalue_network, which is None.")
        for name, count in (
            ("num_qvalue_nets", num_qvalue_nets),
            ("num_value_samples", num_value_samples),
            ("num_backup_samples", num_backup_samples),
            ("policy_num_steps", policy_num_steps),
        ):
            if count is not None and count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}.")
        if not 0.0 < expectile < 1.0:
            raise ValueError(f"expectile must lie strictly between 0 and 1, got {expectile}.")
        if loss_function not in ("l2", "l1", "smooth_l1"):
            raise ValueError(
                f"loss_function must be 'l2', 'l1' or 'smooth_l1', got {loss_function!r}."
            )
        if reduction not in (None, "none", "mean", "sum"):
            raise ValueError(f"reduction must be 'none', 'mean', 'sum' or None, got {reduction!r}.")
        self.reduction = "mean" if reduction is None else reduction
        self.use_prioritized_weights = use_prioritized_weights
        self.deactivate_vmap = deactivate_vmap
        self.num_qvalue_nets = num_qvalue_nets
        self.loss_function = loss_function
        self.expectile = expectile
        self.num_value_samples = num_value_samples
        self.num_backup_samples = num_backup_samples
        self.policy_num_steps = policy_num_steps
        self.has_critic = qvalue_network is not None
        self.has_value_network = value_network is not None

        self.convert_to_functional(actor_network, "actor_network", create_target_params=delay_actor)
        shared = list(actor_network.parameters()) if separate_losses else None
        if qvalue_network is not None:
            self.convert_to_functional(
                qvalue_network,
                "qvalue_network",
                num_qvalue_nets,
                create_target_params=delay_qvalue,
                compare_against=shared,
            )
            self._make_vmap()
        if value_network is not None:
            # As in IQL the value network has no delayed copy: it regresses on the delayed Q.
            self.convert_to_functional(value_network, "value_network", compare_against=shared)
        self._in_keys: list[NestedKey] = []
        self.set_keys(action=actor_network.action_key)
        if self.has_critic:
            # Made at once, so that the state dict does not depend on whether forward ran.
            self.make_value_estimator()

    def target_actor(self) -> GTPActor:
        """Returns an actor with the delayed (EMA) parameters, which is what one evaluates.

        Its parameters share their memory with the loss, so that it follows every step of the
        target updater; they need no gradient. Its number of jumps is its own. Ask again after
        the loss was moved to another device or dtype.
        """
        actor = self.get_stateful_net("actor_network")
        share_parameters(actor, self.target_actor_network_params)
        return actor

    def candidate_actor(self, num_candidates: int = 50, temperature: float = 1.0) -> CandidateActor:
        """Returns :meth:`target_actor` choosing among candidates by the delayed Q-networks.

        Args:
            num_candidates (int): candidates for each observation. Defaults to ``50``.
            temperature (float): temperature of the softmax over their Q-values; 0 keeps the
                best. Defaults to ``1.0``.

        Returns:
            CandidateActor: a policy that shares its tensors with the loss.

        Raises:
            ValueError: for a loss without a critic.
        """
        if not self.has_critic:
            raise ValueError("This loss has no qvalue_network to choose candidates by.")
        networks = []
        for params in self.target_qvalue_network_params.unbind(0):
            networks.append(deepcopy(self.qvalue_network))
            share_parameters(networks[-1], params)
        return CandidateActor(
            self.target_actor(),
            networks,
            num_candidates=num_candidates,
            temperature=temperature,
            state_action_value_key=self.tensor_keys.state_action_value,
            qvalue_action_key=self.tensor_keys.action,
        )

    def _forward_value_estimator_keys(self, **kwargs: NestedKey) -> None:
        if self._value_estimator is not None:
            self._value_estimator.set_keys(**self._value_estimator_keys())
        self._set_in_keys()

    def _value_estimator_keys(self) -> dict[str, NestedKey]:
        # The next value is written next to the Q-values before the estimator reads it.
        return {
            "value": self.tensor_keys.state_action_value,
            "reward": self.tensor_keys.reward,
            "done": self.tensor_keys.done,
            "terminated": self.tensor_keys.terminated,
        }

    def make_value_estimator(
        self,
        value_type: ValueEstimators | ValueEstimatorBase | type | str | None = None,
        **hyperparams: Any,
    ) -> ClippedDoubleQLoss:
        """Chooses the value estimator and its hyper-parameters, such as ``gamma``.

        Args:
            value_type (ValueEstimators, optional): TD(0), TD(1) or TD(lambda), a
                ``ValueEstimatorBase`` or a class of one. Defaults to TD(0).
            **hyperparams: for example ``gamma=0.99``.

        Returns:
            ClippedDoubleQLoss: the loss itself.

        Raises:
            ValueError: for a loss without a critic.
            NotImplementedError: for other estimators.
        """
        if not self.has_critic:
            raise ValueError(
                "This loss has no qvalue_network, so there is no value to estimate: behaviour "
                "cloning uses neither rewards nor a discount."
            )
        if value_type is None:
            value_type = self.default_value_estimator
        if isinstance(value_type, ValueEstimatorBase) or (
            isinstance(value_type, type) and issubclass(value_type, ValueEstimatorBase)
        ):
            LossModule.make_value_estimator(self, value_type, **hyperparams)
            self._value_estimator.set_keys(**self._value_estimator_keys())
            return self
        hyperparams.setdefault("device", self._default_device)
        dispatch_value_estimator(
            self,
            value_type,
            supported=self.SUPPORTED_VALUE_ESTIMATORS,
            tensor_keys=self._value_estimator_keys(),
            value_network=None,
            **hyperparams,
        )
        return self

    def _make_vmap(self) -> None:
        if not self.has_critic:
            return
        self._vmap_qvalue_network = _vmap_func(
            self.qvalue_network,
            (None, 0),
            randomness=self.vmap_randomness,
            pseudo_vmap=self.deactivate_vmap,
        )

    def _data_qvalues(self, tensordict: TensorDictBase, params: TensorDictParams) -> Tensor:
        """Evaluates all Q-networks at the actions in the data, shape [N, ...]."""
        leading = self._action(tensordict).shape[:-1]
        return self._qvalues(self._inputs(tensordict, self.qvalue_network, leading), params)

    def _qvalues(self, tensordict: TensorDictBase, params: TensorDictParams) -> Tensor:
        """Evaluates all Q-networks, shape [N, ...]."""
        values = self._vmap_qvalue_network(tensordict, params)
        qvalues = values.get(self.tensor_keys.state_action_value, default=None)
        if qvalues is None:
            raise KeyError(
                f"qvalue_network writes {self.qvalue_network.out_keys}, but the loss looks for "
                f"{self.tensor_keys.state_action_value!r}: set_keys(state_action_value=...) must "
                "name what the network writes."
            )
        return qvalues.squeeze(-1)

    def _policy_qvalue(
        self, tensordict: TensorDictBase, num_samples: int, params: TensorDictParams
    ) -> Tensor:
        """Evaluates min_j Q_j at EMA-policy samples for each observation, shape [M, ...]."""
        condition = self.actor_network.condition(tensordict)
        condition = condition.expand(num_samples, *condition.shape)
        with self.target_actor_network_params.to_module(
            self.actor_network, preserve_module_state=False
        ):
            action = self.actor_network.sample(condition, num_steps=self.policy_num_steps)
        leading = condition.shape[1:-1]
        inputs = self._inputs(tensordict, self.qvalue_network, leading, without_action=True)
        inputs = inputs.expand(num_samples, *leading).clone(False)
        inputs.set(self.tensor_keys.action, action)
        return self._qvalues(inputs, params).min(0).values

    def _state_value(self, tensordict: TensorDictBase) -> Tensor:
        with self.value_network_params.to_module(self.value_network, preserve_module_state=False):
            leading = tensordict.get(self.actor_network.in_keys[0]).shape[:-1]
            output = self.value_network(self._inputs(tensordict, self.value_network, leading))
        return output.get(self.tensor_keys.value).squeeze(-1)

    @torch.no_grad()
    def _next_value(self, tensordict: TensorDictBase) -> Tensor:
        next_tensordict = tensordict.get("next")
        if self.has_value_network:
            value = self._state_value(next_tensordict)
        else:
            samples = self._policy_qvalue(
                next_tensordict, self.num_backup_samples, self.target_qvalue_network_params
            )
            value = samples.max(0).values
        # Nothing is read past a true end, where the next observation may be a placeholder.
        terminated = next_tensordict.get(self.tensor_keys.terminated)
        return torch.where(terminated.bool(), 0.0, value.unsqueeze(-1))

    def qvalue_loss(self, tensordict: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the TD loss of all Q-networks (paper, eq. 11), summed over them.

        The next value is ``min_j Q_j(o', a')`` of delayed networks at a sample ``a'`` of the
        delayed policy, the maximum over ``num_backup_samples`` of them, or ``V(o')`` where there
        is a value network.

        Args:
            tensordict (TensorDictBase): a batch of transitions; not modified.

        Returns:
            tuple of Tensor and dict: the loss, and ``td_error`` (the absolute error, the largest
            over the networks) and ``qvalue`` (the smallest over the networks), per sample and
            detached.
        """
        tensordict = self._checked(tensordict, self.in_keys)
        leading = self._action(tensordict).shape[:-1]
        transition, following = tensordict.clone(False), tensordict.get("next").clone(False)
        # Without tensordicts in the call, the batch size of either is a guess.
        transition.batch_size = following.batch_size = leading
        following.set(self.tensor_keys.state_action_value, self._next_value(tensordict))
        transition.set("next", following)
        target = self.value_estimator.value_estimate(transition).squeeze(-1)
        qvalues = self._data_qvalues(tensordict, self.qvalue_network_params)
        target = target.expand_as(qvalues)
        error = distance_loss(qvalues, target, loss_function=self.loss_function).sum(0)
        loss = self._reduce_loss(
            error, tensordict, weights=self._maybe_get_priority_weight(tensordict)
        )
        metadata = {
            "td_error": (qvalues - target).detach().abs().max(0).values,
            "qvalue": qvalues.detach().min(0).values,
        }
        self._clear_param_weakrefs(tensordict, transition)
        return loss, metadata

    def value_loss(self, tensordict: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the expectile regression of V on the delayed Q (arXiv 2110.06169, eq. 5).

        Args:
            tensordict (TensorDictBase): a batch of transitions; not modified.

        Returns:
            tuple of Tensor and dict: the loss, and the :meth:`advantage` that it computes on the
            way, per sample and detached.
        """
        tensordict = self._checked(tensordict, self._critic_keys)
        with torch.no_grad():
            qvalue = self._data_qvalues(tensordict, self.target_qvalue_network_params)
            qvalue = qvalue.min(0).values
        difference = qvalue - self._state_value(tensordict)
        weight = torch.where(difference > 0, self.expectile, 1 - self.expectile)
        loss = self._reduce_loss(
            weight * difference.square(),
            tensordict,
            weights=self._maybe_get_priority_weight(tensordict),
        )
        self._clear_param_weakrefs(tensordict)
        return loss, {"advantage": difference.detach()}

    @torch.no_grad()
    def advantage(self, tensordict: TensorDictBase) -> Tensor:
        """Computes the advantage ``A = min_j Q_j(o, a) - V(o)`` of each sample, without gradient.

        V is the mean of ``min_j Q_j`` over ``num_value_samples`` samples of the delayed policy,
        under the current Q-networks; with a value network, V is its output and Q the delayed one
        that it was regressed on.

        Args:
            tensordict (TensorDictBase): a batch with observations and actions; not modified.

        Returns:
            Tensor: advantages of the shape of the batch.
        """
        tensordict = self._checked(tensordict, self._critic_keys)
        if self.has_value_network:
            params = self.target_qvalue_network_params
            value = self._state_value(tensordict)
        else:
            params = self.qvalue_network_params
            value = self._policy_qvalue(tensordict, self.num_value_samples, params).mean(0)
        return self._data_qvalues(tensordict, params).min(0).values - value
