"""The loss of policies that follow the gradient of Q through their own samples."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor

from torchrl_gtp.flow_map import masked_mean
from torchrl_gtp.modules import GTPActor
from torchrl_gtp.objectives.advantage_weighted import Weighting, sum_over_processes
from torchrl_gtp.objectives.base import Draw
from torchrl_gtp.objectives.double_q import ClippedDoubleQLoss
from torchrl_gtp.objectives.gtp import GTPLoss

__all__ = ["QGradientLoss"]

QNormalization = Literal["other_critic", "none"]


class QGradientLoss(GTPLoss):
    """Cloning plus the gradient of Q through the sampler: Diffusion-QL and its relatives.

    The actor is trained by the terms of the objective, all samples alike, plus

    ``loss_q_gradient = -q_weight * mean(Q_j(o, pi(o))) / mean|Q_k(o, pi(o))|``

    where ``pi(o)`` is a sample of the current policy, with gradient through all of its K steps,
    and ``j != k`` are two Q-networks, of which a coin decides for each batch (Diffusion-QL, arXiv
    2208.06193, eq. 3, in its published code; Consistency-AC, arXiv 2309.16984, has it too). The
    divisor carries no gradient, and no Q-network is trained by this term. With the objective of
    ``family("ddpm")`` this is Diffusion-QL, with that of a consistency model Consistency-AC, and
    with the default objective and ``q_normalization="none"`` the GTP paper's ablation with a
    linear Q term.

    The objective sums the squared errors of an action's dimensions, where those publications take
    their mean: for the same proportion, ``q_weight`` is their eta times the dimension of the
    action.

    Args:
        actor_network (GTPActor): the policy. Its sampler is differentiated.
        qvalue_network (TensorDictModule or list of them, optional): as in
            :class:`~torchrl_gtp.GTPLoss`. It or a ``critic`` with Q-networks is needed.
        value_network (TensorDictModule, optional): likewise.

    Keyword Args:
        q_weight (float): factor of the term; its buffer may be assigned during training. Defaults
            to ``1.0``.
        q_normalization ("other_critic" or "none"): ``"other_critic"`` divides by the mean absolute
            value of another Q-network over the batch, so that the scale of the reward does not
            matter; of more than two networks it is the one after that which is drawn. ``"none"``
            is ``-q_weight * mean(min_j Q_j(o, pi(o)))``, the minimum as in the advantage. Defaults
            to ``"other_critic"``.
        weighting ("none", "truncated" or "exponential"): whether the terms of the objective are
            weighted by the advantage as well. Defaults to ``"none"``.
        **gtp_options: further arguments of :class:`~torchrl_gtp.GTPLoss`. ``policy_num_steps`` is
            also the number of steps of ``pi(o)``; with ``sync_advantage`` the divisor is over the
            batches of all processes, of which each tosses a coin of its own.

    Outputs: those of :class:`~torchrl_gtp.GTPLoss`, ``loss_q_gradient``, and detached
    ``policy_qvalue``, the mean of ``min_j Q_j(o, pi(o))``.

    Raises:
        ValueError: as :class:`~torchrl_gtp.GTPLoss`, without Q-networks of this library, for a
            negative or infinite ``q_weight``, another ``q_normalization``, or
            ``"other_critic"`` with a single Q-network.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import TargetUpdate, make_gtp_actor, make_qvalue
        >>> from torchrl_gtp.flow_map import family
        >>> objective, sampler, _ = family("ddpm")
        >>> actor = make_gtp_actor(4, Bounded(-1, 1, (2,)), sampler=sampler)
        >>> loss = QGradientLoss(actor, make_qvalue(4, 2), objective=objective, q_weight=2.0)
        >>> loss.out_keys
        ['loss_flow', 'loss_q_gradient', 'loss_qvalue', 'qvalue', 'td_error', 'policy_qvalue']
    """

    _schedulable_buffers = GTPLoss._schedulable_buffers | {"q_weight"}

    q_weight: Tensor

    def __init__(
        self,
        actor_network: GTPActor,
        qvalue_network: TensorDictModule | list[TensorDictModule] | None = None,
        value_network: TensorDictModule | None = None,
        *,
        q_weight: float = 1.0,
        q_normalization: QNormalization = "other_critic",
        weighting: Weighting = "none",
        **gtp_options: Any,
    ) -> None:
        super().__init__(
            actor_network, qvalue_network, value_network, weighting=weighting, **gtp_options
        )
        guide = self if self.critic is None else self.critic
        if not (isinstance(guide, ClippedDoubleQLoss) and guide.has_qvalue_network):
            raise ValueError(
                f"{type(self).__name__} follows the gradient of Q-networks of this library: give "
                f"qvalue_network, or a critic that has them; got critic="
                f"{type(self.critic).__name__}."
            )
        if not 0.0 <= q_weight < math.inf:
            raise ValueError(f"q_weight must be finite and at least 0, got {q_weight}.")
        if q_normalization not in get_args(QNormalization):
            raise ValueError(
                f"q_normalization must be one of {get_args(QNormalization)}, got "
                f"{q_normalization!r}."
            )
        if q_normalization == "other_critic" and guide.num_qvalue_nets < 2:
            raise ValueError(
                "q_normalization='other_critic' needs at least two Q-networks, got "
                f"num_qvalue_nets={guide.num_qvalue_nets}: take more, or q_normalization='none'."
            )
        self.q_normalization = q_normalization
        dtype, device = actor_network.low.dtype, actor_network.low.device
        self.register_coeff_buffer("q_weight", q_weight, dtype=dtype, device=device)
        terms = len(self.objective.terms)
        others = self.out_keys[terms:]
        self.out_keys = [*self.out_keys[:terms], "loss_q_gradient", *others, "policy_qvalue"]

    @property
    def _guide(self) -> ClippedDoubleQLoss:
        """Whose Q-networks are followed."""
        return self if self.critic is None else self.critic  # type: ignore[return-value]

    def _draws(self) -> dict[str, Draw]:
        draws = {**super()._draws(), "policy": Draw("normal", (self.actor_network.flat_dim,))}
        if self.q_normalization == "other_critic":
            draws["q_coin"] = Draw("uniform", ())
        return draws

    def q_gradient_loss(self, tensordict: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the Q-term of the actor's loss, times ``q_weight``.

        Args:
            tensordict (TensorDictBase): a batch with observations and actions; not modified.

        Returns:
            tuple of Tensor and dict: the loss, and ``policy_qvalue`` per sample, detached.
        """
        guide = self._guide
        keys = list(dict.fromkeys([*self._policy_keys, *guide._critic_keys]))
        tensordict = self._checked(tensordict, keys)
        noise = self._draw(tensordict, "policy").unsqueeze(-2)
        action = self._policy_actions(tensordict, noise, params=self.actor_network_params)
        samples = guide._with_actions(tensordict, action)
        qvalues = guide._qvalues(samples, guide.qvalue_network_params.detach()).squeeze(1)
        smallest = guide._ensemble_qvalue(qvalues)
        if self.q_normalization == "none":
            followed = smallest
        else:
            followed = self._normalized(tensordict, qvalues)
        loss = self._reduce(-self.q_weight * followed, tensordict)
        self._clear_param_weakrefs(tensordict)
        return loss, {"policy_qvalue": smallest.detach()}

    def _normalized(self, tensordict: TensorDictBase, qvalues: Tensor) -> Tensor:
        """Divides one row of values [N, ...] by the mean absolute value of the next one."""
        count = qvalues.shape[0]
        coin = self._draw(tensordict, "q_coin").reshape(-1)[:1]
        # A draw of the uniform distribution may round up to 1.
        chosen = (coin * count).floor().clamp_max(count - 1).long()
        other = qvalues.detach().index_select(0, (chosen + 1) % count).squeeze(0)
        scale = masked_mean(
            other.abs(),
            self._validity_mask(tensordict, other.shape),
            self._sampling_weight(tensordict),
            sum_parts=sum_over_processes if self.sync_advantage else None,
        )
        # Where every value is 0, as of networks that start at 0, there is no scale.
        scale = scale.clamp_min(torch.finfo(scale.dtype).eps)
        return qvalues.index_select(0, chosen).squeeze(0) / scale

    def actor_loss(
        self, tensordict: TensorDictBase, advantage: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the actor's whole loss: the terms of the objective and the Q-term.

        Args:
            tensordict (TensorDictBase): a batch with observations and actions; not modified.
            advantage (Tensor, optional): as in :class:`~torchrl_gtp.GTPLoss`; without effect
                where samples are not weighted.

        Returns:
            tuple of Tensor and dict: the loss; and the losses of all terms and their metadata.
        """
        cloning, metadata = super().actor_loss(tensordict, advantage)
        q_gradient, q_metadata = self.q_gradient_loss(tensordict)
        metadata = {**metadata, "loss_q_gradient": q_gradient, **q_metadata}
        return cloning + q_gradient, metadata
