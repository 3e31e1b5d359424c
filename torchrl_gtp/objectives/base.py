"""What losses of a generative policy share: keys, checks of the input, masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDict, TensorDictBase, TensorDictParams
from tensordict.nn import TensorDictModule
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.objectives.common import LossModule

from torchrl_gtp.modules import GTPActor

__all__ = ["PolicyLoss"]


class PolicyLoss(LossModule):
    """Base of losses of a generative policy, with or without critics.

    It knows which entries the networks read, checks them, blanks padding and casts them to the
    dtype of the parameters. Subclasses make the networks functional, set ``has_critic`` and
    ``has_value_network``, and compute the losses.
    """

    @dataclass
    class _AcceptedKeys:
        """Tensordict keys that may be set with ``.set_keys(key_name=key_value)``.

        Attributes:
            action (NestedKey): the action in the data. Defaults to ``"action"``.
            state_action_value (NestedKey): what the Q-network writes. Defaults to
                ``"state_action_value"``.
            value (NestedKey): what the value network writes. Defaults to ``"state_value"``.
            reward (NestedKey): the reward, under ``"next"``. Defaults to ``"reward"``.
            done (NestedKey): the end of a trajectory, under ``"next"``. Defaults to ``"done"``.
            terminated (NestedKey): a true end, beyond which nothing is earned, under ``"next"``.
                Defaults to ``"terminated"``.
            priority (NestedKey): where the TD error of each sample is written in the input.
                Defaults to ``"td_error"``.
            priority_weight (NestedKey): importance weights of prioritised replay. Defaults to
                ``"priority_weight"``.
        """

        action: NestedKey = "action"
        state_action_value: NestedKey = "state_action_value"
        value: NestedKey = "state_value"
        reward: NestedKey = "reward"
        done: NestedKey = "done"
        terminated: NestedKey = "terminated"
        priority: NestedKey = "td_error"
        priority_weight: NestedKey = "priority_weight"

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys
    actor_network: GTPActor
    actor_network_params: TensorDictParams
    target_actor_network_params: TensorDictParams
    qvalue_network: TensorDictModule
    qvalue_network_params: TensorDictParams
    target_qvalue_network_params: TensorDictParams
    value_network: TensorDictModule
    value_network_params: TensorDictParams
    target_value_network_params: TensorDictParams

    has_critic: bool
    has_value_network: bool
    _in_keys: list[NestedKey]

    def _set_in_keys(self) -> None:
        if not self.has_critic:
            self._in_keys = self._policy_keys
            return
        entries = (self.tensor_keys.reward, self.tensor_keys.done, self.tensor_keys.terminated)
        observations = [key for key in self._critic_keys if key != self.tensor_keys.action]
        following = [_next(key) for key in (*observations, *entries)]
        self._in_keys = [*self._critic_keys, *following]

    @property
    def _policy_keys(self) -> list[NestedKey]:
        """The entries of the present step that the policy's losses read."""
        return list(dict.fromkeys([*self.actor_network.in_keys, self.tensor_keys.action]))

    @property
    def _critic_keys(self) -> list[NestedKey]:
        """The entries of the present step that policy and critics read."""
        keys = [*self._policy_keys, *self.qvalue_network.in_keys]
        if self.has_value_network:
            keys += self.value_network.in_keys
        return list(dict.fromkeys(keys))

    @property
    def in_keys(self) -> list[NestedKey]:
        """The entries that the loss reads."""
        if not self._in_keys:
            self._set_in_keys()
        return self._in_keys

    @in_keys.setter
    def in_keys(self, values: list[NestedKey]) -> None:
        self._in_keys = values

    def _checked(self, tensordict: TensorDictBase, keys: list[NestedKey]) -> TensorDictBase:
        """Checks that the entries are there and fit, and blanks those that a mask excludes."""
        missing = [key for key in keys if tensordict.get(key, default=None) is None]
        if missing:
            raise KeyError(
                f"{type(self).__name__} needs the entries {missing}, which the input lacks; it "
                f"has {sorted(map(str, tensordict.keys(True, True)))}. Rename entries with "
                "set_keys; what the networks read follows from their own observation_keys and "
                "action_key."
            )

        action, actor = tensordict.get(self.tensor_keys.action), self.actor_network
        if action.shape[-1] != actor.action_dim or not action.is_floating_point():
            raise ValueError(
                f"The entry {self.tensor_keys.action!r} has {action.shape[-1]} dimensions of "
                f"{action.dtype}, but the actor generates actions with {actor.action_dim} of a "
                "floating-point type."
            )
        if action.numel() == 0:
            raise ValueError(f"The batch is empty: the actions have shape {tuple(action.shape)}.")
        expected = getattr(actor.flow_map.backbone, "condition_dim", None)
        condition_dim = sum(tensordict.get(key).shape[-1] for key in actor.in_keys)
        if expected is not None and condition_dim != expected:
            raise ValueError(
                f"The observation entries {actor.in_keys} have {condition_dim} dimensions, but the "
                f"actor was built for {expected}."
            )
        return self._blank_masked(tensordict, keys)

    def _blank_masked(self, tensordict: TensorDictBase, keys: list[NestedKey]) -> TensorDictBase:
        """Puts zeros where a mask says so: padding may be NaN, which poisons every gradient."""
        leading = tensordict.get(self.tensor_keys.action).shape[:-1]
        mask = self._validity_mask(tensordict, leading)
        if mask is None:
            return tensordict
        tensordict = tensordict.copy()
        for key in (*keys, self.tensor_keys.priority_weight):
            entry = tensordict.get(key, default=None)
            if entry is not None and entry.is_floating_point():
                rows = mask.reshape(*leading, *(1,) * (entry.ndim - mask.ndim))
                tensordict.set(key, torch.where(rows, entry, 0.0))
        return tensordict

    def _action(self, tensordict: TensorDictBase) -> Tensor:
        return tensordict.get(self.tensor_keys.action).to(self._dtype)

    def _condition(self, tensordict: TensorDictBase) -> Tensor:
        return self.actor_network.condition(tensordict).to(self._dtype)

    @property
    def _dtype(self) -> torch.dtype:
        # Of the parameters: the stateless network does not follow the loss to another dtype.
        return self.actor_network_params["low"].dtype

    def _inputs(
        self,
        tensordict: TensorDictBase,
        network: TensorDictModule,
        leading: torch.Size,
        *,
        without_action: bool = False,
    ) -> TensorDict:
        """Collects what a network reads, with the batch size of the actions."""
        inputs = TensorDict(batch_size=leading)
        for key in network.in_keys:
            if not (without_action and key == self.tensor_keys.action):
                entry = tensordict.get(key)
                if entry.is_floating_point():
                    entry = entry.to(self._dtype)
                inputs.set(key, entry)
        return inputs

    def _validity_mask(self, tensordict: TensorDictBase, shape: torch.Size) -> Tensor | None:
        """Combines the masks that ``_reduce_loss`` would apply; None if the input has none."""
        mask = None
        for key in self._loss_mask_keys():
            entry = tensordict.get(key, default=None)
            if entry is not None:
                entry = self._expand_loss_mask(entry, entry.new_empty(()).expand(shape))
                if entry.dtype != torch.bool:
                    raise ValueError(f"The mask {key!r} must be boolean, got {entry.dtype}.")
                mask = entry if mask is None else mask & entry
        return mask

    def _clear_param_weakrefs(self, *tensordicts: TensorDictBase) -> None:
        names = [f"{name}_params" for name in ("actor_network", "qvalue_network", "value_network")]
        self._clear_weakrefs(*tensordicts, *names, *(f"target_{name}" for name in names))


def _next(key: NestedKey) -> NestedKey:
    return ("next", *key) if isinstance(key, tuple) else ("next", key)
