"""What losses of a generative policy share: keys, checks of the input, masks, random draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDict, TensorDictBase, TensorDictParams
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.objectives.common import LossModule

from torchrl_gtp.flow_map.objectives import Draw
from torchrl_gtp.modules import GTPActor
from torchrl_gtp.modules.sharing import share_parameters
from torchrl_gtp.objectives.shared_layers import SharedLayersLoss

__all__ = ["PolicyLoss"]


class PolicyLoss(SharedLayersLoss):
    """Base of losses of a generative policy, with or without critics.

    It knows which entries the networks read, checks them, blanks padding and casts them to the
    dtype of the parameters, and it makes the random numbers of the losses, or takes them from the
    input. Subclasses make the networks functional, list their draws in :meth:`_draws` and compute
    the losses.
    """

    @dataclass
    class _AcceptedKeys:
        """Tensordict keys that may be set with ``.set_keys(key_name=key_value)``.

        Attributes:
            action (NestedKey): the action in the data. Defaults to ``"action"``.
            policy_action (NestedKey, optional): the action that the policy's terms are fitted to,
                where it is not the one that critics and advantages are about: improved actions,
                as of :class:`~torchrl_gtp.ActionGradient`. Defaults to ``None``: ``action``.
            state_action_value (NestedKey): what the Q-network writes. Defaults to
                ``"state_action_value"``.
            value (NestedKey): what the value network writes. Defaults to ``"state_value"``.
            reward (NestedKey): the reward, under ``"next"``. Defaults to ``"reward"``.
            done (NestedKey): the end of a trajectory, under ``"next"``. Defaults to ``"done"``.
            terminated (NestedKey): a true end, beyond which nothing is earned, under ``"next"``.
                Defaults to ``"terminated"``.
            priority (NestedKey): where the TD error of each sample is written in the input.
                Defaults to ``"td_error"``.
            weight (NestedKey): where the advantage weight of each sample is written in the input.
                Defaults to ``"advantage_weight"``.
            priority_weight (NestedKey): importance weights of prioritised replay. Defaults to
                ``"priority_weight"``.
            sampling_weight (NestedKey): optional entry with the weights ``1 / (N p_i)`` of a
                sampler that draws sample i of N with probability ``p_i``. They multiply all
                errors, so that the losses estimate those of uniform draws without bias; in
                contrast to ``priority_weight`` they are not normalised. Defaults to
                ``"sampling_weight"``.
            noise (NestedKey): optional entry with the random numbers of :meth:`draw_noise`, used
                instead of fresh ones. Defaults to ``"loss_noise"``.
            pad_mask (NestedKey, optional): entry [..., H] that is true at the padded actions of a
                chunk, as TorchRL's ``ActionChunkTransform`` writes it under ``"action_is_pad"``.
                Defaults to ``None``: chunks are not padded.
        """

        action: NestedKey = "action"
        policy_action: NestedKey | None = None
        state_action_value: NestedKey = "state_action_value"
        value: NestedKey = "state_value"
        reward: NestedKey = "reward"
        done: NestedKey = "done"
        terminated: NestedKey = "terminated"
        priority: NestedKey = "td_error"
        weight: NestedKey = "advantage_weight"
        priority_weight: NestedKey = "priority_weight"
        sampling_weight: NestedKey = "sampling_weight"
        noise: NestedKey = "loss_noise"
        pad_mask: NestedKey | None = None

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys
    actor_network: GTPActor
    actor_network_params: TensorDictParams
    target_actor_network_params: TensorDictParams
    _in_keys: list[NestedKey]

    def _set_in_keys(self) -> None:
        self._in_keys = self._policy_keys

    @property
    def _policy_keys(self) -> list[NestedKey]:
        """The entries that the policy's losses read."""
        optional = (self.tensor_keys.policy_action, self.tensor_keys.pad_mask)
        keys = [*self.actor_network.in_keys, self.tensor_keys.action]
        keys += [key for key in optional if key is not None]
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

    def _networks(self) -> dict[str, TensorDictModuleBase]:
        """The networks without their parameters, which are no submodules of a ``LossModule``."""
        return {
            name: network
            for name, network in self.__dict__.items()
            if isinstance(network, TensorDictModuleBase)
        }

    def train(self, mode: bool = True) -> PolicyLoss:
        """Sets the mode of the loss and of its networks: dropout follows ``loss.eval()``."""
        for network in self._networks().values():
            network.train(mode)
        return super().train(mode)

    def reset_parameters_recursive(self) -> None:
        """Draws all parameters anew, each member of an ensemble as a network of its own.

        Targets start as copies again, as after construction. Buffers that belong to the data
        (action bounds, ``sigma_data``) stay as they are.
        """
        for child in self.children():
            if isinstance(child, LossModule):
                child.reset_parameters_recursive()
        for name, network in self._networks().items():
            params = self._modules[f"{name}_params"].data
            # Layers take their scale from the shape of a weight, so they must not see the stack.
            for member in params.unbind(0) if params.ndim else [params]:
                with member.to_module(network, preserve_module_state=False):
                    network.reset_parameters_recursive()
        # After all networks, because they may share layers, and a critic has this policy too.
        for loss in self.modules():
            if isinstance(loss, LossModule):
                for name, target in loss.named_children():
                    if name.startswith("target_"):
                        target.data.copy_(loss._modules[name.removeprefix("target_")].data)

    def target_actor(self) -> GTPActor:
        """Returns an actor with the delayed (EMA) parameters, which is what one evaluates.

        Its parameters share their memory with the loss, so that it follows every step of the
        target updater; they need no gradient. Its number of jumps is its own, and it is in
        evaluation mode, without dropout. Ask again after the loss was moved to another device or
        dtype.
        """
        actor = self.get_stateful_net("actor_network")
        share_parameters(actor, self.target_actor_network_params)
        return actor.eval()

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
        event = actor.event_shape
        if action.shape[-len(event) :] != event or not action.is_floating_point():
            raise ValueError(
                f"The entry {self.tensor_keys.action!r} has the shape {tuple(action.shape)} and "
                f"the type {action.dtype}, but the actor generates actions {tuple(event)} of a "
                "floating-point type: the last dimensions must agree."
            )
        if action.numel() == 0:
            raise ValueError(f"The batch is empty: the actions have shape {tuple(action.shape)}.")
        leading = self._leading(tensordict)
        for key in keys:
            shape = tensordict.get(key).shape
            if shape[: len(leading)] != leading:
                raise ValueError(
                    f"The entry {key!r} has the shape {tuple(shape)}, which does not begin with "
                    f"the batch size {tuple(leading)} of the actions."
                )
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
        leading = self._leading(tensordict)
        mask = self._validity_mask(tensordict, leading)
        if mask is None:
            return tensordict
        tensordict = tensordict.copy()
        weights = (self.tensor_keys.priority_weight, self.tensor_keys.sampling_weight)
        for key in (*keys, *weights):
            entry = tensordict.get(key, default=None)
            if entry is not None and entry.is_floating_point():
                rows = mask.reshape(*leading, *(1,) * (entry.ndim - mask.ndim))
                tensordict.set(key, torch.where(rows, entry, 0.0))
        return tensordict

    def draw_noise(self, tensordict: TensorDictBase) -> TensorDict:
        """Draws all random numbers that the loss needs for a batch.

        Put into the batch under ``tensor_keys.noise``, they are used instead of fresh draws: then
        eager, compiled and captured code give the same numbers, and so do the parts of a batch
        that is split over processes, where their size is a multiple of ``semigroup_every``.

        Args:
            tensordict (TensorDictBase): a batch with actions; not modified.

        Returns:
            TensorDict: the draws, with the batch size of the actions.
        """
        leading = self._leading(tensordict)
        device = tensordict.get(self.tensor_keys.action).device
        draws = {name: self._fresh(draw, leading, device) for name, draw in self._draws().items()}
        return TensorDict(draws, batch_size=leading)

    def _draws(self) -> dict[str, Draw]:
        """The random numbers of one call, by name."""
        return {}

    def _draw(self, tensordict: TensorDictBase, name: str) -> Tensor:
        """Returns the draw of that name: from the input where it has one, else a fresh one."""
        leading, draw = self._leading(tensordict), self._draws()[name]
        given = tensordict.get(self.tensor_keys.noise, default=None)
        if given is None:
            device = tensordict.get(self.tensor_keys.action).device
            return self._fresh(draw, leading, device)
        values = given.get(name, default=None)
        if values is None or values.shape != (*leading, *draw.shape):
            raise ValueError(
                f"The entry {self.tensor_keys.noise!r} must hold {name!r} of shape "
                f"{(*leading, *draw.shape)}, got "
                f"{None if values is None else tuple(values.shape)}. Make it with draw_noise."
            )
        return values.to(self._draw_dtype(draw))

    def _fresh(self, draw: Draw, leading: torch.Size, device: torch.device) -> Tensor:
        sampler = torch.randn if draw.distribution == "normal" else torch.rand
        return sampler((*leading, *draw.shape), dtype=self._draw_dtype(draw), device=device)

    def _draw_dtype(self, draw: Draw) -> torch.dtype:
        # Half precision has a few hundred uniform numbers: too few for times, and for ranks.
        is_uniform = draw.distribution == "uniform"
        return torch.promote_types(self._dtype, torch.float32) if is_uniform else self._dtype

    def _leading(self, tensordict: TensorDictBase) -> torch.Size:
        """The batch size, read from the actions: that of a tensordict may be a guess."""
        shape = tensordict.get(self.tensor_keys.action).shape
        return shape[: len(shape) - len(self.actor_network.event_shape)]

    def _action(self, tensordict: TensorDictBase) -> Tensor:
        """The actions that the policy is fitted to, as vectors, of chunks concatenated."""
        key = self.tensor_keys.policy_action
        action = tensordict.get(self.tensor_keys.action if key is None else key)
        expected = tensordict.get(self.tensor_keys.action).shape
        if action.shape != expected:
            raise ValueError(
                f"The entry {key!r} (policy_action) has the shape {tuple(action.shape)}, but the "
                f"actions {self.tensor_keys.action!r} have {tuple(expected)}: they must agree."
            )
        action = action.to(self._dtype)
        action = action.flatten(-len(self.actor_network.event_shape))
        unpadded = self._unpadded(tensordict)
        # Padding may be NaN, which would spread through the network to the actions that count.
        return action if unpadded is None else torch.where(unpadded, action, 0.0)

    def _unpadded(self, tensordict: TensorDictBase) -> Tensor | None:
        """True where an entry of :meth:`_action` is not padding; None if nothing can be."""
        if self.tensor_keys.pad_mask is None:
            return None
        pad, event = tensordict.get(self.tensor_keys.pad_mask), self.actor_network.event_shape
        expected = (*self._leading(tensordict), event[0])
        if len(event) != 2 or pad.shape != expected or pad.dtype != torch.bool:
            raise ValueError(
                f"pad_mask {self.tensor_keys.pad_mask!r} must be boolean, true at padding and of "
                f"the shape {expected} of chunks without their last dimension; got {pad.dtype} "
                f"of shape {tuple(pad.shape)} for actions {tuple(event)}."
            )
        return ~pad.repeat_interleave(event[1], -1)

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

    def _sampling_weight(self, tensordict: TensorDictBase) -> Tensor | None:
        """Reads the weights of a sampler that does not draw uniformly; None without one."""
        weight = tensordict.get(self.tensor_keys.sampling_weight, default=None)
        leading = self._leading(tensordict)
        if weight is not None and weight.shape != leading:
            raise ValueError(
                f"The entry {self.tensor_keys.sampling_weight!r} must have the shape "
                f"{tuple(leading)} of the batch, got {tuple(weight.shape)}."
            )
        return None if weight is None else weight.to(self._dtype)

    def _reduce(self, error: Tensor, tensordict: TensorDictBase) -> Tensor:
        """Reduces errors of the shape of the batch to a loss, under the weights of the input."""
        weight = self._sampling_weight(tensordict)
        return self._reduce_loss(
            error if weight is None else weight * error,
            tensordict,
            weights=self._maybe_get_priority_weight(tensordict),
        )

    def _maybe_get_priority_weight(self, tensordict: TensorDictBase) -> Tensor | None:
        # TorchRL's own looks among the keys of the first level only.
        if not self.use_prioritized_weights:
            return None
        weight = tensordict.get(self.tensor_keys.priority_weight, default=None)
        return None if weight is None else weight.to(self._dtype)

    def _clear_param_weakrefs(self, *tensordicts: TensorDictBase) -> None:
        names = [f"{name}_params" for name in ("actor_network", "qvalue_network", "value_network")]
        self._clear_weakrefs(*tensordicts, *names, *(f"target_{name}" for name in names))
