"""The loss of generative trajectory policies (arXiv 2510.11499)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule, dispatch
from torch import Tensor

from torchrl_gtp.flow_map import (
    FlowMap,
    Objective,
    SomeRows,
    TermInputs,
    TimeSampler,
    gtp_objective,
)
from torchrl_gtp.flow_map.errors import TimeWeight
from torchrl_gtp.modules import GTPActor
from torchrl_gtp.objectives.advantage_weighted import AdvantageWeightedLoss, Weighting
from torchrl_gtp.objectives.base import Draw
from torchrl_gtp.objectives.critic_protocol import Critic
from torchrl_gtp.objectives.teacher import FrozenActor, frozen_denoiser

__all__ = ["GTPLoss"]


class GTPLoss(AdvantageWeightedLoss):
    """The loss of a generative trajectory policy, with or without a critic.

    The actor is trained by ``loss_consistency + loss_flow`` (paper, eq. 7 to 9): a
    self-consistency of the flow map along the closed-form score approximation (for one row in
    ``semigroup_every``, along its own jumps), and a denoising error with factor ``lambda_flow``.
    With a critic, both are weighted by the advantage (eq. 10), and no gradient of Q reaches the
    actor. Without a critic it is GTP-BC, which clones the behaviour and reads only observations
    and actions.

    The critic is either clipped double-Q learning (eq. 11) on the networks given here, or any
    other :class:`~torchrl_gtp.objectives.Critic`, which brings its own networks.

    Any other :class:`~torchrl_gtp.flow_map.Objective` may take the place of these two terms:
    diffusion, flow matching, consistency models, CTM, shortcut models and mean flow are ready in
    :func:`~torchrl_gtp.flow_map.family`, weighted by the advantage in the same way.

    Calling the loss computes all terms from the present parameters. The paper's Algorithm 1
    takes the critic's step first: for that, call :meth:`losses` and :meth:`actor_loss` one after
    the other, with the critic's step in between.

    Args:
        actor_network (GTPActor): the policy.
        qvalue_network (TensorDictModule or list of them, optional): a Q-network, which is
            multiplied, or a list of ``num_qvalue_nets``. ``None`` (default) clones.
        value_network (TensorDictModule, optional): a state-value network, trained by expectile
            regression; it then gives V in the advantage and the next value, as in IQL. ``None``
            (default) takes V from policy samples, as the paper does.

    Keyword Args:
        critic (Critic, optional): another critic, exclusive with ``qvalue_network``. It becomes a
            submodule; where it has target networks, they need a
            :class:`~torchrl_gtp.TargetUpdate`, which finds them. Defaults to ``None``.
        weighting ("truncated", "exponential" or "none"): how the weight follows the advantage A.
            ``"truncated"`` is the paper's eq. 10, ``exp(eta max(0, A) / std(A))``, never below 1.
            ``"exponential"`` is ``exp(eta A)``, the optimum of theorem 2 and the weight of AWR and
            AWAC with ``eta = 1 / beta``: negative advantages weigh less than 1, and nothing is
            divided by the standard deviation, so that eta depends on the scale of the reward.
            ``"none"`` computes no advantage: the policy clones while the critics train, to choose
            among its candidates or to give its gradient. Defaults to ``"truncated"``.
        eta (float): sharpness of the advantage weight, finite; 0 clones. Defaults to ``1.0``.
        lambda_flow (float, optional): factor of the flow term; the paper writes lambda and gives
            no value. Defaults to ``None``: that of the objective, 3 for the paper's terms. More
            helps where the denoiser stays behind, as for sequences of actions with ReLU.
        max_weight (float, optional): upper bound of the advantage weight; ``None`` for none, as
            in the paper, but what keeps it finite; see
            :func:`~torchrl_gtp.flow_map.advantage_weight`. The attribute is a buffer that travels
            with the state dict; assign ``math.inf`` to it for no bound. Defaults to ``100.0``.
        advantage_eps (float): added to the standard deviation of the advantages. Defaults to
            ``1e-6``.
        time_sampler ("log_normal", "karras_grid" or TimeSampler): gives the times (t, u, s); the
            paper's is ``"karras_grid"``. Defaults to ``"log_normal"``.
        time_weight ("edm", "noise", "velocity" or "none"): weight of a squared error over noise
            levels, see :func:`~torchrl_gtp.flow_map.flow_error`; the paper's is ``"none"``.
            Defaults to ``"edm"``.
        robust_power (float): exponent of the adaptive weight ``1 / (error + 0.01)^power`` of each
            consistency error, in [0, 1], where ``error`` is its mean over the action dimensions;
            the paper's is 0. Defaults to ``1.0``.
        teacher ("current" or "ema"): which parameters make the consistency target, always
            without gradient: the current ones, or the delayed ones as in the paper. Defaults to
            ``"current"``.
        semigroup_every (int, optional): one of each so many rows of a batch, drawn at random, is
            compared with two frozen jumps in the place of a neighbour by the closed form; see
            :class:`~torchrl_gtp.flow_map.Consistency`. ``None``: no row, as in the paper. Defaults
            to ``8``.
        objective (Objective, optional): other terms than those of the paper, which then hold
            everything that ``time_sampler``, ``time_weight``, ``robust_power``, ``teacher`` and
            ``semigroup_every`` say. Defaults to ``None``: consistency and flow term with those
            options.
        denoiser_network (GTPActor, optional): a trained policy whose denoiser the ODE solver of
            the objective follows, as in distillation: one of the same observations and actions. The
            loss keeps a frozen copy, in evaluation mode. Defaults to ``None``: the solver follows
            the teacher's own denoiser, unless the objective needs a trained one.
        progress (float): share of training done, in [0, 1], on which the time sampler's schedule
            depends. Assign to the attribute of this name during training to run the schedule;
            left alone, it stays in the middle of the schedule. Defaults to ``0.5``.
        sync_advantage (bool): whether the standard deviation of the advantages is over the
            batches of all processes of ``torch.distributed``'s default group, where there is one.
            All of them have to call the loss together. So data-parallel training on equal parts
            of a batch, of a multiple of ``semigroup_every`` rows (and of ``every`` times as many
            where that term is in a :class:`~torchrl_gtp.flow_map.SomeRows`), has the gradients of
            one process on the whole. Defaults to ``False``.
        **critic_options: further arguments of
            :class:`~torchrl_gtp.objectives.ClippedDoubleQLoss`. Those that are not about its
            critics (``delay_actor``, ``use_prioritized_weights``, ``reduction``) hold without
            them too.

    Outputs: ``loss_<term>`` for each term of the objective, by default ``loss_consistency`` and
    ``loss_flow`` (times ``lambda_flow``); with a critic also its
    own outputs (``loss_qvalue``, ``loss_value`` where there is a value network, ``qvalue``,
    ``td_error``) and, detached, the means of ``advantage`` and ``weight_mean`` over the batch, the
    largest weight ``weight_max``, and the shares ``positive_share`` of positive advantages and
    ``clipped_share`` of bounded weights (none of these with ``weighting="none"``). With
    ``reduction="none"`` the output has the batch size of the input and leaves out ``weight_max``.
    The TD error of each sample, where the critic gives it, is written into the input under
    ``tensor_keys.priority``, and the advantage weight under ``tensor_keys.weight``.

    Raises:
        ValueError: for options outside the ranges above, for an ``objective`` beside options that
            it replaces, for one whose solver needs a ``denoiser_network``, for a
            ``denoiser_network`` that nothing follows or of other observations or actions, or for a
            ``lambda_flow`` without a term ``"flow"``; when called, for an empty batch or entries of
            another size than the networks'.
        TypeError: if ``critic`` is not a :class:`~torchrl_gtp.objectives.Critic`,
            ``denoiser_network`` not a :class:`~torchrl_gtp.GTPActor`, or ``time_sampler`` gives no
            (t, u, s).
        KeyError: when called, if the input lacks an entry of ``in_keys``.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import TargetUpdate, make_gtp_actor, make_qvalue
        >>> actor = make_gtp_actor(observation_dim=4, action_spec=Bounded(-1, 1, (2,)))
        >>> loss = GTPLoss(actor, make_qvalue(observation_dim=4, action_dim=2), eta=1.0)
        >>> updater = TargetUpdate(loss, {"actor_network": 0.005, "qvalue_network": 0.01})
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

    _schedulable_buffers = AdvantageWeightedLoss._schedulable_buffers | {"lambda_flow", "progress"}

    denoiser: FlowMap | None
    objective: Objective
    lambda_flow: Tensor
    progress: Tensor

    def __init__(
        self,
        actor_network: GTPActor,
        qvalue_network: TensorDictModule | list[TensorDictModule] | None = None,
        value_network: TensorDictModule | None = None,
        *,
        critic: Critic | None = None,
        weighting: Weighting = "truncated",
        eta: float = 1.0,
        lambda_flow: float | None = None,
        max_weight: float | None = 100.0,
        advantage_eps: float = 1e-6,
        time_sampler: Literal["log_normal", "karras_grid"] | TimeSampler = "log_normal",
        time_weight: TimeWeight = "edm",
        robust_power: float = 1.0,
        teacher: Literal["current", "ema"] = "current",
        semigroup_every: int | None = 8,
        objective: Objective | None = None,
        denoiser_network: GTPActor | None = None,
        progress: float = 0.5,
        sync_advantage: bool = False,
        **critic_options: Any,
    ) -> None:
        super().__init__(
            actor_network,
            qvalue_network,
            value_network,
            critic=critic,
            weighting=weighting,
            eta=eta,
            max_weight=max_weight,
            advantage_eps=advantage_eps,
            sync_advantage=sync_advantage,
            **critic_options,
        )
        own = (time_sampler, time_weight, robust_power, teacher)
        if objective is None:
            objective = gtp_objective(*own, semigroup_every=semigroup_every)
        elif (*own, semigroup_every) != ("log_normal", "edm", 1.0, "current", 8):
            raise ValueError(
                "time_sampler, time_weight, robust_power, teacher and semigroup_every are those of "
                f"the objective: leave them out beside objective={objective!r}, or change its own."
            )
        if lambda_flow is not None:
            if "flow" not in objective.terms:
                raise ValueError(
                    f"lambda_flow={lambda_flow} is the factor of a term 'flow', but the objective "
                    f"has the terms {sorted(objective.terms)}: leave it out, or add that term."
                )
            objective = dataclasses.replace(objective, lambda_flow=lambda_flow)
        if denoiser_network is None and objective.needs_denoiser:
            raise ValueError(
                "The objective's ODE solver needs a trained denoiser to follow: give a trained "
                "policy, such as one of family('diffusion'), as denoiser_network; or take an "
                "objective with a term 'flow' that trains one, such as that of family('ctm')."
            )
        self.objective = objective
        self.denoiser = None
        if denoiser_network is not None:
            if not objective.follows_denoiser:
                raise ValueError(
                    "denoiser_network has no effect: no term of the objective has an ODE solver "
                    "that would follow it. Leave it out, or take an objective with a solver, such "
                    "as that of family('consistency_distillation')."
                )
            self.denoiser = frozen_denoiser(denoiser_network, actor_network)
        if not 0.0 <= progress <= 1.0:
            raise ValueError(f"progress must lie in [0, 1], got {progress}.")
        if objective.teacher == "ema" and "target_actor_network_params" not in self._modules:
            raise ValueError("teacher='ema' needs delay_actor=True: there is no EMA without it.")
        dtype = actor_network.low.dtype
        device = actor_network.low.device
        self.register_coeff_buffer("lambda_flow", objective.lambda_flow, dtype=dtype, device=device)
        self.register_coeff_buffer("progress", progress, dtype=dtype, device=device)
        critic_keys = self.out_keys if critic is None else critic.out_keys
        losses = [key for key in critic_keys if str(key).startswith("loss_")]
        diagnostics = [key for key in critic_keys if key not in losses]
        self.out_keys = [f"loss_{name}" for name in objective.terms]
        if self.is_weighted:
            weights = ["weight_mean", "positive_share", "clipped_share"]
            batch = [] if self.reduction == "none" else ["weight_max"]
            self.out_keys += [*losses, "advantage", *diagnostics, *weights, *batch]
        elif self.has_critic:
            self.out_keys += [*losses, *diagnostics]

    @property
    def teacher(self) -> Literal["current", "ema"]:
        """Which parameters make the targets."""
        return self.objective.teacher

    @property
    def time_weight(self) -> str:
        """The weight over noise levels of the objective's first term."""
        return self._first_term.time_weight

    @property
    def robust_power(self) -> float:
        """The exponent of the adaptive weight of the objective's first term."""
        return self._first_term.robust_power

    @property
    def time_sampler(self) -> TimeSampler:
        """The time sampler of the objective's first term; assigning changes that of all terms."""
        return self._first_term.time_sampler

    @time_sampler.setter
    def time_sampler(self, value: TimeSampler) -> None:
        terms: dict[str, Any] = dict(self.objective.terms)
        replaced = {name: _with_times(term, value) for name, term in terms.items()}
        self.objective = dataclasses.replace(self.objective, terms=replaced)

    @property
    def _first_term(self) -> Any:
        term = next(iter(self.objective.terms.values()))
        return term.term if isinstance(term, SomeRows) else term

    def train(self, mode: bool = True) -> GTPLoss:
        """Sets the mode of the loss and of its networks, but for the frozen denoiser's."""
        super().train(mode)
        if self.denoiser is not None:
            self.denoiser.eval()
        return self

    def _draws(self) -> dict[str, Draw]:
        return {**super()._draws(), **self.objective.draws(self.actor_network.flat_dim)}

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

        Raises:
            ValueError: if the objective has no such term.
        """
        return self._term_loss("consistency", tensordict, weight), {}

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

        Raises:
            ValueError: if the objective has no such term.
        """
        return self._term_loss("flow", tensordict, weight), {}

    def actor_loss(
        self, tensordict: TensorDictBase, advantage: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the actor's whole loss, all terms under one set of weights (paper, eq. 9).

        Args:
            tensordict (TensorDictBase): a batch with observations and actions; not modified.
            advantage (Tensor, optional): advantages of the shape of the batch. Defaults to those
                of :meth:`advantage`.

        Returns:
            tuple of Tensor and dict: the loss; and the ``loss_<term>`` of each term and the
            metadata of :meth:`weight`.
        """
        weight, metadata = self.weight(tensordict, advantage)
        terms = {
            f"loss_{name}": self._term_loss(name, tensordict, weight)
            for name in self.objective.terms
        }
        return torch.stack(list(terms.values())).sum(0), {**terms, **metadata}

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Computes all terms from a batch of transitions.

        Args:
            tensordict (TensorDictBase): a batch with the entries ``in_keys``; with a critic, the
                TD error and the advantage weight of each sample are written into it under
                ``tensor_keys.priority`` and ``tensor_keys.weight``.

        Returns:
            TensorDictBase: the entries ``out_keys``.
        """
        written, tensordict = tensordict, self._checked(tensordict, self.in_keys)
        losses: dict[str, Tensor] = {}
        diagnostics: dict[str, Tensor] = {}
        if self.has_critic:
            losses, diagnostics = self.losses(tensordict)
            if "td_error" in diagnostics:
                written.set(self.tensor_keys.priority, diagnostics["td_error"])
        _, metadata = self.actor_loss(tensordict, diagnostics.get("advantage"))
        if self.is_weighted:
            written.set(self.tensor_keys.weight, metadata["weight_mean"])
        for name in [name for name in metadata if name.startswith("loss_")]:
            losses[name] = metadata.pop(name)
        if "weight_max" in self.out_keys_source:
            weight = metadata["weight_mean"]
            mask = self._validity_mask(tensordict, weight.shape)
            metadata["weight_max"] = (
                weight if mask is None else torch.where(mask, weight, 0.0)
            ).amax()
        self._clear_param_weakrefs(written)
        return self._output(tensordict, losses, {**diagnostics, **metadata})

    def _term_loss(self, name: str, tensordict: TensorDictBase, weight: Tensor | None) -> Tensor:
        """Computes the loss of one term of the objective, under the weights of the batch."""
        if name not in self.objective.terms:
            raise ValueError(
                f"The objective has no term {name!r}, only {sorted(self.objective.terms)}."
            )
        term, actor = self.objective.terms[name], self.actor_network
        tensordict = self._checked(tensordict, self._policy_keys)
        inputs = TermInputs(
            action=self._action(tensordict),
            draws={
                draw: self._draw(tensordict, f"{name}_{draw}")
                for draw in term.draws(actor.flat_dim)
            },
            progress=self.progress,
            condition=self._condition(tensordict),
            valid=self._unpadded(tensordict),
        )
        with self.actor_network_params.to_module(actor, preserve_module_state=False):
            error = term(actor.flow_map, self._teacher(), inputs)
        loss = self._weighted_loss(error, tensordict, weight)
        return self.lambda_flow * loss if name == "flow" else loss

    def _teacher(self) -> FrozenActor:
        in_place = self.teacher == "current"
        return FrozenActor(
            actor=self.actor_network,
            params=self.actor_network_params if in_place else self.target_actor_network_params,
            in_place=in_place,
            denoiser=self.denoiser,
        )

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
        # Errors are of single precision at least until they are one number.
        loss = self._reduce(error, tensordict).to(self._dtype)
        self._clear_param_weakrefs(tensordict)
        return loss


def _with_times(term: Any, time_sampler: Any) -> Any:
    if isinstance(term, SomeRows):
        return SomeRows(_with_times(term.term, time_sampler), term.every)
    return dataclasses.replace(term, time_sampler=time_sampler)
