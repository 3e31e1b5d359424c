"""What no loss can do while it trains: to refuse data that are not finite."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey, unravel_key
from torch import Tensor
from torchrl.data import ReplayBuffer
from torchrl.objectives.common import LossModule

__all__ = ["check_finite"]

# Entries are read in parts: those of a dataset on disk need not fit into memory.
_PART = 2**16


def check_finite(
    data: TensorDictBase | ReplayBuffer,
    keys: Iterable[NestedKey] | None = None,
    *,
    mask: Tensor | None = None,
) -> None:
    """Refuses data that hold NaN or infinity, once and before training.

    A loss reads no tensor on the host, so it cannot: one such row makes its value NaN, and the
    next step of the optimiser all weights.

    Args:
        data (TensorDictBase or ReplayBuffer): the transitions; of a replay buffer all that it
            holds, as stored. Rows are those of the batch size.
        keys (iterable of NestedKey, optional): the entries to check. Defaults to ``None``: all
            that are floating-point tensors.

    Keyword Args:
        mask (Tensor, optional): boolean mask of the rows that count, of the batch size. Defaults
            to ``None``: all of them.

    Raises:
        ValueError: if a value is not finite. The message names the entries and counts the rows.
        KeyError: if ``keys`` names an entry that is missing.
        TypeError: if ``data`` is neither of both.

    Examples:
        >>> from tensordict import TensorDict
        >>> action = torch.tensor([[0.1, 0.2], [float("nan"), 0.3]])
        >>> data = TensorDict({"observation": torch.zeros(2, 4), "action": action}, [2])
        >>> check_finite(data, keys=["observation"])
        >>> check_finite(data)
        Traceback (most recent call last):
        ...
        ValueError: data must be finite, but 'action' is not in 1 of 2 rows, the first at 1...
    """
    data = _stored(data)
    found = []
    for key in data.keys(True, True) if keys is None else keys:
        entry = data.get(key, default=None)
        if entry is None:
            raise KeyError(
                f"keys names the entry {key!r}, which data lacks; it has "
                f"{sorted(map(str, data.keys(True, True)))}."
            )
        if not isinstance(entry, Tensor) or not entry.is_floating_point():
            continue
        bad = _rows_that_are_not_finite(entry, data.batch_dims)
        if mask is not None:
            bad &= mask
        where = bad.nonzero()
        if len(where):
            first = ", ".join(map(str, where[0].tolist()))
            found.append(
                f"{key!r} is not in {len(where)} of {bad.numel()} rows, the first at {first}"
            )
    if found:
        raise ValueError(
            f"data must be finite, but {'; '.join(found)}. One such row turns all weights into "
            "nan: drop these rows, or put numbers in their place."
        )


def check_what_is_read(data: TensorDictBase, loss_module: LossModule) -> None:
    """Refuses rows of a dataset [N] that are not finite where a loss reads them.

    It reads neither what a mask excludes nor padded actions, nor the next observation beyond a true
    end, which may be a placeholder.

    Args:
        data (TensorDictBase): the dataset, on the loss's device.
        loss_module (LossModule): the loss.

    Raises:
        ValueError: as :func:`check_finite`.
    """
    nowhere = torch.zeros(len(data), dtype=torch.bool, device=next(loss_module.parameters()).device)

    def rows_with(key: NestedKey | None, value: bool) -> Tensor:
        entry = None if key is None else data.get(key, default=None)
        return nowhere if entry is None else (entry == value).reshape(len(data), -1).any(-1)

    keys = loss_module.tensor_keys
    masked = nowhere.clone()
    for key in loss_module._loss_mask_keys():
        masked |= rows_with(key, False)
    ended = rows_with(unravel_key(("next", getattr(keys, "terminated", "terminated"))), True)
    padded = rows_with(getattr(keys, "pad_mask", None), True)
    actions = {getattr(keys, name, None) for name in ("action", "policy_action")}
    read = [unravel_key(key) for key in loss_module.in_keys]
    for key in read:
        if data.get(key, default=None) is None:
            continue
        unread = masked
        if isinstance(key, tuple) and key[0] == "next" and unravel_key(key[1:]) in read:
            unread = masked | ended
        elif key in actions:
            unread = masked | padded
        check_finite(data, [key], mask=~unread)


def _stored(data: TensorDictBase | ReplayBuffer) -> TensorDictBase:
    if isinstance(data, ReplayBuffer):
        if not len(data):
            raise ValueError("data is a replay buffer that holds nothing yet: fill it first.")
        rows = data.storage[:]
        # A list storage has an object for each row.
        is_list = isinstance(rows, list) and all(isinstance(row, TensorDictBase) for row in rows)
        data = torch.stack(rows) if is_list else rows
    if not isinstance(data, TensorDictBase):
        raise TypeError(
            "data must be a tensordict, or a replay buffer of tensordicts; got "
            f"{type(data).__name__}."
        )
    return data


def _rows_that_are_not_finite(entry: Tensor, batch_dims: int) -> Tensor:
    batch, event = entry.shape[:batch_dims], entry.shape[batch_dims:]
    parts = entry.reshape(batch.numel(), event.numel()).split(_PART)
    return torch.cat([~part.isfinite().all(-1) for part in parts]).reshape(batch)
