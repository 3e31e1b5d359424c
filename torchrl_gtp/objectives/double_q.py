"""Clipped double-Q learning for a policy that is sampled, not differentiated."""

from __future__ import annotations

from typing import Any, Literal

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, dispatch
from torch import Tensor
from torchrl.objectives.utils import distance_loss

from torchrl_gtp.modules import GTPActor
from torchrl_gtp.objectives.actor_critic import ActorCriticLoss, _next, check_counts
from torchrl_gtp.objectives.base import Draw

__all__ = ["ClippedDoubleQLoss"]


class ClippedDoubleQLoss(ActorCriticLoss):
    """Clipped double-Q learning for a generative policy (paper, eq. 11), and its relatives.

    The policy enters through samples only; no gradient of the critics reaches it. The class is a
    :class:`~torchrl_gtp.objectives.Critic`; :class:`~torchrl_gtp.GTPLoss` inherits from it, so
    that the usual critics need no object of their own. The options give

    * V from policy samples (the paper), or from a value network (IQL);
    * smoothing of the target policy as in TD3 (``policy_noise``);
    * an ensemble with the minimum over a random subset as in REDQ (``num_qvalue_subset``).

    Args:
        actor_network (GTPActor): the policy.
        qvalue_network (TensorDictModule or list of them): a Q-network, which is multiplied, or a
            list of ``num_qvalue_nets``.
        value_network (TensorDictModule, optional): a state-value network, trained by expectile
            regression; it gives V in the advantage and the next value, as in IQL. ``None``
            (default) takes both from policy samples.

    Keyword Args:
        num_qvalue_nets (int): the number of Q-networks. Defaults to ``2``.
        num_qvalue_subset (int, optional): the TD target takes the minimum over this many
            Q-networks, drawn anew for each sample, and the advantage the mean over all of them
            (REDQ, arXiv 2101.05982). ``None`` (default): the minimum over all in both.
        loss_function ("l2", "l1" or "smooth_l1"): distance of the TD loss. Defaults to ``"l2"``.
        expectile (float): expectile of the value network. Defaults to ``0.9``.
        num_value_samples (int): policy samples M for V(o). Defaults to ``1``.
        num_backup_samples (int): policy samples M at the next observation for the max-Q backup:
            of each Q-network the TD target takes the largest value, and of these the minimum
            (CQL, arXiv 2006.04779, and Diffusion-QL have M = 10). Defaults to ``1``.
        policy_num_steps (int, optional): the number of jumps K of these samples. Defaults to what
            ``actor_network.num_steps`` is at the time of the call.
        policy_noise (float): standard deviation of the noise added to the samples in the TD
            target (TD3, arXiv 1802.09477). Defaults to ``0.0``.
        noise_clip (float): largest absolute value of that noise. Defaults to ``0.5``.
        delay_actor (bool): whether the policy has delayed (EMA) parameters. Defaults to ``True``.
        delay_qvalue (bool): whether the Q-networks have. Defaults to ``True``.
        separate_losses (bool): whether parameters that the critics share with the actor get no
            gradient from the critics' losses. Defaults to ``False``.
        deactivate_vmap (bool): whether to loop over the Q-networks. Defaults to ``False``.
        use_prioritized_weights ("auto" or bool): whether to use importance weights of prioritised
            replay where the input has them. Defaults to ``"auto"``.
        reduction ("none", "mean" or "sum", optional): reduction of the losses over the batch.
            Defaults to ``"mean"``.

    Outputs: ``loss_qvalue``, ``loss_value`` where there is a value network, and, detached, the
    means of ``qvalue`` and ``td_error`` over the batch. The TD error of each sample is written
    into the input under ``tensor_keys.priority``.

    Raises:
        ValueError: for options outside the ranges above, or without effect beside a value
            network.

    Examples:
        >>> from tensordict import TensorDict
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import TargetUpdate, make_gtp_actor, make_qvalue
        >>> actor = make_gtp_actor(observation_dim=4, action_spec=Bounded(-1, 1, (2,)))
        >>> qvalue = make_qvalue(observation_dim=4, action_dim=2)
        >>> critic = ClippedDoubleQLoss(actor, qvalue, num_qvalue_nets=10, num_qvalue_subset=2)
        >>> updater = TargetUpdate(critic, 0.005)
        >>> following = {
        ...     "observation": torch.randn(8, 4),
        ...     "reward": torch.randn(8, 1),
        ...     "done": torch.zeros(8, 1, dtype=torch.bool),
        ...     "terminated": torch.zeros(8, 1, dtype=torch.bool),
        ... }
        >>> batch = {"observation": torch.randn(8, 4), "action": torch.zeros(8, 2)}
        >>> batch = TensorDict({**batch, "next": following}, batch_size=[8])
        >>> critic(batch)["loss_qvalue"].backward()
        >>> critic.advantage(batch).shape
        torch.Size([8])
    """

    def __init__(
        self,
        actor_network: GTPActor,
        qvalue_network: TensorDictModule | list[TensorDictModule] | None = None,
        value_network: TensorDictModule | None = None,
        *,
        num_qvalue_nets: int = 2,
        num_qvalue_subset: int | None = None,
        loss_function: Literal["l2", "l1", "smooth_l1"] = "l2",
        expectile: float = 0.9,
        num_value_samples: int = 1,
        num_backup_samples: int = 1,
        policy_noise: float = 0.0,
        noise_clip: float = 0.5,
        **network_options: Any,
    ) -> None:
        check_counts(
            num_qvalue_nets=num_qvalue_nets,
            num_qvalue_subset=num_qvalue_subset,
            num_value_samples=num_value_samples,
            num_backup_samples=num_backup_samples,
        )
        if num_qvalue_subset is not None and num_qvalue_subset > num_qvalue_nets:
            raise ValueError(
                f"num_qvalue_subset must be at most num_qvalue_nets={num_qvalue_nets}, got "
                f"{num_qvalue_subset}."
            )
        for name, number in (("policy_noise", policy_noise), ("noise_clip", noise_clip)):
            if not 0.0 <= number < float("inf"):
                raise ValueError(f"{name} must be finite and at least 0, got {number}.")
        if value_network is not None:
            # The value network replaces the policy samples that these options are about.
            for name, option, neutral in (
                ("num_value_samples", num_value_samples, 1),
                ("num_backup_samples", num_backup_samples, 1),
                ("num_qvalue_subset", num_qvalue_subset, None),
                ("policy_noise", policy_noise, 0.0),
            ):
                if option != neutral:
                    raise ValueError(
                        f"{name}={option} has no effect with a value_network, which gives V(o) "
                        f"and the next value: leave {name} at {neutral}, or the network out."
                    )
        if not 0.0 < expectile < 1.0:
            raise ValueError(f"expectile must lie strictly between 0 and 1, got {expectile}.")
        if loss_function not in ("l2", "l1", "smooth_l1"):
            raise ValueError(
                f"loss_function must be 'l2', 'l1' or 'smooth_l1', got {loss_function!r}."
            )
        super().__init__(
            actor_network,
            qvalue_network,
            value_network,
            num_qvalue_nets=num_qvalue_nets,
            **network_options,
        )
        self.num_qvalue_subset = num_qvalue_subset
        self.loss_function = loss_function
        self.expectile = expectile
        self.num_value_samples = num_value_samples
        self.num_backup_samples = num_backup_samples
        self.policy_noise = policy_noise
        self.noise_clip = noise_clip
        self.out_keys = [*self._loss_keys(), *self._diagnostic_keys()]

    def _loss_keys(self) -> list[str]:
        return ["loss_qvalue"] * self.has_qvalue_network + ["loss_value"] * self.has_value_network

    def _diagnostic_keys(self) -> list[str]:
        return ["qvalue", "td_error"] * self.has_qvalue_network

    def _draws(self) -> dict[str, Draw]:
        if not self.has_qvalue_network or self.has_value_network:
            return {}
        action = (self.actor_network.flat_dim,)
        draws = {
            "backup": Draw("normal", (self.num_backup_samples, *action)),
            "value": Draw("normal", (self.num_value_samples, *action)),
        }
        if self.policy_noise:
            draws["policy_noise"] = Draw("normal", (self.num_backup_samples, *action))
        if self.num_qvalue_subset is not None:
            draws["qvalue_subset"] = Draw("uniform", (self.num_qvalue_nets,))
        return draws

    def _ensemble_qvalue(self, qvalues: Tensor) -> Tensor:
        """Reduces the values [N, ...] of all networks to the one that the advantage uses."""
        return qvalues.min(0).values if self.num_qvalue_subset is None else qvalues.mean(0)

    def _target_qvalue(self, tensordict: TensorDictBase, qvalues: Tensor) -> Tensor:
        """Reduces the next values [N, M, ...] of all networks to those of the TD target."""
        if self.num_qvalue_subset is not None:
            # The networks with the smallest draws are a random subset of fixed size.
            order = self._draw(tensordict, "qvalue_subset").movedim(-1, 0).argsort(0)
            chosen = order[: self.num_qvalue_subset].unsqueeze(1)
            qvalues = qvalues.gather(0, chosen.expand(-1, *qvalues.shape[1:]))
        return qvalues.min(0).values

    def _next_samples(self, tensordict: TensorDictBase) -> TensorDict:
        """Samples the policy of the TD target at the next observations, batch size [M, ...]."""
        smoothing = None
        if self.policy_noise:
            smoothing = self.policy_noise * self._draw(tensordict, "policy_noise")
            smoothing = smoothing.clamp(-self.noise_clip, self.noise_clip)
        following = tensordict.get("next")
        action = self._policy_actions(following, self._draw(tensordict, "backup"), smoothing)
        return self._with_actions(following, action)

    @torch.no_grad()
    def _next_value(self, tensordict: TensorDictBase) -> Tensor:
        """Computes the next value of the TD target [..., n]; here n is 1."""
        if self.has_value_network:
            return self._state_value(tensordict.get("next")).unsqueeze(-1)
        samples = self._next_samples(tensordict)
        qvalues = self._qvalues(samples, self.target_qvalue_network_params)
        best = qvalues.amax(1, keepdim=True)
        return self._target_qvalue(tensordict, best).squeeze(0).unsqueeze(-1)

    def _td_target(self, tensordict: TensorDictBase) -> Tensor:
        """Computes the TD target [..., n] for each of the n next values of a sample."""
        leading = self._leading(tensordict)
        transition, following = tensordict.clone(False), tensordict.get("next").clone(False)
        # Without tensordicts in the call, the batch size of either is a guess.
        transition.batch_size = following.batch_size = leading
        value = self._next_value(tensordict)
        # Nothing is read past a true end, where the next observation may be a placeholder.
        terminated = following.get(self.tensor_keys.terminated)
        value = torch.where(terminated.bool(), 0.0, value)
        following.set(self.tensor_keys.state_action_value, value)
        for key in (self.tensor_keys.reward, self.tensor_keys.done, self.tensor_keys.terminated):
            entry = following.get(key)
            if entry.shape != (*leading, 1):
                raise ValueError(
                    f"The entry {_next(key)!r} must have the shape {(*leading, 1)}, one number for "
                    f"each action, got {tuple(entry.shape)}."
                )
            entry = entry.to(self._dtype) if entry.is_floating_point() else entry
            # The value estimators want one entry for each value.
            following.set(key, entry.expand_as(value))
        # What TorchRL's MultiStep writes.
        steps_key = self.value_estimator.tensor_keys.steps_to_next_obs
        steps = transition.get(steps_key, default=None)
        if steps is not None:
            steps = steps.reshape(*leading, -1)
            transition.set(steps_key, steps.expand_as(value))
        transition.set("next", following)
        target = self.value_estimator.value_estimate(transition)
        self._clear_param_weakrefs(transition)
        return target

    def qvalue_loss(self, tensordict: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the TD loss of all Q-networks (paper, eq. 11), summed over them.

        The next value is ``min_j max_a' Q_j(o', a')`` of delayed networks over
        ``num_backup_samples`` samples ``a'`` of the delayed policy, or ``V(o')`` where there is a
        value network.

        Args:
            tensordict (TensorDictBase): a batch of transitions; not modified.

        Returns:
            tuple of Tensor and dict: the loss, and ``td_error`` (the absolute error, the largest
            over the networks) and ``qvalue`` (as the advantage uses it), per sample and detached.

        Raises:
            ValueError: for a loss without Q-networks.
        """
        tensordict = self._checked(tensordict, self._required_keys)
        target = self._td_target(tensordict).squeeze(-1)
        qvalues = self._data_qvalues(tensordict, self.qvalue_network_params)
        target = target.expand_as(qvalues)
        error = distance_loss(qvalues, target, loss_function=self.loss_function).sum(0)
        loss = self._reduce(error, tensordict)
        metadata = {
            "td_error": (qvalues - target).detach().abs().max(0).values,
            "qvalue": self._ensemble_qvalue(qvalues.detach()),
        }
        self._clear_param_weakrefs(tensordict)
        return loss, metadata

    def value_loss(self, tensordict: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the expectile regression of V on the delayed Q (arXiv 2110.06169, eq. 5).

        Args:
            tensordict (TensorDictBase): a batch of transitions; not modified.

        Returns:
            tuple of Tensor and dict: the loss, and the :meth:`advantage` that it computes on the
            way, per sample and detached.

        Raises:
            ValueError: for a loss without a value network.
        """
        if not self.has_value_network:
            raise ValueError("This loss has no value_network, so there is no loss of one.")
        tensordict = self._checked(tensordict, self._critic_keys)
        with torch.no_grad():
            qvalue = self._data_qvalues(tensordict, self.target_qvalue_network_params)
            qvalue = self._ensemble_qvalue(qvalue)
        difference = qvalue - self._state_value(tensordict)
        # Of two numbers torch.where makes the default dtype, whatever that of the difference is.
        weight = torch.where(difference > 0, self.expectile, 1 - self.expectile)
        weight = weight.to(difference.dtype)
        loss = self._reduce(weight * difference.square(), tensordict)
        self._clear_param_weakrefs(tensordict)
        return loss, {"advantage": difference.detach()}

    @torch.no_grad()
    def advantage(self, tensordict: TensorDictBase) -> Tensor:
        """Computes the advantage ``A = min_j Q_j(o, a) - V(o)`` of each sample, without gradient.

        V is the mean of ``min_j Q_j`` over ``num_value_samples`` samples of the delayed policy,
        under the current Q-networks; with a value network, V is its output and Q the delayed one
        that it was regressed on. With a ``num_qvalue_subset`` the mean over all networks stands
        for the minimum.

        Args:
            tensordict (TensorDictBase): a batch with observations and actions; not modified.

        Returns:
            Tensor: advantages of the shape of the batch.

        Raises:
            ValueError: for a loss without Q-networks.
        """
        self._require_qvalue_network()
        tensordict = self._checked(tensordict, self._critic_keys)
        if self.has_value_network:
            params = self.target_qvalue_network_params
            value = self._state_value(tensordict)
        else:
            params = self.qvalue_network_params
            action = self._policy_actions(tensordict, self._draw(tensordict, "value"))
            samples = self._qvalues(self._with_actions(tensordict, action), params)
            value = self._ensemble_qvalue(samples).mean(0)
        return self._ensemble_qvalue(self._data_qvalues(tensordict, params)) - value

    def losses(self, tensordict: TensorDictBase) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Computes the critics' losses; see :class:`~torchrl_gtp.objectives.Critic`."""
        loss_qvalue, metadata = self.qvalue_loss(tensordict)
        losses = {"loss_qvalue": loss_qvalue}
        if self.has_value_network:
            losses["loss_value"], value_metadata = self.value_loss(tensordict)
            metadata = {**metadata, **value_metadata}
        return losses, metadata

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Computes the critics' losses from a batch of transitions.

        Args:
            tensordict (TensorDictBase): a batch with the entries ``in_keys``; the TD error of
                each sample is written into it under ``tensor_keys.priority``.

        Returns:
            TensorDictBase: the entries ``out_keys``.
        """
        losses, metadata = self.losses(self._checked(tensordict, self._required_keys))
        tensordict.set(self.tensor_keys.priority, metadata["td_error"])
        return self._output(tensordict, losses, metadata)

    def _output(
        self,
        tensordict: TensorDictBase,
        losses: dict[str, Tensor],
        diagnostics: dict[str, Tensor],
    ) -> TensorDictBase:
        """Collects the entries ``out_keys``, the diagnostics as means where losses are reduced."""
        out = dict(losses)
        for name in self.out_keys_source:
            if name not in out:
                value = diagnostics[name]
                reduced = value.ndim and self.reduction != "none"
                out[name] = (
                    self._reduce_loss(value, tensordict, reduction="mean") if reduced else value
                )
        batch_size = self._leading(tensordict) if self.reduction == "none" else []
        td_out = TensorDict({key: out[key] for key in self.out_keys_source}, batch_size=batch_size)
        self._clear_param_weakrefs(tensordict, td_out)
        return td_out
