"""The advantage weights of value-guided cloning."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["advantage_weight", "exponential_weight", "masked_mean", "masked_std"]


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
    weight = torch.ones_like(values) if importance is None else importance
    if mask is not None:
        values, weight = torch.where(mask, values, 0.0), torch.where(mask, weight, 0.0)
    sums = torch.stack([weight.sum(), (weight * values).sum()])
    sums = sums if sum_parts is None else sum_parts(sums)
    return sums[1] / sums[0].clamp_min(torch.finfo(values.dtype).tiny)


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
    weight = torch.ones_like(values) if importance is None else importance
    if mask is not None:
        values, weight = torch.where(mask, values, 0.0), torch.where(mask, weight, 0.0)
    sums = torch.stack([weight.sum(), (weight * values).sum()])
    sums = sums if sum_parts is None else sum_parts(sums)
    # An empty mask has no deviation: the smallest divisor keeps it at 0.
    total = sums[0].clamp_min(torch.finfo(values.dtype).tiny)
    squares = (weight * (values - sums[1] / total).square()).sum()
    squares = squares if sum_parts is None else sum_parts(squares)
    return (squares / total).sqrt()


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
    ``eta = 0`` gives 1 everywhere, which is behaviour cloning. There is no upper bound: where all
    advantages of a batch are equal and positive (a batch of one, say) the weight overflows to
    ``inf``; ``clamp_max`` bounds it.

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
    """
    advantage = advantage.detach()
    scale = masked_std(advantage, mask, importance, sum_parts=sum_parts) + eps
    positive = advantage.clamp_min(0)
    if mask is not None:
        positive = torch.where(mask, positive, 0.0)
    return (eta * positive / scale).exp()


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
        Tensor: weights of the shape of ``advantage``, without gradient and without upper bound.

    Examples:
        >>> exponential_weight(torch.tensor([-1.0, 0.0, 1.0]), eta=2.0)
        tensor([0.1353, 1.0000, 7.3891])
    """
    advantage = advantage.detach()
    if mask is not None:
        advantage = torch.where(mask, advantage, 0.0)
    return (eta * advantage).exp()
