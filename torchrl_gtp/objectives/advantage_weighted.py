"""Losses of a policy whose samples are weighted by their advantage."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from tensordict import TensorDictBase
from torch import Tensor, distributed

from torchrl_gtp.flow_map import advantage_weight, exponential_weight
from torchrl_gtp.modules import GTPActor
from torchrl_gtp.objectives.guided import GuidedLoss

__all__ = ["AdvantageWeightedLoss", "Weighting"]

Weighting = Literal["truncated", "exponential", "none"]


class AdvantageWeightedLoss(GuidedLoss):
    """Base of losses whose samples are weighted by the advantage.

    Args:
        actor_network (GTPActor): the policy.
        *networks: those of the critic; see :class:`~torchrl_gtp.objectives.ClippedDoubleQLoss`.

    Keyword Args:
        weighting ("truncated", "exponential" or "none"): how the weight follows the advantage A.
            ``"truncated"`` is the paper's eq. 10, ``exp(eta max(0, A) / std(A))``, never below 1.
            ``"exponential"`` is ``exp(eta A)``, the optimum of theorem 2 and the weight of AWR and
            AWAC with ``eta = 1 / beta``: negative advantages weigh less than 1, and nothing is
            divided by the standard deviation, so that eta depends on the scale of the reward.
            ``"none"`` computes no advantage: the policy clones while the critics train, to choose
            among its candidates or to give its gradient. Defaults to ``"truncated"``.
        eta (float): sharpness of the weight, finite; 0 clones. Defaults to ``1.0``.
        max_weight (float, optional): upper bound of the weight, at least 1; ``None`` for none but
            what keeps it finite (:func:`~torchrl_gtp.flow_map.advantage_weight`). Defaults to
            ``100.0``.
        advantage_eps (float): added to the standard deviation of the advantages, for
            ``"truncated"``. Defaults to ``1e-6``.
        sync_advantage (bool): whether that standard deviation is over the batches of all processes
            of ``torch.distributed``'s default group, where there is one. Defaults to ``False``.
        **guide_options: the critic and its options.

    Raises:
        ValueError: for options outside the ranges above.
    """

    _schedulable_buffers = frozenset({"eta", "max_weight"})

    eta: Tensor
    max_weight: Tensor

    def __init__(
        self,
        actor_network: GTPActor,
        *networks: Any,
        weighting: Weighting = "truncated",
        eta: float = 1.0,
        max_weight: float | None = 100.0,
        advantage_eps: float = 1e-6,
        sync_advantage: bool = False,
        **guide_options: Any,
    ) -> None:
        super().__init__(actor_network, *networks, **guide_options)
        if weighting not in get_args(Weighting):
            raise ValueError(f"weighting must be one of {get_args(Weighting)}, got {weighting!r}.")
        if not 0.0 <= eta < math.inf:
            raise ValueError(
                f"eta must be finite and at least 0, got {eta}: infinity times the advantage of "
                "a sample that has none is nan."
            )
        max_weight = math.inf if max_weight is None else max_weight
        if not max_weight >= 1.0:
            raise ValueError(
                "max_weight must be at least 1, the weight of a sample without advantage; got "
                f"{max_weight}."
            )
        self.weighting = weighting
        self.advantage_eps = advantage_eps
        self.sync_advantage = sync_advantage
        dtype, device = actor_network.low.dtype, actor_network.low.device
        self.register_coeff_buffer("eta", eta, dtype=dtype, device=device)
        self.register_coeff_buffer("max_weight", max_weight, dtype=dtype, device=device)

    @property
    def is_weighted(self) -> bool:
        """Whether samples are weighted by the advantage: with a critic, unless switched off."""
        return self.has_critic and self.weighting != "none"

    def weight(
        self, tensordict: TensorDictBase, advantage: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Computes the advantage weight of each sample (for ``"truncated"`` the paper's eq. 10).

        Args:
            tensordict (TensorDictBase): a batch with observations and actions; not modified.
            advantage (Tensor, optional): advantages of the shape of the batch. Defaults to those
                of :meth:`advantage`.

        Returns:
            tuple of Tensor and dict: weights of the shape of the batch, ``None`` without a
            critic or with ``weighting="none"``; and ``advantage``, ``weight_mean``,
            ``positive_share`` and ``clipped_share`` per sample, whose means are what the names
            say.
        """
        if not self.is_weighted:
            return None, {}
        if advantage is None:
            advantage = self.advantage(tensordict)
        leading = self._leading(tensordict)
        if advantage.shape != leading:
            raise ValueError(
                f"advantage must have the shape {tuple(leading)} of the batch, got "
                f"{tuple(advantage.shape)}."
            )
        mask = self._validity_mask(tensordict, leading)
        if self.weighting == "exponential":
            unbounded = exponential_weight(advantage, self.eta, mask=mask)
        else:
            unbounded = advantage_weight(
                advantage,
                self.eta,
                eps=self.advantage_eps,
                mask=mask,
                importance=self._sampling_weight(tensordict),
                sum_parts=sum_over_processes if self.sync_advantage else None,
            )
        weight = torch.minimum(unbounded, self.max_weight)
        return weight, {
            "advantage": advantage,
            "weight_mean": weight,
            "positive_share": (advantage > 0).to(weight.dtype),
            "clipped_share": (unbounded > self.max_weight).to(weight.dtype),
        }


def sum_over_processes(parts: Tensor) -> Tensor:
    """Adds a tensor over all processes of ``torch.distributed``'s default group, if there is."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return parts
    total = parts.clone()
    distributed.all_reduce(total)
    return total
