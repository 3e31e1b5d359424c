"""Densities in the plane, each switched by a condition of two values, -1 and 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.few_step.data_set import DataSet, Pairs, Reference

__all__ = ["PLANAR_SETS", "PlanarSet"]


class _Density(NamedTuple):
    """A density for the condition 1, and what the condition -1 does with it.

    Attributes:
        draw: draws points [N, 2].
        switch: maps those points, and the modes, to the density of the condition -1; ``None`` for
            a density without a condition, whose condition is always 0.
        modes: centres of the modes [M, 2], if there are modes.
        mode_std: standard deviation of a mode.
    """

    draw: Callable[[int], Tensor]
    switch: Callable[[Tensor], Tensor] | None
    modes: Tensor | None = None
    mode_std: float = 0.0


class PlanarSet(DataSet):
    """A density in the plane as a data set.

    Args:
        name: one of :data:`PLANAR_SETS`.

    Examples:
        >>> data = PlanarSet("turned_ring")
        >>> data.draw(8).action.shape, data.reference(100).modes.shape
        (torch.Size([8, 2]), torch.Size([2, 8, 2]))
    """

    condition_dim = 1
    action_dim = 2

    def __init__(self, name: str) -> None:
        self.name = name
        self._density = PLANAR_SETS[name]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.sigma_data = self.draw(20_000).action.std().item()

    def draw(self, num_samples: int) -> Pairs:
        """Draws training data: both conditions are equally likely."""
        if self._density.switch is None:
            return self._of(torch.zeros(num_samples, 1))
        return self._of(2.0 * torch.randint(2, (num_samples, 1)) - 1)

    def reference(self, num_samples: int) -> Reference:
        """Draws ``num_samples`` points for each condition; the conditions are the groups."""
        switch = self._density.switch
        values = [0.0] if switch is None else [1.0, -1.0]
        condition = torch.tensor(values).repeat_interleave(num_samples).unsqueeze(-1)
        modes = self._density.modes
        if modes is not None:
            modes = modes.unsqueeze(0) if switch is None else torch.stack([modes, switch(modes)])
        return Reference(
            self._of(condition),
            self._of(condition),
            torch.arange(len(values)).repeat_interleave(num_samples),
            modes,
            3 * self._density.mode_std,
        )

    def _of(self, condition: Tensor) -> Pairs:
        points = self._density.draw(len(condition))
        if self._density.switch is not None:
            points = torch.where(condition > 0, points, self._density.switch(points))
        # Four standard deviations from the ring is the bound: hardly a point is moved.
        return Pairs(condition, points.clamp(-1, 1))


def _turn(points: Tensor, degrees: float) -> Tensor:
    angle = math.radians(degrees)
    rotation = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    return points @ rotation.mT


def _mirror(points: Tensor) -> Tensor:
    return points * torch.tensor([-1.0, 1.0])


def _mixture(modes: Tensor, std: float, switch: Callable[[Tensor], Tensor] | None) -> _Density:
    def draw(num_samples: int) -> Tensor:
        centre = modes[torch.randint(len(modes), (num_samples,))]
        return centre + std * torch.randn(num_samples, 2)

    return _Density(draw, switch, modes, std)


def _ring_modes() -> Tensor:
    angle = torch.arange(8) * (math.pi / 4)
    return 0.8 * torch.stack([angle.cos(), angle.sin()], -1)


def _grid_modes() -> Tensor:
    # The corners stay within [-1, 1] when the grid is turned by 45 degrees.
    axis = torch.linspace(-0.6, 0.6, 5)
    return torch.cartesian_prod(axis, axis)


def _draw_checkerboard(num_samples: int) -> Tensor:
    # Four by four squares of side 0.5; those of one colour have an even sum of row and column.
    row = torch.randint(4, (num_samples,))
    column = 2 * torch.randint(2, (num_samples,)) + row % 2
    corner = torch.stack([column, row], -1)
    return 0.5 * (corner + torch.rand(num_samples, 2)) - 1


def _draw_moons(num_samples: int) -> Tensor:
    angle = math.pi * torch.rand(num_samples)
    side = 2.0 * torch.randint(2, (num_samples,)) - 1
    # The lower moon is shifted, so that the two interlock.
    points = torch.stack([angle.cos() - 0.5 * side, side * (angle.sin() - 0.25)], -1)
    return 0.55 * points + 0.04 * torch.randn(num_samples, 2)


def _draw_spiral(num_samples: int) -> Tensor:
    # The square root spreads the points evenly along the arc.
    share = torch.rand(num_samples).sqrt()
    angle = 3 * math.pi * share
    points = 0.9 * share.unsqueeze(-1) * torch.stack([angle.cos(), angle.sin()], -1)
    return points + 0.02 * torch.randn(num_samples, 2)


PLANAR_SETS: dict[str, _Density] = {
    "ring": _mixture(_ring_modes(), 0.05, None),
    "turned_ring": _mixture(_ring_modes(), 0.05, lambda points: _turn(points, 22.5)),
    "grid": _mixture(_grid_modes(), 0.025, lambda points: _turn(points, 45.0)),
    "checkerboard": _Density(_draw_checkerboard, _mirror),
    "moons": _Density(_draw_moons, _mirror),
    "spiral": _Density(_draw_spiral, _mirror),
}
"""By name. The condition turns ``turned_ring`` by 22.5 and ``grid`` by 45 degrees, and mirrors the
others at the vertical axis (the checkerboard's squares of the other colour); ``ring`` has none."""
