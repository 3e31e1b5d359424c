"""What is compared: named quantities of both programs, and how far they lie apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Comparison", "Row", "relative_difference"]


def relative_difference(ours: Tensor | float, theirs: Tensor | float) -> float:
    """Computes ``|ours - theirs| / |theirs|`` in the Euclidean norm.

    Raises:
        ValueError: if their shapes differ, or for numbers that are not finite.

    Examples:
        >>> relative_difference(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0]))
        0.1
    """
    ours, theirs = (
        torch.as_tensor(value, dtype=torch.float64).detach() for value in (ours, theirs)
    )
    if ours.shape != theirs.shape:
        raise ValueError(
            f"Ours has the shape {tuple(ours.shape)}, theirs {tuple(theirs.shape)}: compare the "
            "same quantity of both."
        )
    if not (ours.isfinite().all() and theirs.isfinite().all()):
        raise ValueError("Numbers that are not finite cannot be compared; look at the inputs.")
    apart = torch.linalg.vector_norm(ours - theirs).item()
    size = torch.linalg.vector_norm(theirs).item()
    # Both 0 is agreement; 0 alone has no scale.
    return apart / size if size else (0.0 if not apart else float("inf"))


@dataclass
class Row:
    """One line of the table.

    Attributes:
        quantity: what is compared.
        ours: the part of the library that gives it.
        difference: the largest relative difference over the settings.
        settings: their number.
    """

    quantity: str
    ours: str
    difference: float
    settings: int = 1


class Comparison:
    """Collects the largest relative difference of each quantity over several settings.

    Examples:
        >>> comparison = Comparison()
        >>> comparison.add("loss", "flow_loss", 1.0, 1.0)
        >>> comparison.add("loss", "flow_loss", 1.5, 1.0)
        >>> comparison.rows
        [Row(quantity='loss', ours='flow_loss', difference=0.5, settings=2)]
    """

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}

    def add(
        self, quantity: str, ours_name: str, ours: Tensor | float, theirs: Tensor | float
    ) -> None:
        """Compares a quantity in one more setting."""
        difference = relative_difference(ours, theirs)
        row = self._rows.get(quantity)
        if row is None:
            self._rows[quantity] = Row(quantity, ours_name, difference)
        else:
            row.difference = max(row.difference, difference)
            row.settings += 1

    @property
    def rows(self) -> list[Row]:
        """The lines of the table, in the order in which their quantities came."""
        return list(self._rows.values())
