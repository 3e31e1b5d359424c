"""Advantages that are in the data already."""

from __future__ import annotations

from tensordict import TensorDictBase
from tensordict.utils import NestedKey, unravel_key
from torch import Tensor

__all__ = ["PrecomputedAdvantage"]


class PrecomputedAdvantage:
    """A :class:`~torchrl_gtp.objectives.Critic` that reads the advantage from the batch.

    Any of TorchRL's value estimators (``GAE``, ``TDLambdaEstimator``, ...) writes one on the data.
    There is no critic's loss, so what made the advantage is trained elsewhere or not at all.

    Args:
        advantage_key (NestedKey): the entry with the advantage, [...] or [..., 1]. Defaults to
            ``"advantage"``.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.data import Bounded
        >>> from torchrl.objectives.value import GAE
        >>> from torchrl_gtp import GTPLoss, make_gtp_actor, make_value
        >>> trajectories = TensorDict(
        ...     {
        ...         "observation": torch.randn(4, 10, 3),
        ...         "action": torch.zeros(4, 10, 2),
        ...         "next": {
        ...             "observation": torch.randn(4, 10, 3),
        ...             "reward": torch.randn(4, 10, 1),
        ...             "done": torch.zeros(4, 10, 1, dtype=torch.bool),
        ...             "terminated": torch.zeros(4, 10, 1, dtype=torch.bool),
        ...         },
        ...     },
        ...     batch_size=[4, 10],
        ... )
        >>> data = GAE(gamma=0.99, lmbda=0.95, value_network=make_value(3))(trajectories)
        >>> actor = make_gtp_actor(observation_dim=3, action_spec=Bounded(-1, 1, (2,)))
        >>> loss = GTPLoss(actor, critic=PrecomputedAdvantage())
        >>> loss.in_keys
        ['observation', 'action', 'advantage']
        >>> weight_max = loss(data.reshape(-1))["weight_max"]
    """

    def __init__(self, advantage_key: NestedKey = "advantage") -> None:
        self.advantage_key = unravel_key(advantage_key)
        self.in_keys: list[NestedKey] = [self.advantage_key]
        self.out_keys: list[NestedKey] = []

    def losses(self, tensordict: TensorDictBase) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Returns no losses."""
        return {}, {}

    def advantage(self, tensordict: TensorDictBase) -> Tensor:
        """Reads the advantage from the batch."""
        return tensordict.get(self.advantage_key)
