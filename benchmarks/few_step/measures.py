"""How far samples are from data."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "best_of_error",
    "energy_distance",
    "grouped_energy_distance",
    "grouped_mean_distance",
    "grouped_planar_energy_distance",
    "grouped_sliced_wasserstein",
    "mean_distance",
    "mode_statistics",
    "planar_energy_distance",
    "sliced_wasserstein",
]

# A mode counts as covered if it gets this share of the samples that it should get.
_COVERED_SHARE = 0.2
# Distances that are computed at once: they fit into the cache of a CPU, or keep a GPU busy.
_DISTANCES_AT_ONCE = {"cpu": 200_000, "cuda": 50_000_000}


def energy_distance(first: Tensor, second: Tensor, within_second: Tensor | None = None) -> Tensor:
    """Computes the energy distance ``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` of two samples.

    It is that of the two empirical distributions, so never negative but by rounding; two draws of
    N points from one distribution are about ``2 E|X - X'| / N`` apart.

    Args:
        first (Tensor): points [..., N, A].
        second (Tensor): points [..., M, A].
        within_second (Tensor, optional): :func:`mean_distance` of ``second``, where many samples
            are compared with the same. Defaults to ``None``: it is computed.

    Returns:
        Tensor: the distances [...], without gradient.

    Raises:
        ValueError: if the points have different dimensions.

    Examples:
        >>> energy_distance(torch.zeros(5, 2), torch.tensor([[3.0, 4.0]]))
        tensor(10.)
    """
    if first.shape[-1] != second.shape[-1]:
        raise ValueError(
            "first and second must have the same dimension, got the shapes "
            f"{tuple(first.shape)} and {tuple(second.shape)}."
        )
    if within_second is None:
        within_second = mean_distance(second)
    within = mean_distance(first) + within_second
    return (2 * _mean_distance_between(first, second) - within).to(first.dtype)


@torch.no_grad()
def mean_distance(points: Tensor) -> Tensor:
    """Computes the mean distance ``E|X - X'|`` of all pairs, a point with itself among them.

    Args:
        points (Tensor): points [..., N, A].

    Returns:
        Tensor: the means [...], of double precision.

    Examples:
        >>> mean_distance(torch.tensor([[0.0], [1.0]]))
        tensor(0.5000, dtype=torch.float64)
    """
    coordinates = points.mT.contiguous()
    size = _rows_at_once(points, points)
    sums = []
    # Each pair once, but those within a block in both orders.
    for start in range(0, points.shape[-2], size):
        block = points[..., start : start + size, :]
        distances = _distances(block, coordinates[..., start:])
        own = distances[..., : block.shape[-2]]
        sums.append(2 * distances.sum((-2, -1)) - own.sum((-2, -1)))
    return torch.stack(sums).sum(0, dtype=torch.float64) / points.shape[-2] ** 2


@torch.no_grad()
def _mean_distance_between(first: Tensor, second: Tensor) -> Tensor:
    coordinates = second.mT.contiguous()
    blocks = first.split(_rows_at_once(first, second), dim=-2)
    sums = [_distances(block, coordinates).sum((-2, -1)) for block in blocks]
    return torch.stack(sums).sum(0, dtype=torch.float64) / (first.shape[-2] * second.shape[-2])


def _rows_at_once(first: Tensor, second: Tensor) -> int:
    groups = max(math.prod(points.shape[:-2]) for points in (first, second))
    return max(1, _DISTANCES_AT_ONCE[first.device.type] // (groups * second.shape[-2]))


def _distances(block: Tensor, coordinates: Tensor) -> Tensor:
    """Distances [..., B, M] of points [..., B, A] to points [..., A, M]."""
    # By way of scalar products, as in `cdist` of many points, small distances would be lost in
    # rounding; and its exact mode is several times slower.
    square = (block[..., :1] - coordinates[..., :1, :]).square_()
    for dim in range(1, coordinates.shape[-2]):
        square += (block[..., dim : dim + 1] - coordinates[..., dim : dim + 1, :]).square_()
    return square.sqrt_()


def planar_energy_distance(first: Tensor, second: Tensor, num_directions: int = 32) -> Tensor:
    """Computes :func:`energy_distance` in the plane from projections, for many points.

    A distance in the plane is pi / 2 times the mean, over all directions, of the distance of the
    projections; and the energy distance on a line is twice the integral of the squared difference
    of both distribution functions (Szekely and Rizzo 2013). So sorting takes the place of all pairs
    of points: a hundred thousand take a second. Evenly spaced directions err little, because the
    mean over them is smooth where the points are spread.

    Args:
        first (Tensor): points [..., N, 2].
        second (Tensor): points [..., M, 2], with the same leading dimensions.
        num_directions (int): number of directions. Defaults to ``32``.

    Returns:
        Tensor: the distances [...], without gradient.

    Raises:
        ValueError: if the points are not in the plane.

    Examples:
        >>> first, second = torch.randn(2, 500, 2)
        >>> all_pairs = energy_distance(first, second)
        >>> bool((planar_energy_distance(first, second) - all_pairs).abs() < 1e-5)
        True
    """
    if (first.shape[-1], second.shape[-1]) != (2, 2):
        raise ValueError(
            "first and second must be points in the plane, got the shapes "
            f"{tuple(first.shape)} and {tuple(second.shape)}."
        )
    angle = torch.arange(num_directions, device=first.device) * (math.pi / num_directions)
    directions = torch.stack([angle.cos(), angle.sin()], dim=-1).to(first.dtype)
    first, second = first.detach(), second.detach()
    return (
        math.pi / 2 * _line_energy_distance(directions @ first.mT, directions @ second.mT).mean(-1)
    )


def _line_energy_distance(first: Tensor, second: Tensor) -> Tensor:
    """The energy distance of points [..., N] and [..., M] on a line."""
    num_first, num_second = first.shape[-1], second.shape[-1]
    points, order = torch.cat([first, second], dim=-1).sort(-1)
    is_first = order < num_first
    steps = torch.where(is_first, 1 / num_first, -1 / num_second).double()
    difference = steps.cumsum(-1)[..., :-1]
    squares = (difference.square() * points.diff(dim=-1)).sum(-1)
    return (2 * squares).to(first.dtype)


def sliced_wasserstein(first: Tensor, second: Tensor, num_projections: int = 128) -> Tensor:
    """Computes the sliced 2-Wasserstein distance of two samples of equal size.

    The root of the mean, over fixed random directions, of the squared 2-Wasserstein distance of
    the projections (Bonneel et al. 2015).

    Args:
        first (Tensor): points [..., N, A].
        second (Tensor): points [..., N, A].
        num_projections (int): number of directions. Defaults to ``128``.

    Returns:
        Tensor: the distances [...].

    Examples:
        >>> points = torch.randn(100, 1)
        >>> round(sliced_wasserstein(points, points + 0.5).item(), 4)
        0.5
    """
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(first.shape[-1], num_projections, generator=generator)
    directions = (directions / directions.norm(dim=0)).to(first.device)
    difference = (first @ directions).sort(-2).values - (second @ directions).sort(-2).values
    return difference.square().mean((-2, -1)).sqrt()


def grouped_energy_distance(
    first: Tensor, second: Tensor, group: Tensor, within_second: Tensor | None = None
) -> Tensor:
    """Computes the mean over groups of :func:`energy_distance`.

    Args:
        first (Tensor): points [N, A].
        second (Tensor): points [N, A].
        group (Tensor): the group of each row [N], of both; all groups have the same size.
        within_second (Tensor, optional): :func:`grouped_mean_distance` of ``second``. Defaults to
            ``None``: it is computed.

    Returns:
        Tensor: the mean, a scalar.

    Raises:
        ValueError: if the groups differ in size, or a set has other points than ``group``.
    """
    return energy_distance(_by_group(first, group), _by_group(second, group), within_second).mean()


def grouped_mean_distance(points: Tensor, group: Tensor) -> Tensor:
    """Computes :func:`mean_distance` of each group, [G]; as :func:`grouped_energy_distance`."""
    return mean_distance(_by_group(points, group))


def grouped_planar_energy_distance(first: Tensor, second: Tensor, group: Tensor) -> Tensor:
    """Computes the mean of :func:`planar_energy_distance`; as :func:`grouped_energy_distance`."""
    return planar_energy_distance(_by_group(first, group), _by_group(second, group)).mean()


def grouped_sliced_wasserstein(first: Tensor, second: Tensor, group: Tensor) -> Tensor:
    """Computes the mean of :func:`sliced_wasserstein`; as :func:`grouped_energy_distance`."""
    return sliced_wasserstein(_by_group(first, group), _by_group(second, group)).mean()


def _by_group(points: Tensor, group: Tensor) -> Tensor:
    """The points [G, N / G, A] of each group."""
    if len(points) != len(group):
        raise ValueError(
            f"group must have an entry for each of the {len(points)} points, got {len(group)}."
        )
    sizes = group.unique(return_counts=True)[1]
    if (sizes != sizes[0]).any():
        raise ValueError(f"group must have groups of the same size, got {sizes.tolist()}.")
    return points[group.argsort(stable=True)].unflatten(0, (len(sizes), -1))


def mode_statistics(
    samples: Tensor,
    modes: Tensor,
    radius: float,
    group: Tensor,
    mode_share: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Computes the share of samples on a mode, and how many modes are covered.

    A mode is covered if at least a fifth of the samples that it should get are on it.

    Args:
        samples (Tensor): points [N, A].
        modes (Tensor): centres of the modes of each group [G, M, A], further apart than two
            radii.
        radius (float): a sample is on a mode within this distance of its centre.
        group (Tensor): the group of each sample [N].
        mode_share (Tensor, optional): the share of the samples that each mode [M] should get.
            Defaults to equal ones.

    Returns:
        tuple of Tensor: the share in [0, 1], and the mean over groups of the number of modes
        covered.

    Examples:
        >>> modes, group = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]]), torch.zeros(4)
        >>> samples = torch.tensor([[0.0, 0.1], [0.0, 0.0], [0.0, 0.0], [0.5, 0.0]])
        >>> mode_statistics(samples, modes, 0.15, group)
        (tensor(0.7500), tensor(1.))
    """
    shares, covered = [], []
    for one, centres in zip(group.unique(), modes, strict=True):
        points = samples[group == one]
        on_mode = torch.cdist(points, centres) <= radius
        shares.append(on_mode.any(-1).float().mean())
        share = 1 / len(centres) if mode_share is None else mode_share
        needed = _COVERED_SHARE * len(points) * share
        covered.append((on_mode.sum(0) >= needed).float().sum())
    return torch.stack(shares).mean(), torch.stack(covered).mean()


def best_of_error(samples: Tensor, action: Tensor) -> Tensor:
    """Computes the mean squared error of the best of several samples.

    Args:
        samples (Tensor): samples [S, N, A], S for each condition.
        action (Tensor): the data's action under the same condition [N, A].

    Returns:
        Tensor: the mean over N of the least, over S, mean squared error over A.

    Examples:
        >>> best_of_error(torch.tensor([[[0.0]], [[2.0]]]), torch.tensor([[1.5]]))
        tensor(0.2500)
    """
    return (samples - action).square().mean(-1).amin(0).mean()
