"""The measures of the few-step benchmark on distributions where their values are known."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.few_step.measures import (
    best_of_error,
    energy_distance,
    grouped_energy_distance,
    grouped_mean_distance,
    grouped_planar_energy_distance,
    grouped_sliced_wasserstein,
    mean_distance,
    mode_statistics,
    planar_energy_distance,
    sliced_wasserstein,
)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_energy_distance_of_shifted_gaussians_follows_the_closed_form():
    shift, num_samples = 1.5, 4_000
    first = torch.randn(num_samples, 1)
    second = torch.randn(num_samples, 1) + shift
    # |X - Y| is a folded normal with mean `shift` and variance 2, |X - X'| one with mean 0.
    folded = 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4) + shift * math.erf(shift / 2)
    exact = 2 * folded - 2 * 2 / math.sqrt(math.pi)
    assert energy_distance(first, second).item() == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("dim", [1, 3, 28])
def test_energy_distance_is_that_of_all_pairs(dim):
    first, second = torch.randn(70, dim), 0.5 + torch.randn(45, dim)
    between, *within = (
        (one.double().unsqueeze(1) - other.double()).norm(dim=-1).mean()
        for one, other in ((first, second), (first, first), (second, second))
    )
    expected = (2 * between - sum(within)).item()
    assert energy_distance(first, second).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("num_points", [1, 15, 16, 33, 70])
def test_mean_distance_is_that_of_all_pairs_in_both_orders(num_points):
    points = torch.randn(num_points, 2)
    expected = (points.double().unsqueeze(1) - points.double()).norm(dim=-1).mean()
    assert mean_distance(points).item() == pytest.approx(expected.item(), abs=1e-6)


def test_the_mean_distance_within_the_data_may_be_given():
    group = torch.tensor([0, 1]).repeat(30)
    first, second = torch.randn(60, 2), torch.randn(60, 2)
    known = grouped_mean_distance(second, group)
    expected = grouped_energy_distance(first, second, group)
    assert torch.equal(grouped_energy_distance(first, second, group, known), expected)
    # It is what is read, for each group.
    lower = grouped_energy_distance(first, second, group, known + torch.tensor([0.5, 0.25]))
    torch.testing.assert_close(lower, expected - 0.375)


def test_groups_are_measured_one_by_one():
    group = torch.tensor([1, 0, 2]).repeat(20)
    first, second = torch.randn(60, 3), torch.randn(60, 3)
    for grouped, single in (
        (grouped_energy_distance, energy_distance),
        (grouped_sliced_wasserstein, sliced_wasserstein),
    ):
        each = [single(first[group == one], second[group == one]) for one in range(3)]
        torch.testing.assert_close(grouped(first, second, group), torch.stack(each).mean())
    each = [mean_distance(first[group == one]) for one in range(3)]
    torch.testing.assert_close(grouped_mean_distance(first, group), torch.stack(each))


def test_groups_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"same size, got \[1, 2\]"):
        grouped_energy_distance(torch.zeros(3, 2), torch.zeros(3, 2), torch.tensor([0, 1, 1]))


@pytest.mark.parametrize("measure", [grouped_energy_distance, grouped_sliced_wasserstein])
def test_points_without_a_group_are_refused(measure):
    group = torch.tensor([0, 0, 1, 1])
    with pytest.raises(ValueError, match="each of the 8 points, got 4"):
        measure(torch.zeros(4, 2), torch.zeros(8, 2), group)


def test_energy_distance_of_points_of_different_dimensions():
    with pytest.raises(ValueError, match="must have the same dimension"):
        energy_distance(torch.randn(5, 3), torch.randn(5, 2))


def test_energy_distance_is_never_negative_and_zero_for_the_same_points():
    points = torch.randn(200, 3)
    assert energy_distance(points, points).item() == pytest.approx(0, abs=1e-6)
    assert all(energy_distance(torch.randn(50, 2), torch.randn(50, 2)) > 0 for _ in range(20))


def test_energy_distance_of_two_draws_is_its_noise_floor():
    num_samples = 400
    floor = torch.stack(
        [
            energy_distance(torch.randn(num_samples, 1), torch.randn(num_samples, 1))
            for _ in range(100)
        ]
    ).mean()
    # E|X - X'| = 2 / sqrt(pi) for standard normal variables.
    assert floor.item() == pytest.approx(2 * 2 / math.sqrt(math.pi) / num_samples, rel=0.3)


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_sliced_wasserstein_of_a_shift(dim):
    points, shift = torch.randn(500, dim), torch.full((dim,), 0.5)
    distance = sliced_wasserstein(points, points[torch.randperm(500)] + shift, 4_000)
    # A random direction keeps 1 / dim of the squared length of the shift, on average.
    assert distance.item() == pytest.approx(0.5, rel=0.05)


def test_groups_are_compared_one_by_one():
    group = torch.tensor([0, 1]).repeat_interleave(300)
    first = torch.randn(600, 2) + 3.0 * group.unsqueeze(-1)
    swapped = first.flip(0)
    for grouped, whole in (
        (grouped_energy_distance, energy_distance),
        (grouped_sliced_wasserstein, sliced_wasserstein),
    ):
        assert whole(first, swapped) < 1e-3
        assert grouped(first, swapped, group) > 1
        halves = (whole(first[:300], swapped[:300]) + whole(first[300:], swapped[300:])) / 2
        torch.testing.assert_close(grouped(first, swapped, group), halves)


def test_share_on_modes_and_modes_covered():
    modes = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    points = modes[0][torch.randint(3, (20_000,))] + 0.05 * torch.randn(20_000, 2)
    share, covered = mode_statistics(points, modes, 0.15, torch.zeros(20_000))
    assert share.item() == pytest.approx(1 - math.exp(-4.5), abs=0.003)
    assert covered == 3
    # A mode with 6 % of its fair share of a third is not covered.
    rare = (points - modes[0, 2]).norm(dim=-1) < 0.2
    kept = points[~rare | (torch.rand(20_000) < 0.06)]
    share, covered = mode_statistics(kept, modes, 0.15, torch.zeros(len(kept)))
    assert covered == 2
    share, covered = mode_statistics(kept + 0.3, modes, 0.15, torch.zeros(len(kept)))
    assert share < 0.01 and covered == 0


def test_modes_of_another_condition_do_not_count():
    modes = torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]]])
    samples = torch.zeros(10, 2)
    group = torch.tensor([0] * 6 + [1] * 4)
    share, covered = mode_statistics(samples, modes, 0.15, group)
    assert share == 0.5 and covered == 0.5


def test_best_of_several_samples_takes_the_least_error_of_each_row():
    action = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    samples = torch.stack([action + 1.0, action + torch.tensor([[0.2], [3.0]])])
    assert best_of_error(samples, action).item() == pytest.approx((0.04 + 1.0) / 2)


@pytest.mark.parametrize("sizes", [(400, 400), (300, 500)])
def test_distances_in_the_plane_from_projections_are_those_of_all_pairs(sizes):
    torch.manual_seed(0)
    first, second = (torch.randn(3, size, 2) for size in sizes)
    second = 0.5 * second + 0.3
    exact, projected = energy_distance(first, second), planar_energy_distance(first, second)
    assert torch.allclose(projected, exact, rtol=1e-3)


def test_more_directions_come_nearer():
    first, second = torch.zeros(5, 2), torch.tensor([[3.0, 4.0]])
    errors = [
        abs(planar_energy_distance(first, second, number).item() - 10) for number in (8, 32, 512)
    ]
    assert 0.1 > errors[0] > 4 * errors[1] > 16 * errors[2]


def test_distances_from_projections_by_group():
    first, second = torch.randn(2, 40, 2)
    group = torch.tensor([0, 1]).repeat(20)
    by_hand = [planar_energy_distance(first[i::2], second[i::2]) for i in (0, 1)]
    expected = torch.stack(by_hand).mean()
    assert torch.allclose(grouped_planar_energy_distance(first, second, group), expected)


def test_projections_are_of_the_plane():
    with pytest.raises(ValueError, match=r"points in the plane.*\(5, 3\)"):
        planar_energy_distance(torch.zeros(5, 3), torch.zeros(5, 3))
