"""Transforms of a dataset's rewards."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
