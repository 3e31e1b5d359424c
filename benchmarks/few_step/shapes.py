"""Mixtures of other sizes than the plane, and one whose samples are weighted by an advantage."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks.few_step.data_set import DataSet, Pairs, Reference
from benchmarks.few_step.planar import PLANAR_SETS

__all__ = ["SHAPES", "MixtureSet"]

_SHARE_ON_MODE = 1 - math.exp(-4.5)


class MixtureSet(DataSet):
    """A mixture of equal Gaussians under one condition, and another one under the other.

    A sample is on a mode if it is within the radius that 0.989 of a Gaussian keep, which is three
    standard deviations in the plane.

    Args:
        name: name in tables.
        modes: centres [G, M, A] for G conditions: 0 alone, or 1 and -1.
        std: standard deviation of each mode.
        chunk_length: the number of actions in a sequence of A numbers. Defaults to ``None``.
        weights: the weights of the modes [M], at least 1, that training is to apply and samples
            are to show; the data themselves have all modes alike. Defaults to ``None``.

    Examples:
        >>> data = SHAPES["chunks"]()
        >>> data.action_dim, data.chunk_length, data.draw(8).action.shape
        (56, 8, torch.Size([8, 56]))
        >>> SHAPES["weighted_ring"]().draw(8).advantage.shape
        torch.Size([8])
    """

    condition_dim = 1

    def __init__(
        self,
        name: str,
        modes: Tensor,
        std: float,
        *,
        chunk_length: int | None = None,
        weights: Tensor | None = None,
    ) -> None:
        self.name, self._modes, self._std, self._weights = name, modes, std, weights
        self.action_dim = modes.shape[-1]
        self.chunk_length = chunk_length
        self.has_advantage = weights is not None
        generator = torch.Generator().manual_seed(0)
        norm = torch.randn(100_000, self.action_dim, generator=generator).norm(dim=-1)
        self._radius = std * norm.quantile(_SHARE_ON_MODE).item()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.sigma_data = self.draw(20_000).action.std().item()

    def draw(self, num_samples: int) -> Pairs:
        """Draws training data: all conditions and all modes are equally likely."""
        group = torch.randint(len(self._modes), (num_samples,))
        mode = torch.randint(self._modes.shape[1], (num_samples,))
        return self._of(group, mode)

    def reference(self, num_samples: int) -> Reference:
        """Draws ``num_samples`` points for each condition, with the weights where there are."""
        group = torch.arange(len(self._modes)).repeat_interleave(num_samples)
        share = torch.ones(self._modes.shape[1]) if self._weights is None else self._weights
        first, second = (
            self._of(group, share.multinomial(len(group), replacement=True)) for _ in range(2)
        )
        return Reference(first, second, group, self._modes, self._radius, share / share.sum())

    def _of(self, group: Tensor, mode: Tensor) -> Pairs:
        centre = self._modes[group, mode]
        action = (centre + self._std * torch.randn_like(centre)).clamp(-1, 1)
        condition = (1.0 - 2.0 * group if len(self._modes) > 1 else 0.0 * group).unsqueeze(-1)
        advantage = None if self._weights is None else self._weights.log()[mode]
        return Pairs(condition, action, advantage)


def _line() -> MixtureSet:
    modes = torch.linspace(-0.7, 0.7, 5).unsqueeze(-1)
    return MixtureSet("line", torch.stack([modes - 0.0875, modes + 0.0875]), 0.03)


def _chunks() -> MixtureSet:
    generator = torch.Generator().manual_seed(0)
    frequency, phase = torch.rand(2, 2, 8, 1, 7, generator=generator)
    steps = torch.linspace(0, 1, 8).unsqueeze(-1)
    sequences = 0.6 * torch.sin(2 * math.pi * ((0.5 + frequency) * steps + phase))
    return MixtureSet("chunks", sequences.flatten(-2), 0.05, chunk_length=8)


def _weighted_ring() -> MixtureSet:
    # The largest weight is the bound of the loss, so that it does not depend on the batch.
    ring = PLANAR_SETS["turned_ring"]
    assert ring.modes is not None
    assert ring.switch is not None
    modes = torch.stack([ring.modes, ring.switch(ring.modes)])
    weights = torch.ones(8)
    weights[0] = 100.0
    return MixtureSet("weighted_ring", modes, ring.mode_std, weights=weights)


SHAPES = {"line": _line, "weighted_ring": _weighted_ring, "chunks": _chunks}
"""By name: 5 modes on a line, 8 modes in 8 x 7 dimensions; and the ring that the condition turns by
22.5 degrees, one mode of which has an advantage that gives it 100 times the weight of the others,
under either condition."""
