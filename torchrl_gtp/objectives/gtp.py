"""The loss of generative trajectory policies (arXiv 2510.11499)."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, dispatch
from torch import Tensor

from torchrl_gtp.flow_map import (
    KarrasGridTimes,
    LogNormalTimes,
    TimeSampler,
    advantage_weight,
    consistency_error,
    flow_error,
    robust_weight,
)
from torchrl_gtp.flow_map.errors import TimeWeight
from torchrl_gtp.modules import GTPActor
from torchrl_gtp.objectives.critic import ClippedDoubleQLoss

__all__ = ["GTPLoss"]

_TIME_SAMPLERS: dict[str, type[LogNormalTimes | KarrasGridTimes]] = {
    "log_normal": LogNormalTimes,
    "karras_grid": KarrasGridTimes,
}


class GTPLoss(ClippedDoubleQLoss):
    """The loss of a generative trajectory policy, with or without a critic.

    The actor is trained by ``loss_consistency + loss_flow`` (paper, eq. 7 to 9): a
    self-consistency of the flow map along the closed-form score approximation, and a denoising
    error with factor ``lambda_flow``. With a critic, both are weighted by the advantage (eq. 10)
    and the critics are trained by clipped double-Q learning (eq. 11); no gradient of Q reaches
    the actor. Without a critic it is GTP-BC, which clones the behaviour and reads only
    observations and actions.

    Calling the loss computes all terms from the present parameters. The paper's Algorithm 1
    takes the critic's step first: for that, call :meth:`qvalue_loss` and :meth:`actor_loss` one
    after the other, with the critic's step in between.

    Args:
        actor_network (GTPActor): the policy.
        qvalue_network (TensorDictModule or list of them, optional): a Q-network, which is
            multiplied, or a list of ``num_qvalue_nets``. ``None`` (default) clones.
        value_network (TensorDictModule, optional): a state-value network, trained by expectile
            regression; it then gives V in the advantage and the next value, as in IQL. ``None``
            (default) takes V from policy samples, as the paper does.

    Keyword Args:
        eta (float): sharpness of the advantage weight; 0 clones. Defaults to ``1.0``.
        lambda_flow (float): factor of the flow term. Defaults to ``1.0``.
        max_weight (float, optional): upper bound of the advantage weight; ``None`` for none, as
            in the paper, where a batch of equal positive advantages makes it overflow. The
            attribute is a buffer that travels with the state dict; assign ``math.inf`` to it for
            no bound. Defaults to ``100.0``.
        advantage_eps (float): added to the standard deviation of the advantages. Defaults to
            ``1e-6``.
        time_sampler ("log_normal", "karras_grid" or TimeSampler): draws the times (t, u, s); the
            paper's is ``"karras_grid"``. Defaults to ``"log_normal"``.
        time_weight ("edm" or "none"): weight of a squared error over noise levels; the paper's is
            ``"none"``. Defaults to ``"edm"``.
        robust_power (float): exponent of the adaptive weight ``1 / (error + 0.01)^power`` of each
            consistency error, in [0, 1], where ``error`` is its mean over the action dimensions;
            the paper's is 0. Defaults to ``0.5``.
        teacher ("current" or "ema"): which parameters make the consistency target, always
            without gradient: the current ones, or the delayed ones as in the paper. Defaults to
            ``"current"``.
        progress (float): share of training done, in [0, 1], on which the time sampler's schedule
            depends. Assign to the attribute of this name during training to run the schedule;
            left alone, it stays in the middle of the schedule. Defaults to ``0.5``.
        num_qvalue_nets (int): the number of Q-networks. Defaults to ``2``.
        loss_function ("l2", "l1" or "smooth_l1"): distance of the TD loss. Defaults to ``"l2"``.
        expectile (float): expectile of the value network. Defaults to ``0.9``.
        num_value_samples (int): policy samples M for V(o). Defaults to ``1``.
        num_backup_samples (int): policy samples at the next observation, of which the TD target
            takes the best (max-Q backup). Defaults to ``1``.
        policy_num_steps (int, optional): the number of jumps K of these samples. Defaults to what
            ``actor_network.num_steps`` is at the time of the call.
        delay_actor (bool): whether the policy has delayed (EMA) parameters. Defaults to ``True``.
        delay_qvalue (bool): whether the Q-networks have. Defaults to ``True``.
        separate_losses (bool): whether parameters that the critics share with the actor get no
            gradient from the critics' losses. Defaults to ``False``.
        deactivate_vmap (bool): whether to loop over the Q-networks. Defaults to ``False``.
        use_prioritized_weights ("auto" or bool): whether to use importance weights of prioritised
            replay where the input has them. Defaults to ``"auto"``.
        reduction ("none", "mean" or "sum", optional): reduction of the losses over the batch.
            With ``"none"`` the output has the batch size of the input and leaves out the
            statistics of the whole batch (``weight_max``). Defaults to ``"mean"``.

    Outputs: ``loss_consistency``, ``loss_flow`` (times ``lambda_flow``); with a critic also
    ``loss_qvalue``, ``loss_value`` where there is a value network, and, detached, the means of
    ``advantage``, ``qvalue``, ``td_error`` and ``weight_mean`` over the batch, the largest weight
    ``weight_max``, and the shares ``positive_share`` of positive advantages and ``clipped_share``
    of bounded weights. The TD error of each sample is written into the input under
    ``tensor_keys.priority``.

    Raises:
        ValueError: for options outside the ranges above; when called, for an empty batch or entries
            of another size than the networks'.
        KeyError: when called, if the input lacks an entry of ``in_keys``.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.data import Bounded
        >>> from torchrl.objectives import SoftUpdate
        >>> from torchrl_gtp import make_gtp_actor, make_qvalue
        >>> actor = make_gtp_actor(observation_dim=4, action_spec=Bounded(-1, 1, (2,)))
        >>> loss = GTPLoss(actor, make_qvalue(observation_dim=4, action_dim=2), eta=1.0)
        >>> updater = SoftUpdate(loss, tau=0.005)
        >>> batch = TensorDict(
        ...     {
        ...         "observation": torch.randn(8, 4),
        ...         "action": torch.rand(8, 2) * 2 - 1,
        ...         "next": {
        ...             "observation": torch.randn(8, 4),
        ...             "reward": torch.randn(8, 1),
        ...             "done": torch.zeros(8, 1, dtype=torch.bool),
        ...             "terminated": torch.zeros(8, 1, dtype=torch.bool),
        ...         },
        ...     },
        ...     batch_size=[8],
        ... )
        >>> losses = loss(batch)
        >>> sum(v for k, v in losses.items() if k.startswith("loss_")).backward()
        >>> updater.step()
    """

    _schedulable_buffers = frozenset({"eta", "lambda_flow", "max_weight", "progress"})

    eta: Tensor
    lambda_flow: Tensor
    max_weight: Tensor
    progress: Tensor

    def __init__(
        self,
        actor_network: GTPActor,
        qvalue_network: TensorDictModule | list[TensorDictModule] | None = None,
        value_network: TensorDictModule | None = None,
        *,
        eta: float = 1.0,
        lambda_flow: float = 1.0,
        max_weight: float | None = 100.0,
        advantage_eps: float = 1e-6,
        time_sampler: Literal["log_normal", "karras_grid"] | TimeSampler = "log_normal",
        time_weight: TimeWeight = "edm",
        robust_power: float = 0.5,
        teacher: Literal["current", "ema"] = "current",
        progress: float = 0.5,
        **critic_options: Any,
    ) -> None:
        super().__init__(actor_network, qvalue_network, value_network, **critic_options)
        if isinstance(time_sampler, str):
            if time_sampler not in _TIME_SAMPLERS:
                raise ValueError(
                    f"time_sampler must be one of {sorted(_TIME_SAMPLERS)} or a TimeSampler, got "
                    f"{time_sampler!r}."
                )
            self.time_sampler: TimeSampler = _TIME_SAMPLERS[time_sampler]()
        else:
            self.time_sampler = time_sampler
        if time_weight not in ("edm", "none"):
            raise ValueError(f"time_weight must be 'edm' or 'none', got {time_weight!r}.")
        if teacher not in ("current", "ema"):
            raise ValueError(f"teacher must be 'current' or 'ema', got {teacher!r}.")
        for name, value, upper in (
            ("eta", eta, math.inf),
            ("lambda_flow", lambda_flow, math.inf),
            ("robust_power", robust_power, 1.0),
            ("progress", progress, 1.0),
        ):
            if not 0.0 <= value <= upper:
                raise ValueError(f"{name} must lie in [0, {upper}], got {value}.")
        max_weight = math.inf if max_weight is None else max_weight
        if not max_weight >= 1.0:
            raise ValueError(
                f"max_weight must be at least 1, because every weight is; got {max_weight}."
            )
        if teacher == "ema" and "target_actor_network_params" not in self._modules:
            raise ValueError("teacher='ema' needs delay_actor=True: there is no EMA without it.")
        self.time_weight = time_weight
        self.robust_power = robust_power
        self.teacher = teacher
        self.advantage_eps = advantage_eps
        dtype = actor_network.low.dtype
        device = actor_network.low.device
        self.register_coeff_buffer("eta", eta, dtype=dtype, device=device)
        self.register_coeff_buffer("lambda_flow", lambda_flow, dtype=dtype, device=device)
        self.register_coeff_buffer("max_weight", max_weight, dtype=dtype, device=device)
        self.register_coeff_buffer("progress", progress, dtype=dtype, device=device)
        self.out_keys = ["loss_consistency", "loss_flow"]
        if self.has_critic:
            losses = ["loss_qvalue"] + ["loss_value"] * self.has_value_network
            means = ["advantage", "qvalue", "td_error", "weight_mean", "positive_share"]
            batch = [] if self.reduction == "none" else ["weight_max"]
            self.out_keys = [*self.out_keys, *losses, *means, "clipped_share", *batch]

    def weight(
        self, tensordict: TensorDictBase, advantage: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Computes the advantage weight of each sample (paper, eq. 10).

        Args:
            tensordict (TensorDictBase): a batch with observations and actions; not modified.
            advantage (Tensor, optional): advantages of the shape of the batch. Defaults to those
                of :meth:`advantage`.

        Returns:
            tuple of Tensor and dict: weights of the shape of the batch, ``None`` without a
            critic; and ``advantage``, ``weight_mean``, ``positive_share`` and ``clipped_share``
            per sample, whose means are what the names say.
        """
        if not self.has_critic:
            return None, {}
        if advantage is None:
            advantage = self.advantage(tensordict)
        leading = self._action(tensordict).shape[:-1]
        if advantage.shape != leading:
            raise ValueError(
                f"advantage must have the shape {tuple(leading)} of the batch, got "
                f"{tuple(advantage.shape)}."
            )
        unbounded = advantage_weight(
            advantage,
            self.eta,
            eps=self.advantage_eps,
            mask=self._validity_mask(tensordict, leading),
        )
        weight = torch.minimum(unbounded, self.max_weight)
        return weight, {
            "advantage": advantage,
            "weight_mean": weight,
            "positive_share": (advantage > 0).to(weight.dtype),
            "clipped_share": (unbounded > self.max_weight).to(weight.dtype),
        }

    def consistency_loss(
        self, tensordict: TensorDictBase, weight: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the consistency term (paper, eq. 7).

        Args:
            tensordict (TensorDictBase): a batch with observations and actions; not modified.
            weight (Tensor, optional): advantage weights of the shape of the batch. Defaults to
                those of :meth:`weight`.

        Returns:
            tuple of Tensor and dict: the loss, and no metadata.
        """
        tensordict = self._checked(tensordict, self._policy_keys)
        action, condition = self._action(tensordict), self._condition(tensordict)
        flow_map = self.actor_network.flow_map
        times = self.time_sampler(action, self.progress, flow_map.noise_levels)
        with self.actor_network_params.to_module(self.actor_network, preserve_module_state=False):
            error = consistency_error(
                flow_map,
                self._teacher_map,
                action,
                torch.randn_like(action),
                times,
                condition,
                time_weight=self.time_weight,
            )
        if self.robust_power:
            error = error * robust_weight(error / action.shape[-1], self.robust_power)
        return self._weighted_loss(error, tensordict, weight), {}

    def flow_loss(
        self, tensordict: TensorDictBase, weight: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the flow term, times ``lambda_flow`` (paper, eq. 8 and 9).

        Args:
            tensordict (TensorDictBase): a batch with observations and actions; not modified.
            weight (Tensor, optional): advantage weights of the shape of the batch. Defaults to
                those of :meth:`weight`.

        Returns:
            tuple of Tensor and dict: the loss, and no metadata.
        """
        tensordict = self._checked(tensordict, self._policy_keys)
        action, condition = self._action(tensordict), self._condition(tensordict)
        flow_map = self.actor_network.flow_map
        t = self.time_sampler.start(action, self.progress, flow_map.noise_levels)
        with self.actor_network_params.to_module(self.actor_network, preserve_module_state=False):
            error = flow_error(
                flow_map,
                action,
                torch.randn_like(action),
                t,
                condition,
                time_weight=self.time_weight,
            )
        return self.lambda_flow * self._weighted_loss(error, tensordict, weight), {}

    def actor_loss(
        self, tensordict: TensorDictBase, advantage: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the actor's whole loss, both terms under one set of weights (paper, eq. 9).

        Args:
            tensordict (TensorDictBase): a batch with observations and actions; not modified.
            advantage (Tensor, optional): advantages of the shape of the batch. Defaults to those
                of :meth:`advantage`.

        Returns:
            tuple of Tensor and dict: the loss; and ``loss_consistency``, ``loss_flow`` and the
            metadata of :meth:`weight`.
        """
        weight, metadata = self.weight(tensordict, advantage)
        loss_consistency, _ = self.consistency_loss(tensordict, weight)
        loss_flow, _ = self.flow_loss(tensordict, weight)
        terms = {"loss_consistency": loss_consistency, "loss_flow": loss_flow}
        return loss_consistency + loss_flow, {**terms, **metadata}

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Computes all terms from a batch of transitions.

        Args:
            tensordict (TensorDictBase): a batch with the entries ``in_keys``; with a critic, the
                TD error of each sample is written into it under ``tensor_keys.priority``.

        Returns:
            TensorDictBase: the entries ``out_keys``.
        """
        written, tensordict = tensordict, self._checked(tensordict, self.in_keys)
        out: dict[str, Tensor] = {}
        diagnostics: dict[str, Tensor] = {}
        advantage = None
        if self.has_critic:
            out["loss_qvalue"], diagnostics = self.qvalue_loss(tensordict)
            written.set(self.tensor_keys.priority, diagnostics["td_error"])
        if self.has_value_network:
            out["loss_value"], value_metadata = self.value_loss(tensordict)
            advantage = value_metadata["advantage"]
        _, metadata = self.actor_loss(tensordict, advantage)
        out["loss_consistency"] = metadata.pop("loss_consistency")
        out["loss_flow"] = metadata.pop("loss_flow")
        diagnostics.update(metadata)
        if self.reduction == "none":
            out.update(diagnostics)
        elif self.has_critic:
            for name, value in diagnostics.items():
                out[name] = self._reduce_loss(value, tensordict, reduction="mean")
            weight = metadata["weight_mean"]
            mask = self._validity_mask(tensordict, weight.shape)
            out["weight_max"] = (weight if mask is None else torch.where(mask, weight, 1.0)).amax()
        leading = self._action(tensordict).shape[:-1]
        batch_size = leading if self.reduction == "none" else []
        td_out = TensorDict({key: out[key] for key in self.out_keys_source}, batch_size=batch_size)
        self._clear_param_weakrefs(written, tensordict, td_out)
        return td_out

    def _teacher_map(
        self, action_u: Tensor, u: Tensor, s: Tensor, condition: Tensor | None
    ) -> Tensor:
        """Evaluates the consistency target's flow map, without gradient."""
        actor = self.actor_network
        if self.teacher == "current":
            # Runs where the current parameters are in place already.
            with torch.no_grad():
                return actor.flow_map(action_u, u, s, condition)
        with (
            torch.no_grad(),
            self.target_actor_network_params.to_module(actor, preserve_module_state=False),
        ):
            return actor.flow_map(action_u, u, s, condition)

    def _weighted_loss(
        self, error: Tensor, tensordict: TensorDictBase, weight: Tensor | None
    ) -> Tensor:
        if weight is None:
            weight, _ = self.weight(tensordict)
        if weight is not None:
            if weight.shape != error.shape:
                raise ValueError(
                    f"weight must have the shape {tuple(error.shape)} of the batch, got "
                    f"{tuple(weight.shape)}."
                )
            # Multiplied here, not passed as importance weights: those would be normalised.
            error = weight * error
        loss = self._reduce_loss(
            error, tensordict, weights=self._maybe_get_priority_weight(tensordict)
        )
        self._clear_param_weakrefs(tensordict)
        return loss
