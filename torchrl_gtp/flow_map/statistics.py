"""Statistics of the data that a flow map is scaled by."""

from __future__ import annotations

from torch import Tensor

__all__ = ["action_scale"]


def action_scale(action: Tensor, floor: float = 0.01) -> Tensor:
    """Computes the root mean square of each action dimension, for ``sigma_data``.

    That is its standard deviation where its mean is 0. The preconditioning does not centre the
    actions: for those far from 0 it is the second moment, not the variance, that gives the
    network inputs and targets of unit size.

    The losses read no tensor on the host, so they cannot refuse bad actions; this does, once.

    Args:
        action (Tensor): the actions of the data [..., A].
        floor (float): the smallest scale, positive: nothing can be divided by that of a dimension
            that is always 0. Defaults to ``0.01``.

    Returns:
        Tensor: the scales [A], as ``make_gtp_actor(..., sigma_data=...)`` takes them.

    Raises:
        ValueError: if an action is not finite, if there is none, or if ``floor`` is not positive.

    Examples:
        >>> import torch
        >>> action_scale(torch.tensor([[-1.0, 0.5, 0.0], [1.0, 0.5, 0.0]]))
        tensor([1.0000, 0.5000, 0.0100])
    """
    if not floor > 0.0:
        raise ValueError(f"floor must be positive, got {floor}.")
    if action.ndim < 2 or action.numel() == 0:
        raise ValueError(
            f"action must hold at least one action [..., A], got the shape {tuple(action.shape)}."
        )
    rows = action.flatten(0, -2)
    bad = (~rows.isfinite().all(-1)).nonzero().flatten()
    if bad.numel():
        raise ValueError(
            f"action must be finite, but {bad.numel()} of {rows.shape[0]} actions are not, the "
            f"first at row {bad[0].item()}: {rows[bad[0]].tolist()}. Drop them from the data."
        )
    return rows.square().mean(0).sqrt().clamp_min(floor)
