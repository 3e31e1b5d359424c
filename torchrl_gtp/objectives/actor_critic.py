"""The networks of a generative policy and its critics, and what losses do with them."""

from __future__ import annotations

from typing import Any, Literal

from tensordict import TensorDict, TensorDictBase, TensorDictParams
from tensordict.nn import TensorDictModule
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.objectives.common import LossModule
from torchrl.objectives.utils import ValueEstimators, _vmap_func, dispatch_value_estimator
from torchrl.objectives.value import ValueEstimatorBase

from torchrl_gtp.flow_map.evaluation_mode import evaluation_mode
from torchrl_gtp.modules import ActionGradient, CandidateActor, GTPActor
from torchrl_gtp.modules.candidates import Selection
from torchrl_gtp.objectives.base import PolicyLoss
from torchrl_gtp.objectives.derived import make_action_gradient, make_candidate_actor

__all__ = ["ActorCriticLoss"]


class ActorCriticLoss(PolicyLoss):
    """Base of losses with a generative policy and Q-networks, perhaps with a value network.

    It makes the networks functional, evaluates the Q-networks together, samples the delayed
    policy and holds the value estimator. The Q-networks may be left out; then only the policy's
    losses are there. The arguments are those of
    :class:`~torchrl_gtp.objectives.ClippedDoubleQLoss`.
    """

    qvalue_network: TensorDictModule
    qvalue_network_params: TensorDictParams
    target_qvalue_network_params: TensorDictParams
    value_network: TensorDictModule
    value_network_params: TensorDictParams
    target_value_network_params: TensorDictParams

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
        check_counts(num_qvalue_nets=num_qvalue_nets, policy_num_steps=policy_num_steps)
        if reduction not in (None, "none", "mean", "sum"):
            raise ValueError(f"reduction must be 'none', 'mean', 'sum' or None, got {reduction!r}.")
        self.reduction = "mean" if reduction is None else reduction
        self.use_prioritized_weights = use_prioritized_weights
        self.deactivate_vmap = deactivate_vmap
        self.num_qvalue_nets = num_qvalue_nets
        self.policy_num_steps = policy_num_steps
        self.has_qvalue_network = qvalue_network is not None
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
        if self.has_qvalue_network:
            # Made at once, so that the state dict does not depend on whether forward ran.
            self.make_value_estimator()

    def _set_in_keys(self) -> None:
        if not self.has_qvalue_network:
            super()._set_in_keys()
            return
        entries = (self.tensor_keys.reward, self.tensor_keys.done, self.tensor_keys.terminated)
        keys = self.tensor_keys
        unread = (keys.action, keys.policy_action, keys.pad_mask)
        observations = [key for key in self._critic_keys if key not in unread]
        following = [_next(key) for key in (*observations, *entries)]
        self._in_keys = [*self._critic_keys, *following]

    @property
    def _critic_keys(self) -> list[NestedKey]:
        """The entries of the present step that policy and critics read."""
        keys = [*self._policy_keys, *self.qvalue_network.in_keys]
        if self.has_value_network:
            keys += self.value_network.in_keys
        return list(dict.fromkeys(keys))

    def candidate_actor(
        self,
        num_candidates: int = 50,
        temperature: float = 1.0,
        selection: Selection = "softmax",
    ) -> CandidateActor:
        """Returns :meth:`target_actor` choosing among candidates by the delayed Q-networks.

        Args:
            num_candidates (int): candidates for each observation. Defaults to ``50``.
            temperature (float): temperature of the softmax over their Q-values; 0 keeps the
                best. Defaults to ``1.0``.
            selection ("softmax", "greedy" or "expectile"): how one is chosen; the last needs the
                value network of the loss and takes its expectile. Defaults to ``"softmax"``.

        Returns:
            CandidateActor: a policy that shares its tensors with the loss.

        Raises:
            ValueError: for a loss without a critic, or without what the selection needs.
        """
        return make_candidate_actor(self, num_candidates, temperature, selection)

    def action_gradient(self, **options: Any) -> ActionGradient:
        """Returns what moves actions uphill in Q, on the current Q-networks.

        Args:
            **options: arguments of :class:`~torchrl_gtp.ActionGradient`, but for its networks, its
                bounds and what the networks read and write.

        Returns:
            ActionGradient: a module that shares its tensors with the loss. It follows the training;
            ask again after the loss was moved to another device or dtype.

        Raises:
            ValueError: for a loss without a critic, or as the class.
        """
        return make_action_gradient(self, **options)

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
    ) -> ActorCriticLoss:
        """Chooses the value estimator and its hyper-parameters, such as ``gamma``.

        Args:
            value_type (ValueEstimators, optional): TD(0), TD(1) or TD(lambda), a
                ``ValueEstimatorBase`` or a class of one. Defaults to TD(0).
            **hyperparams: for example ``gamma=0.99``.

        Returns:
            ActorCriticLoss: the loss itself.

        Raises:
            ValueError: for a loss without a critic.
            NotImplementedError: for other estimators.
        """
        if not self.has_qvalue_network:
            raise ValueError(
                "This loss has no qvalue_network, so there is no value to estimate: behaviour "
                "cloning uses neither rewards nor a discount, and a critic of its own class has "
                "an estimator of its own."
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

    def __getstate__(self) -> dict[str, Any]:
        # The vectorised call is a closure: pickle refuses it, and a copy would share it.
        state = super().__getstate__()
        state.pop("_vmap_qvalue_network", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._make_vmap()

    def _make_vmap(self) -> None:
        if not self.has_qvalue_network:
            return
        self._vmap_qvalue_network = _vmap_func(
            self.qvalue_network,
            (None, 0),
            randomness=self.vmap_randomness,
            pseudo_vmap=self.deactivate_vmap,
        )

    def _data_qvalues(self, tensordict: TensorDictBase, params: TensorDictParams) -> Tensor:
        """Evaluates all Q-networks at the actions in the data, shape [N, ...]."""
        inputs = self._inputs(tensordict, self.qvalue_network, self._leading(tensordict))
        return self._qvalues(inputs, params)

    def _qvalues(self, tensordict: TensorDictBase, params: TensorDictParams) -> Tensor:
        """Evaluates all Q-networks, shape [N, ...]."""
        return self._qvalue_outputs(tensordict, params).squeeze(-1)

    def _qvalue_outputs(self, tensordict: TensorDictBase, params: TensorDictParams) -> Tensor:
        """Evaluates all Q-networks, with the last dimension of their output."""
        values = self._vmap_qvalue_network(tensordict, params)
        outputs = values.get(self.tensor_keys.state_action_value, default=None)
        if outputs is None:
            raise KeyError(
                f"qvalue_network writes {self.qvalue_network.out_keys}, but the loss looks for "
                f"{self.tensor_keys.state_action_value!r}: set_keys(state_action_value=...) must "
                "name what the network writes."
            )
        return outputs

    def _policy_actions(
        self,
        tensordict: TensorDictBase,
        noise: Tensor,
        smoothing: Tensor | None = None,
        *,
        params: TensorDictParams | None = None,
    ) -> Tensor:
        """Samples the policy M times for each observation.

        Args:
            tensordict: holds the observations.
            noise: the noise of the samples [..., M, flat_dim].
            smoothing: noise of that shape, added to the actions.
            params: the policy's parameters; ``None`` for the delayed ones.

        Returns:
            Actions [M, ..., *event_shape].
        """
        actor, noise = self.actor_network, noise.movedim(-2, 0)
        condition = actor.condition(tensordict)
        condition = condition.expand(noise.shape[0], *condition.shape)
        noise = noise.unflatten(-1, actor.event_shape)
        params = self.target_actor_network_params if params is None else params
        # As the policy acts: without dropout, which only the terms that it is trained by have.
        with evaluation_mode(actor), params.to_module(actor, preserve_module_state=False):
            action = actor.sample(condition, noise, num_steps=self.policy_num_steps)
            if smoothing is not None:
                smoothing = smoothing.movedim(-2, 0).unflatten(-1, actor.event_shape)
                action = (action + smoothing).clamp(actor.low, actor.high)
        return action

    def _with_actions(self, tensordict: TensorDictBase, action: Tensor) -> TensorDict:
        """Puts actions [M, ..., A] beside the observations that the Q-networks read."""
        leading = action.shape[1 : action.ndim - len(self.actor_network.event_shape)]
        inputs = self._inputs(tensordict, self.qvalue_network, leading, without_action=True)
        inputs = inputs.expand(action.shape[0], *leading).clone(False)
        return inputs.set(self.tensor_keys.action, action)

    def _state_value(self, tensordict: TensorDictBase) -> Tensor:
        with self.value_network_params.to_module(self.value_network, preserve_module_state=False):
            leading = tensordict.get(self.actor_network.in_keys[0]).shape[:-1]
            output = self.value_network(self._inputs(tensordict, self.value_network, leading))
        return output.get(self.tensor_keys.value).squeeze(-1)

    @property
    def _required_keys(self) -> list[NestedKey]:
        self._require_qvalue_network()
        return self.in_keys

    def _require_qvalue_network(self) -> None:
        if not self.has_qvalue_network:
            raise ValueError(
                "This loss has no qvalue_network, so it has neither a critic's loss nor an "
                "advantage of its own. Give it a qvalue_network, or ask its critic."
            )


def check_counts(**counts: int | None) -> None:
    """Raises a ``ValueError`` for a number below 1; ``None`` passes."""
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}.")


def _next(key: NestedKey) -> NestedKey:
    return ("next", *key) if isinstance(key, tuple) else ("next", key)
