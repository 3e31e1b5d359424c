"""What the benchmark needs of a data set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["DataSet", "Pairs", "Reference"]


class Pairs(NamedTuple):
    """Conditions and actions that belong together.

    Attributes:
        condition: conditions [N, C].
        action: actions [N, A], within [-1, 1].
        advantage: advantages [N] that weight the training, or ``None``.
    """

    condition: Tensor
    action: Tensor
    advantage: Tensor | None = None

    def to(self, device: torch.device) -> Pairs:
        """Copies all to a device."""
        advantage = None if self.advantage is None else self.advantage.to(device)
        return Pairs(self.condition.to(device), self.action.to(device), advantage)


class Reference(NamedTuple):
    """Two independent draws of the data under the same, or nearly the same, conditions.

    A method samples under ``first.condition`` and is compared with ``second.action``; the
    distance between the two draws of the data is the floor, which no method beats but by chance.

    Attributes:
        first: the draw whose conditions the method gets.
        second: the draw that both are compared with.
        group: number of the group of each row [N], in both draws; distances are computed within
            the groups and averaged over them.
        modes: centres of the modes [groups, M, A]; ``None`` for data without modes.
        mode_radius: the distance from a centre within which 0.989 of a mode lie.
        mode_share: the share of the samples of each mode [M]; ``None`` for equal ones.
    """

    first: Pairs
    second: Pairs
    group: Tensor
    modes: Tensor | None = None
    mode_radius: float = 0.0
    mode_share: Tensor | None = None

    def to(self, device: torch.device) -> Reference:
        """Copies all to a device."""
        return Reference(
            self.first.to(device),
            self.second.to(device),
            self.group.to(device),
            None if self.modes is None else self.modes.to(device),
            self.mode_radius,
            None if self.mode_share is None else self.mode_share.to(device),
        )


class DataSet(ABC):
    """Conditional data that a policy is to reproduce.

    Attributes:
        name: name in tables and on the command line.
        condition_dim: size C of a condition.
        action_dim: size A of an action.
        sigma_data: standard deviation of the actions, over all dimensions.
        has_one_action: whether each condition occurs once in the data, with one action.
        has_advantage: whether training is weighted by advantages.
        chunk_length: the number of actions that the A numbers make up; ``None`` for one.
    """

    name: str
    condition_dim: int
    action_dim: int
    sigma_data: float
    has_one_action: bool = False
    has_advantage: bool = False
    chunk_length: int | None = None

    @abstractmethod
    def draw(self, num_samples: int) -> Pairs:
        """Draws training data."""

    @abstractmethod
    def reference(self, num_samples: int) -> Reference:
        """Draws what samples are compared with, of ``num_samples`` rows about.

        It draws from torch's global generator: the caller seeds it.
        """
