"""Several actions drawn, one kept by its Q-value."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase, dispatch
from tensordict.nn.probabilistic import InteractionType, interaction_type
from tensordict.utils import NestedKey, unravel_key
from torch import nn

from torchrl_gtp.modules.actor import GTPActor

__all__ = ["CandidateActor"]


class CandidateActor(TensorDictModuleBase):
    """Draws candidate actions and keeps one, with probability ``softmax(min_j Q_j / temperature)``.

    This is the evaluation of Diffusion-QL and its successors (50 candidates); the GTP paper acts
    on one sample. The candidates' noise is always drawn. Under deterministic exploration types
    there is one candidate: what the actor does then. Of an actor with a ``chunk_length`` whole
    chunks are candidates, and the Q-networks value chunks.

    Args:
        actor (GTPActor): the policy.
        qvalue_networks (sequence of TensorDictModule): the Q-networks, of which the smallest
            value counts. They read observation entries and the actor's action entry.

    Keyword Args:
        num_candidates (int): candidates for each observation. Defaults to ``50``.
        temperature (float): temperature of the softmax; 0 keeps the best. Defaults to ``1.0``.
        state_action_value_key (NestedKey): what the Q-networks write. Defaults to
            ``"state_action_value"``.
        qvalue_action_key (NestedKey, optional): where the Q-networks read the action. Defaults to
            the actor's action entry.

    Raises:
        ValueError: if there is no Q-network, or a number is out of range.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import make_gtp_actor, make_qvalue
        >>> actor = make_gtp_actor(observation_dim=4, action_spec=Bounded(-1, 1, (2,)))
        >>> policy = CandidateActor(actor, [make_qvalue(4, 2), make_qvalue(4, 2)])
        >>> policy(observation=torch.randn(8, 4)).shape
        torch.Size([8, 2])
    """

    def __init__(
        self,
        actor: GTPActor,
        qvalue_networks: Sequence[TensorDictModule],
        *,
        num_candidates: int = 50,
        temperature: float = 1.0,
        state_action_value_key: NestedKey = "state_action_value",
        qvalue_action_key: NestedKey | None = None,
    ) -> None:
        super().__init__()
        if not qvalue_networks:
            raise ValueError("qvalue_networks must hold at least one Q-network, got none.")
        if num_candidates < 1:
            raise ValueError(f"num_candidates must be at least 1, got {num_candidates}.")
        if not 0.0 <= temperature < float("inf"):
            raise ValueError(f"temperature must be finite and at least 0, got {temperature}.")
        self.actor = actor
        self.qvalue_networks = nn.ModuleList(qvalue_networks)
        self.num_candidates = num_candidates
        self.temperature = temperature
        self.state_action_value_key = state_action_value_key
        self.qvalue_action_key = unravel_key(
            actor.action_key if qvalue_action_key is None else qvalue_action_key
        )
        keys = [*actor.in_keys, *(key for net in qvalue_networks for key in net.in_keys)]
        self.in_keys = [key for key in dict.fromkeys(keys) if key != self.qvalue_action_key]
        self.out_keys = [actor.action_key]

    @dispatch(auto_batch_size=False)
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Writes an action to ``tensordict``.

        Args:
            tensordict (TensorDictBase): holds the entries ``in_keys``.

        Returns:
            TensorDictBase: the input with the action entry.

        Raises:
            KeyError: if an entry is missing.
        """
        missing = [key for key in self.in_keys if tensordict.get(key, default=None) is None]
        if missing:
            raise KeyError(
                f"The policy needs the entries {missing}, which the input lacks; it has "
                f"{sorted(map(str, tensordict.keys(True, True)))}."
            )
        if interaction_type() not in (None, InteractionType.RANDOM):
            return self.actor(tensordict)
        condition = self.actor.condition(tensordict)
        action = self.actor.sample(condition.expand(self.num_candidates, *condition.shape))
        batch = action.shape[: -len(self.actor.event_shape)]
        candidates = TensorDict({self.qvalue_action_key: action}, batch_size=batch)
        for key in self.in_keys:
            entry = tensordict.get(key)
            entry = entry.to(action.dtype) if entry.is_floating_point() else entry
            candidates.set(key, entry.expand(self.num_candidates, *entry.shape))
        qvalue = torch.stack(
            [
                # The mean, where a network gives quantiles.
                net(candidates.copy()).get(self.state_action_value_key).mean(-1, keepdim=True)
                for net in self.qvalue_networks
            ]
        ).amin(0)
        if self.temperature > 0:
            # The largest of Gumbel-perturbed logits is a draw from the softmax.
            gumbel = -torch.empty_like(qvalue).exponential_().log()
            qvalue = qvalue / self.temperature + gumbel
        event_dims = (1,) * len(self.actor.event_shape)
        best = qvalue.argmax(0, keepdim=True).squeeze(-1).reshape(1, *batch[1:], *event_dims)
        best = best.expand(1, *action.shape[1:])
        return tensordict.set(self.actor.action_key, action.gather(0, best).squeeze(0))
