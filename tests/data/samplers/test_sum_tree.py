"""The sum tree against sums and searches done the plain way."""

from __future__ import annotations

import pytest
import torch

from torchrl_gtp.data.samplers import SumTree


def brute_find(masses, position):
    return torch.searchsorted(masses.cumsum(0), position, right=True)


@pytest.mark.parametrize("capacity", [1, 2, 3, 5, 8, 100, 1000])
def test_updates_and_finds_agree_with_brute_force(capacity):
    generator = torch.Generator().manual_seed(capacity)
    tree, masses = SumTree(capacity), torch.zeros(capacity, dtype=torch.float64)
    assert tree.total == 0
    for _ in range(20):
        index = torch.randint(capacity, (17,), generator=generator)
        # Multiples of 1/4 sum without rounding, so that both sides must agree exactly.
        mass = torch.randint(0, 9, (17,), generator=generator) / 4
        tree.update(index, mass)
        for i, value in zip(index.tolist(), mass.tolist(), strict=True):
            masses[i] = value  # the last of equal indices counts
        assert torch.equal(tree.masses, masses)
        assert tree.total == masses.sum()
        assert torch.equal(tree[index], masses[index])
        if masses.sum() > 0:
            position = torch.rand(50, dtype=torch.float64, generator=generator) * masses.sum()
            assert torch.equal(tree.find(position), brute_find(masses, position))


def test_borders_never_give_an_index_without_mass():
    """Positions on or beyond a border, as rounding makes them, find the mass beside it."""
    tree = SumTree(5)
    tree.update(torch.tensor([1, 3]), torch.tensor([0.1, 0.2]))
    total = tree.total
    position = torch.stack([total * 0, total / 3, total, total * (1 + 1e-15)])
    assert set(tree.find(position).tolist()) <= {1, 3}
    assert tree.find(position)[0] == 1 and tree.find(position)[-1] == 3


def test_no_drift_over_many_updates():
    generator = torch.Generator().manual_seed(0)
    tree = SumTree(1000)
    for scale in (1e12, 1.0, 1e-12):
        for _ in range(100):
            index = torch.randint(1000, (64,), generator=generator)
            tree.update(index, scale * torch.rand(64, dtype=torch.float64, generator=generator))
    tree.update(torch.arange(1000), torch.full((1000,), 1e-9, dtype=torch.float64))
    assert tree.total.item() == pytest.approx(1e-6, rel=1e-13)


def test_draws_follow_the_masses():
    tree, masses = SumTree(6), torch.tensor([0.0, 1.0, 2.0, 0.0, 3.0, 4.0])
    tree.update(torch.arange(6), masses)
    index = tree.sample(100_000, torch.Generator().manual_seed(0))
    share = torch.bincount(index, minlength=6) / 100_000
    torch.testing.assert_close(share, masses / 10, atol=0.006, rtol=0)  # 4 standard deviations
    assert share[0] == share[3] == 0
    assert torch.equal(index, tree.sample(100_000, torch.Generator().manual_seed(0)))


def test_empty_batches_and_bad_capacity():
    tree = SumTree(3)
    tree.update(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    assert tree.sample(0).shape == (0,)
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        SumTree(0)
