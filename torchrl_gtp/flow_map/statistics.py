"""Statistics of the data that a flow map is scaled by."""

from __future__ import annotations

from torch import Tensor

__all__ = ["action_scale"]


def action_scale(action: Tensor, floor: float = 0.01) -> Tensor:
    """Computes the standard deviation of each action dimension, for ``sigma_data``.

    The losses read no tensor on the host, so they cannot refuse bad actions; this does, once.

    Args:
        action (Tensor): the actions of the data [..., A].
        floor (float): the smallest scale, positive: a dimension that never changes has a standard
            deviation of 0, by which nothing can be divided. Defaults to ``0.01``.

    Returns:
        Tensor: the scales [A], as ``make_gtp_actor(..., sigma_data=...)`` takes them.

    Raises:
        ValueError: if an action is not finite, if there is none, or if ``floor`` is not positive.

    Examples:
        >>> import torch
        >>> action_scale(torch.tensor([[-1.0, 0.5], [1.0, 0.5]]))
        tensor([1.0000, 0.0100])
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
    return rows.std(0, correction=0).clamp_min(floor)
