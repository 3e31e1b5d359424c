"""Several actions drawn, one kept by its Q-value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase, dispatch
from tensordict.nn.probabilistic import InteractionType, interaction_type
from tensordict.utils import NestedKey, unravel_key
from torch import Tensor, nn

from torchrl_gtp.modules.actor import GTPActor

__all__ = ["CandidateActor", "Selection"]

Selection = Literal["softmax", "greedy", "expectile"]


class CandidateActor(TensorDictModuleBase):
    """Draws candidate actions and keeps one of them by its Q-value.

    With ``selection="softmax"`` a candidate is kept with probability
    ``softmax(min_j Q_j / temperature)``: the evaluation of Diffusion-QL and its successors, with 50
    candidates. ``"greedy"`` keeps the one of the largest value (IDQL, arXiv 2304.10573, in its
    published evaluation, with 64). ``"expectile"`` keeps candidates in proportion to
    ``|expectile - 1(min_j Q_j < V)|``, the policy that is implicit in the expectile critic (IDQL).
    The GTP paper acts on one sample.

    The candidates' noise is always drawn. Under deterministic exploration types there is one
    candidate: what the actor does then. Of an actor with a ``chunk_length`` whole chunks are
    candidates, and the Q-networks value chunks.

    Args:
        actor (GTPActor): the policy.
        qvalue_networks (sequence of TensorDictModule): the Q-networks, of which the smallest
            value counts. They read observation entries and the actor's action entry.

    Keyword Args:
        num_candidates (int): candidates for each observation. Defaults to ``50``.
        temperature (float): temperature of the softmax; 0 keeps the best. Defaults to ``1.0``.
        selection ("softmax", "greedy" or "expectile"): see above. Defaults to ``"softmax"``.
        value_network (TensorDictModule, optional): gives V(o), for ``"expectile"`` alone. Defaults
            to ``None``.
        expectile (float): the expectile that V was trained for, in (0, 1). Defaults to ``0.9``.
        state_action_value_key (NestedKey): what the Q-networks write. Defaults to
            ``"state_action_value"``.
        state_value_key (NestedKey): what the value network writes. Defaults to ``"state_value"``.
        qvalue_action_key (NestedKey, optional): where the Q-networks read the action. Defaults to
            the actor's action entry.

    Raises:
        ValueError: if there is no Q-network, a number is out of range, a value network is missing
            or has no effect, or ``temperature`` has none.

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
        selection: Selection = "softmax",
        value_network: TensorDictModule | None = None,
        expectile: float = 0.9,
        state_action_value_key: NestedKey = "state_action_value",
        state_value_key: NestedKey = "state_value",
        qvalue_action_key: NestedKey | None = None,
    ) -> None:
        super().__init__()
        if not qvalue_networks:
            raise ValueError("qvalue_networks must hold at least one Q-network, got none.")
        if num_candidates < 1:
            raise ValueError(f"num_candidates must be at least 1, got {num_candidates}.")
        if not 0.0 <= temperature < float("inf"):
            raise ValueError(f"temperature must be finite and at least 0, got {temperature}.")
        if selection not in get_args(Selection):
            raise ValueError(f"selection must be one of {get_args(Selection)}, got {selection!r}.")
        if selection != "softmax" and temperature != 1.0:
            raise ValueError(
                f"temperature={temperature} is that of selection='softmax' and has no effect with "
                f"{selection!r}: leave it out."
            )
        if (selection == "expectile") != (value_network is not None):
            raise ValueError(
                "selection='expectile' compares with V(o), so it needs a value_network, and no "
                f"other selection reads one; got selection={selection!r} and value_network="
                f"{type(value_network).__name__}."
            )
        if not 0.0 < expectile < 1.0:
            raise ValueError(f"expectile must lie strictly between 0 and 1, got {expectile}.")
        self.actor = actor
        self.qvalue_networks = nn.ModuleList(qvalue_networks)
        self.value_network = value_network
        self.num_candidates = num_candidates
        self.temperature = temperature
        self.selection = selection
        self.expectile = expectile
        self.state_action_value_key = state_action_value_key
        self.state_value_key = state_value_key
        self.qvalue_action_key = unravel_key(
            actor.action_key if qvalue_action_key is None else qvalue_action_key
        )
        networks = [actor, *qvalue_networks, *([] if value_network is None else [value_network])]
        keys = [key for network in networks for key in network.in_keys]
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
        observed = TensorDict(batch_size=batch[1:])
        for key in self.in_keys:
            entry = tensordict.get(key)
            observed.set(key, entry.to(action.dtype) if entry.is_floating_point() else entry)
        candidates = observed.expand(batch).clone(False).set(self.qvalue_action_key, action)
        qvalue = torch.stack(
            [
                # The mean, where a network gives quantiles.
                net(candidates.copy()).get(self.state_action_value_key).mean(-1, keepdim=True)
                for net in self.qvalue_networks
            ]
        ).amin(0)
        event_dims = (1,) * len(self.actor.event_shape)
        best = self._scores(qvalue, observed).argmax(0, keepdim=True).squeeze(-1)
        best = best.reshape(1, *batch[1:], *event_dims).expand(1, *action.shape[1:])
        return tensordict.set(self.actor.action_key, action.gather(0, best).squeeze(0))

    def _scores(self, qvalue: Tensor, observed: TensorDict) -> Tensor:
        """Makes numbers [N, ..., 1] of which the largest belongs to the candidate to keep."""
        if self.selection == "greedy" or self.temperature == 0:
            return qvalue
        if self.value_network is None:
            logits = qvalue / self.temperature
        else:
            value = self.value_network(observed).get(self.state_value_key)
            weight = torch.where(qvalue > value, self.expectile, 1 - self.expectile)
            logits = weight.to(qvalue.dtype).log()
        # The largest of Gumbel-perturbed logits is a draw from their softmax.
        return logits - torch.empty_like(logits).exponential_().log()
