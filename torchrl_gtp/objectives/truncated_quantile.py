"""Truncated quantile critics for a policy that is sampled."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase, TensorDictParams
from tensordict.nn import TensorDictModule
from torch import Tensor
from torch.nn import functional as F

from torchrl_gtp.modules import GTPActor
from torchrl_gtp.objectives.double_q import ClippedDoubleQLoss

__all__ = ["TruncatedQuantileLoss"]


class TruncatedQuantileLoss(ClippedDoubleQLoss):
    """Distributional critics whose highest target quantiles are dropped (TQC, arXiv 2005.04269).

    Each network gives Q quantiles of the return. The quantiles of all delayed networks at a
    sample of the policy are pooled and sorted, and the highest ``num_dropped_quantiles`` for each
    network are left out of the target; the networks regress on the others by the quantile Huber
    loss. TorchRL's ``TQCLoss`` does the same for a policy with a log-probability.

    The value of an action, which the advantage uses, is the mean over quantiles and networks.

    Args:
        actor_network (GTPActor): the policy.
        qvalue_network (TensorDictModule or list of them): writes ``state_action_value`` [..., Q];
            see ``num_quantiles`` of :func:`~torchrl_gtp.make_qvalue`.

    Keyword Args:
        num_qvalue_nets (int): the number of networks. Defaults to ``5``.
        num_dropped_quantiles (int): quantiles to drop for each network. Defaults to ``2``.
        **critic_options: further arguments of
            :class:`~torchrl_gtp.objectives.ClippedDoubleQLoss`, without those about the minimum
            over networks, the distance of the TD loss and value networks.

    Raises:
        ValueError: for options outside the ranges above; when called, if no quantile is left.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import GTPLoss, make_gtp_actor, make_qvalue
        >>> actor = make_gtp_actor(observation_dim=4, action_spec=Bounded(-1, 1, (2,)))
        >>> qvalue = make_qvalue(observation_dim=4, action_dim=2, num_quantiles=25)
        >>> loss = GTPLoss(actor, critic=TruncatedQuantileLoss(actor, qvalue))
    """

    def __init__(
        self,
        actor_network: GTPActor,
        qvalue_network: TensorDictModule | list[TensorDictModule],
        *,
        num_qvalue_nets: int = 5,
        num_dropped_quantiles: int = 2,
        **critic_options: Any,
    ) -> None:
        if num_dropped_quantiles < 0:
            raise ValueError(
                f"num_dropped_quantiles must be at least 0, got {num_dropped_quantiles}."
            )
        foreign = {"value_network", "expectile", "num_qvalue_subset", "loss_function"}
        foreign &= critic_options.keys()
        if foreign or critic_options.get("num_backup_samples", 1) != 1:
            raise ValueError(
                f"{sorted(foreign or {'num_backup_samples'})}: not for truncated quantile "
                "critics, whose target is a set of quantiles at one sample of the policy."
            )
        super().__init__(
            actor_network, qvalue_network, num_qvalue_nets=num_qvalue_nets, **critic_options
        )
        self.num_dropped_quantiles = num_dropped_quantiles

    def _qvalues(self, tensordict: TensorDictBase, params: TensorDictParams) -> Tensor:
        return self._qvalue_outputs(tensordict, params).mean(-1)

    def _ensemble_qvalue(self, qvalues: Tensor) -> Tensor:
        return qvalues.mean(0)

    @torch.no_grad()
    def _next_value(self, tensordict: TensorDictBase) -> Tensor:
        samples = self._next_samples(tensordict)
        quantiles = self._qvalue_outputs(samples, self.target_qvalue_network_params)
        # [N, 1, ..., Q] of N networks at one sample: pooled to [..., N Q], not cut one by one.
        pooled = quantiles.squeeze(1).movedim(0, -2).flatten(-2).sort(-1).values
        kept = pooled.shape[-1] - self.num_dropped_quantiles * self.num_qvalue_nets
        if kept < 1:
            raise ValueError(
                f"num_dropped_quantiles={self.num_dropped_quantiles} leaves none of the "
                f"{quantiles.shape[-1]} quantiles that each network gives."
            )
        return pooled[..., :kept]

    def qvalue_loss(self, tensordict: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the quantile Huber loss of all networks, summed over them.

        Args:
            tensordict (TensorDictBase): a batch of transitions; not modified.

        Returns:
            tuple of Tensor and dict: the loss, and ``td_error`` (the mean absolute difference
            between predicted and target quantiles, the largest over the networks) and ``qvalue``,
            per sample and detached.
        """
        tensordict = self._checked(tensordict, self._required_keys)
        target = self._td_target(tensordict)
        inputs = self._inputs(tensordict, self.qvalue_network, self._leading(tensordict))
        quantiles = self._qvalue_outputs(inputs, self.qvalue_network_params)
        predicted = quantiles.unsqueeze(-1).expand(*quantiles.shape, target.shape[-1])
        wanted = target.unsqueeze(-2).expand_as(predicted)
        count = quantiles.shape[-1]
        levels = (torch.arange(count, dtype=target.dtype, device=target.device) + 0.5) / count
        below = (wanted.detach() < predicted.detach()).to(target.dtype)
        asymmetry = (levels.unsqueeze(-1) - below).abs()
        huber = F.smooth_l1_loss(predicted, wanted, reduction="none")
        error = (asymmetry * huber).mean((-1, -2)).sum(0)
        loss = self._reduce(error, tensordict)
        difference = (predicted - wanted).detach().abs().mean((-1, -2))
        metadata = {
            "td_error": difference.amax(0),
            "qvalue": self._ensemble_qvalue(quantiles.detach().mean(-1)),
        }
        self._clear_param_weakrefs(tensordict)
        return loss, metadata
