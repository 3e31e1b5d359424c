"""What a critic must give, so that a policy can be weighted by it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.objectives.common import LossModule

from torchrl_gtp.objectives.actor_critic import ActorCriticLoss
from torchrl_gtp.objectives.double_q import ClippedDoubleQLoss

__all__ = ["Critic"]

# What holds for the policy's losses with any critic.
_POLICY_OPTIONS = ("delay_actor", "use_prioritized_weights", "reduction")


@runtime_checkable
class Critic(Protocol):
    """A critic for :class:`~torchrl_gtp.GTPLoss`: its losses, and an advantage for a batch.

    The advantage is all that the policy needs. Any object with these two methods is a critic, a
    module if it has parameters; :class:`~torchrl_gtp.objectives.LossCritic` makes one of a
    ``LossModule`` that has neither.

    Attributes:
        in_keys: the entries of the batch that the critic reads, those of the next step with
            ``"next"`` in front.
        out_keys: the names of what :meth:`losses` returns and the user wants to see: losses begin
            with ``loss_``, the others are diagnostics.

    Examples:
        >>> from torch import nn
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import GTPLoss, make_gtp_actor, make_qvalue
        >>> class ReturnCritic(nn.Module):
        ...     in_keys, out_keys = ["observation", "action", "return"], ["loss_qvalue"]
        ...
        ...     def __init__(self, qvalue):
        ...         super().__init__()
        ...         self.qvalue = qvalue
        ...
        ...     def error(self, td):  # of Q, which is the mean of the return that follows
        ...         return td["return"] - self.qvalue(td.copy())["state_action_value"]
        ...
        ...     def losses(self, td):
        ...         return {"loss_qvalue": self.error(td).square().mean()}, {}
        ...
        ...     def advantage(self, td):  # what came out better than expected
        ...         return self.error(td).squeeze(-1)
        >>> actor = make_gtp_actor(observation_dim=4, action_spec=Bounded(-1, 1, (2,)))
        >>> loss = GTPLoss(actor, critic=ReturnCritic(make_qvalue(4, 2)))
        >>> loss.in_keys
        ['observation', 'action', 'return']
    """

    in_keys: list[NestedKey]
    out_keys: list[NestedKey]

    def losses(self, tensordict: TensorDictBase) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Computes the critic's losses from a batch, which is the critic's own copy.

        Returns:
            tuple of dict: the losses, reduced, under names that begin with ``loss_``; and
            detached metadata. Of the latter, ``td_error`` of the shape of the batch becomes the
            priority of prioritised replay, ``advantage`` saves a call of :meth:`advantage`, and
            those in ``out_keys`` are reported.
        """
        ...

    def advantage(self, tensordict: TensorDictBase) -> Tensor:
        """Computes the advantage of each sample, of the shape of the batch."""
        ...


def check_critic(critic: Any, reduction: str) -> None:
    """Raises a ``TypeError`` for what is no critic, a ``ValueError`` for one that does not fit."""
    if not isinstance(critic, Critic):
        hint = " Wrap the loss in LossCritic." if isinstance(critic, LossModule) else ""
        missing = [
            name
            for name in ("in_keys", "out_keys", "losses", "advantage")
            if not hasattr(critic, name)
        ]
        raise TypeError(
            f"critic must fulfil torchrl_gtp.objectives.Critic, but {type(critic).__name__} has "
            f"no {', '.join(missing)}.{hint}"
        )
    reductions = (reduction, getattr(critic, "reduction", reduction))
    if "none" in reductions and reductions[0] != reductions[1]:
        raise ValueError(
            f"reduction={reductions[0]!r} of the loss and reduction={reductions[1]!r} of its "
            "critic do not fit: either both reduce or none does."
        )
    taken = {"loss_consistency", "loss_flow"} & set(critic.out_keys)
    if taken:
        raise ValueError(f"The critic's out_keys {sorted(taken)} are names of the policy's losses.")


def check_own_options(qvalue_network: Any, options: Mapping[str, Any]) -> None:
    """Raises a ``ValueError`` if a loss with a critic object is also told how to make its own."""
    parameters: dict[str, inspect.Parameter] = {}
    for kind in (ClippedDoubleQLoss, ActorCriticLoss):
        parameters.update(inspect.signature(kind.__init__).parameters)
    for name in _POLICY_OPTIONS:
        del parameters[name]
    told = [
        name
        for name, value in options.items()
        if name in parameters and value != parameters[name].default
    ]
    if qvalue_network is not None:
        told.insert(0, "qvalue_network")
    if told:
        raise ValueError(
            f"{', '.join(told)}: these are about the loss's own critic, but critic is given. "
            "Give them to that critic, or leave critic out."
        )
