"""The advantage weights of value-guided cloning."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from torchrl_gtp.flow_map.precision import at_least_single

__all__ = ["advantage_weight", "exponential_weight", "masked_mean", "masked_std"]

# The standard deviation of equal numbers is a few roundings of their size, not 0.
_ROUNDING = 8


def masked_mean(
    values: Tensor,
    mask: Tensor | None = None,
    importance: Tensor | None = None,
    *,
    sum_parts: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Computes the mean over all valid entries, a scalar tensor; 0 if there is none.

    Args:
        values (Tensor): values of any shape; entries that are masked out may be non-finite.
        mask (Tensor, optional): as in :func:`masked_std`.
        importance (Tensor, optional): as in :func:`masked_std`.
        sum_parts (callable, optional): as in :func:`masked_std`.

    Examples:
        >>> masked_mean(torch.tensor([1.0, 3.0, float("nan")]), torch.tensor([True, True, False]))
        tensor(2.)
    """
    if mask is None and importance is None and sum_parts is None:
        return values.mean()
    # Sums over a batch leave the range of half precision.
    values, dtype = at_least_single(values), values.dtype
    weight = torch.ones_like(values) if importance is None else at_least_single(importance)
    if mask is not None:
        values, weight = torch.where(mask, values, 0.0), torch.where(mask, weight, 0.0)
    sums = torch.stack([weight.sum(), (weight * values).sum()])
    sums = sums if sum_parts is None else sum_parts(sums)
    return (sums[1] / sums[0].clamp_min(torch.finfo(values.dtype).tiny)).to(dtype)


def masked_std(
    values: Tensor,
    mask: Tensor | None = None,
    importance: Tensor | None = None,
    *,
    sum_parts: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Computes the population standard deviation over all valid entries, a scalar tensor.

    Args:
        values (Tensor): values of any shape; entries that are masked out may be non-finite.
        mask (Tensor, optional): boolean mask of valid entries, of the shape of ``values``.
        importance (Tensor, optional): non-negative weights of the entries, of the shape of
            ``values``.
        sum_parts (callable, optional): maps a tensor of sums over these values to the sums over
            all parts of a batch that is split, over processes for instance. Defaults to none:
            the values are the whole batch.

    Examples:
        >>> masked_std(torch.tensor([1.0, 3.0, float("nan")]), torch.tensor([True, True, False]))
        tensor(1.)
    """
    if mask is None and importance is None and sum_parts is None:
        return values.std(correction=0)
    # Sums over a batch leave the range of half precision.
    values, dtype = at_least_single(values), values.dtype
    weight = torch.ones_like(values) if importance is None else at_least_single(importance)
    if mask is not None:
        values, weight = torch.where(mask, values, 0.0), torch.where(mask, weight, 0.0)
    sums = torch.stack([weight.sum(), (weight * values).sum()])
    sums = sums if sum_parts is None else sum_parts(sums)
    # An empty mask has no deviation: the smallest divisor keeps it at 0.
    total = sums[0].clamp_min(torch.finfo(values.dtype).tiny)
    squares = (weight * (values - sums[1] / total).square()).sum()
    squares = squares if sum_parts is None else sum_parts(squares)
    return (squares / total).sqrt().to(dtype)


def advantage_weight(
    advantage: Tensor,
    eta: Tensor | float,
    *,
    eps: float = 1e-6,
    mask: Tensor | None = None,
    importance: Tensor | None = None,
    sum_parts: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Computes the weight ``w = exp(eta * max(0, A) / (std(A) + eps))`` (paper, eq. 10).

    The standard deviation is that of the untruncated advantages of the batch. So ``w >= 1``, and
    ``eta = 0`` gives 1 everywhere, which is behaviour cloning. Finite advantages give finite
    weights, in contrast to the formula as printed:

    * Where all advantages of a batch are equal but for rounding (a batch of one, say), there is
      nothing to prefer and the weight is 1.
    * Where they are nearly equal and positive, the exponent is arbitrarily large. It is bounded by
      half of that at which the dtype overflows, so that the weight times an error is finite too:
      by 44.4, a weight of 1.8e19, in single precision. ``clamp_max`` gives a bound that training
      can use.

    Args:
        advantage (Tensor): advantages ``A = Q(o, a) - V(o)``, of any shape.
        eta (Tensor or float): how sharply the weight follows the advantage, non-negative.
        eps (float): keeps the division finite. Defaults to ``1e-6``.
        mask (Tensor, optional): boolean mask of valid entries; the others get weight 1.
        importance (Tensor, optional): weights of the entries in the standard deviation, where
            they were not drawn uniformly.
        sum_parts (callable, optional): as in :func:`masked_std`, for a batch that is split.

    Returns:
        Tensor: weights of the shape of ``advantage``, without gradient.

    Examples:
        >>> advantage_weight(torch.tensor([-1.0, 1.0]), eta=1.0)
        tensor([1.0000, 2.7183])
        >>> advantage_weight(torch.tensor([0.3, 0.3]), eta=1.0)
        tensor([1., 1.])
    """
    advantage = advantage.detach()
    std = masked_std(advantage, mask, importance, sum_parts=sum_parts)
    positive = advantage.clamp_min(0)
    if mask is not None:
        positive = torch.where(mask, positive, 0.0)
    is_rounding = std <= _ROUNDING * torch.finfo(advantage.dtype).eps * positive
    exponent = torch.where(is_rounding, 0.0, eta * positive / (std + eps))
    return _bounded_exp(exponent)


def exponential_weight(
    advantage: Tensor, eta: Tensor | float, *, mask: Tensor | None = None
) -> Tensor:
    """Computes the weight ``w = exp(eta * A)``, which is below 1 where the advantage is negative.

    The policy closest to the behaviour under a KL penalty is ``pi ~ pi_behaviour exp(eta A)``
    (paper, theorem 2), so cloning with this weight is its projection on the policy class. It is
    the weight of AWR (arXiv 1910.00177) and AWAC (arXiv 2006.09359), with ``eta = 1 / beta``, and
    of the policy of IQL (arXiv 2110.06169). In contrast to :func:`advantage_weight` it does not
    truncate negative advantages, and does not divide by their standard deviation: eta has the
    unit of one over the reward.

    Args:
        advantage (Tensor): advantages ``A = Q(o, a) - V(o)``, of any shape.
        eta (Tensor or float): how sharply the weight follows the advantage, non-negative.
        mask (Tensor, optional): boolean mask of valid entries; the others get weight 1.

    Returns:
        Tensor: weights of the shape of ``advantage``, without gradient, and with no upper bound but
        that of :func:`advantage_weight`.

    Examples:
        >>> exponential_weight(torch.tensor([-1.0, 0.0, 1.0]), eta=2.0)
        tensor([0.1353, 1.0000, 7.3891])
    """
    advantage = advantage.detach()
    if mask is not None:
        advantage = torch.where(mask, advantage, 0.0)
    return _bounded_exp(eta * advantage)


def _bounded_exp(exponent: Tensor) -> Tensor:
    """The exponential, where it is at most the root of the largest number of the dtype."""
    return exponent.clamp_max(0.5 * math.log(torch.finfo(exponent.dtype).max)).exp()
