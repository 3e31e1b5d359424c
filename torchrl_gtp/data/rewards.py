"""Transforms of a dataset's rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

RewardTransformName = Literal["standardize", "return_range"]


@dataclass(frozen=True)
class AffineReward:
    """The reward ``scale * reward + shift``; picklable.

    IQL's AntMaze reward ``r - 1`` is ``AffineReward(shift=-1.0)``.

    Args:
        scale (float, optional): factor. Defaults to 1.
        shift (float, optional): summand. Defaults to 0.

    Examples:
        >>> import torch
        >>> AffineReward(scale=2.0, shift=-1.0)(torch.tensor([0.0, 1.0]))
        tensor([-1.,  1.])
    """

    scale: float = 1.0
    shift: float = 0.0

    def __call__(self, reward: Tensor) -> Tensor:
        """Transforms rewards of any shape."""
        return self.scale * reward + self.shift


def antmaze_reward() -> AffineReward:
    """Returns the AntMaze reward ``4 (r - 0.5)`` of CQL and Diffusion-QL: 0, 1 become -2, 2.

    Reference: Kumar et al., "Conservative Q-Learning for Offline Reinforcement Learning",
    https://arxiv.org/abs/2006.04779 (its code); Wang et al., "Diffusion Policies as an Expressive
    Policy Class for Offline Reinforcement Learning", https://arxiv.org/abs/2208.06193.

    Examples:
        >>> import torch
        >>> antmaze_reward()(torch.tensor([0.0, 1.0]))
        tensor([-2.,  2.])
    """
    return AffineReward(scale=4.0, shift=-2.0)


def fit_reward_transform(
    name: Literal["standardize", "return_range"],
    rewards: Tensor,
    returns: Tensor,
    dataset_id: str = "",
) -> AffineReward:
    """Fits one of the published transforms whose numbers depend on the dataset.

    * ``"standardize"``: ``(r - mean(r)) / std(r)`` over all steps, as Diffusion-QL trains on
      Adroit;
    * ``"return_range"``: ``1000 r / (max R - min R)`` with the returns R of the episodes, as IQL
      trains on the locomotion tasks.

    Args:
        name (str): which one.
        rewards (Tensor): all rewards of the dataset, any shape.
        returns (Tensor): the returns of its episodes, shape ``[num_episodes]``.
        dataset_id (str, optional): for the messages.

    Returns:
        the transform.

    Raises:
        ValueError: for an unknown name, or if what it divides by is zero.

    Reference: Wang et al., "Diffusion Policies as an Expressive Policy Class for Offline
    Reinforcement Learning", https://arxiv.org/abs/2208.06193; Kostrikov et al., "Offline
    Reinforcement Learning with Implicit Q-Learning", https://arxiv.org/abs/2110.06169 (their code).

    Examples:
        >>> import torch
        >>> fit_reward_transform("return_range", torch.zeros(4), torch.tensor([1.0, 5.0, 2.0]))
        AffineReward(scale=250.0, shift=0.0)
    """
    if name not in get_args(RewardTransformName):
        raise ValueError(
            f"reward_transform must be one of {list(get_args(RewardTransformName))} or a "
            f"callable, got {name!r}."
        )
    if name == "standardize":
        std, mean = torch.std_mean(rewards.double())
        spread, what = std.item(), "all rewards are equal"
    else:
        spread, what = (returns.max() - returns.min()).item(), "all returns are equal"
    if not spread > 0:
        raise ValueError(f"reward_transform={name!r}: in dataset {dataset_id!r} {what}.")
    if name == "standardize":
        return AffineReward(scale=1 / spread, shift=-mean.item() / spread)
    return AffineReward(scale=1000 / spread)
