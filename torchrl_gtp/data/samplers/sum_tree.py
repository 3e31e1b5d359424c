"""A sum tree: draws proportional to changing masses, without looking at all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from torchrl_gtp.data.samplers.indices import last_of_each

__all__ = ["SumTree"]


class SumTree:
    """Non-negative masses with batched updates and draws of ``O(B log N)``, in ``float64``.

    Each inner node holds the sum of its two children. An update writes leaves and computes the
    sums above them anew, so that rounding errors do not add up over the updates.

    Args:
        capacity (int): the number N of masses, all 0 at first.

    Raises:
        ValueError: if ``capacity`` is smaller than 1.

    Examples:
        >>> tree = SumTree(3)
        >>> tree.update(torch.tensor([0, 2]), torch.tensor([1.0, 3.0]))
        >>> tree.total.item()
        4.0
        >>> tree.find(torch.tensor([0.5, 1.5, 3.9]))  # the masses lie side by side on [0, 4)
        tensor([0, 2, 2])
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}.")
        self.capacity = capacity
        self._depth = (capacity - 1).bit_length()
        # Node i has the children 2 i and 2 i + 1; the root is node 1 and the leaves come last.
        self._nodes = torch.zeros(2 << self._depth, dtype=torch.float64)

    @property
    def total(self) -> Tensor:
        """The sum of all masses, shape []."""
        return self._nodes[1].clone()

    @property
    def masses(self) -> Tensor:
        """A copy of the masses, shape [N]."""
        first = 1 << self._depth
        return self._nodes[first : first + self.capacity].clone()

    def __getitem__(self, index: Tensor) -> Tensor:
        return self._nodes[(1 << self._depth) + index]

    def update(self, index: Tensor, mass: Tensor) -> None:
        """Sets masses; of an index that occurs several times the last one counts.

        Args:
            index (Tensor): indices [B] in [0, N), ``int64``.
            mass (Tensor): masses [B], finite and non-negative (not checked).
        """
        index, row = last_of_each(index)
        node = (1 << self._depth) + index
        self._nodes[node] = mass.to(torch.float64)[row]
        for _ in range(self._depth):
            node = node >> 1
            self._nodes[node] = self._nodes[2 * node] + self._nodes[2 * node + 1]

    def find(self, position: Tensor) -> Tensor:
        """Finds whose mass covers a position, where the masses lie side by side from 0 on.

        An index of mass 0 is never found, also where rounding puts a position on a border.

        Args:
            position (Tensor): positions [B] in [0, ``total``).

        Returns:
            Tensor: indices [B], ``int64``.
        """
        node = torch.ones(position.shape, dtype=torch.int64)
        position = position.to(torch.float64)
        for _ in range(self._depth):
            left = self._nodes[2 * node]
            right = self._nodes[2 * node + 1]
            goes_right = (position >= left) & (right > 0)
            position = torch.where(goes_right, position - left, position)
            node = 2 * node + goes_right
        return node - (1 << self._depth)

    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws indices [B] with replacement, with probabilities proportional to the masses."""
        uniform = torch.rand(num_samples, dtype=torch.float64, generator=generator)
        return self.find(uniform * self._nodes[1])
