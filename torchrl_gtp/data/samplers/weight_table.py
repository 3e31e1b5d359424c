"""Weights and draws by a power of them."""

from __future__ import annotations

import torch
from torch import Tensor

from torchrl_gtp.data.samplers.indices import last_of_each
from torchrl_gtp.data.samplers.sum_tree import SumTree

__all__ = ["WeightTable"]


class WeightTable:
    """A growing list of weights ``w_i`` and a sum tree of ``w_i^alpha``.

    Args:
        alpha (float): the exponent, in [0, 1]; settable, at a cost of ``O(N)``.

    Raises:
        ValueError: if ``alpha`` is out of range.

    Examples:
        >>> table = WeightTable(alpha=0.5)
        >>> table.resize(2, 1.0)
        >>> table.set(torch.tensor([1]), torch.tensor(9.0))
        >>> table.weights.tolist(), table.total.item()
        ([1.0, 9.0], 4.0)
    """

    def __init__(self, alpha: float) -> None:
        self.size = 0
        self._weights = torch.zeros(1, dtype=torch.float64)
        self.alpha = alpha

    @property
    def alpha(self) -> float:
        """The exponent."""
        return self._alpha

    @alpha.setter
    def alpha(self, value: float) -> None:
        if not 0.0 <= value <= 1.0:
            raise ValueError(
                f"alpha is the share of the weight in the draws, in [0, 1]; got {value}."
            )
        self._alpha = value
        self._rebuild()

    @property
    def weights(self) -> Tensor:
        """A copy of the weights, shape [N], ``float64``."""
        return self._weights[: self.size].clone()

    @property
    def total(self) -> Tensor:
        """The sum of ``w_i^alpha``, shape []."""
        return self._tree.total

    def resize(self, size: int, default: float) -> None:
        """Sets the number of weights N; new ones are ``default``."""
        known, self.size = self.size, size
        if size > self._tree.capacity:
            # Twice as much, so that growing costs O(1) per weight.
            grown = torch.full((2 * size,), default, dtype=torch.float64)
            grown[:known] = self._weights[:known]
            self._weights = grown
            self._rebuild()
        elif size > known:
            self.set(torch.arange(known, size), torch.tensor(default))
        elif size < known:
            self._tree.update(torch.arange(size, known), torch.zeros(known - size))

    def set(self, index: Tensor, weight: Tensor) -> None:
        """Sets weights [] or [B] at indices [B]; of equal indices the last one counts."""
        weight = weight.to(torch.float64).expand(index.shape)
        index, row = last_of_each(index)
        self._weights[index] = weight[row]
        self._tree.update(index, self._weights[index] ** self._alpha)

    def sample(
        self, num_samples: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draws indices, with replacement.

        Args:
            num_samples (int): the number B of draws.
            generator (torch.Generator, optional): of the random numbers.

        Returns:
            tuple of Tensor: indices, their weights ``w_i`` and ``1 / (N p_i)``, each [B].
        """
        index = self._tree.sample(num_samples, generator)
        return index, self._weights[index], self.total / self.size / self._tree[index]

    def _rebuild(self) -> None:
        self._tree = SumTree(self._weights.numel())
        self._tree.update(torch.arange(self.size), self._weights[: self.size] ** self._alpha)
