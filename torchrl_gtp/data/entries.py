"""Entries of a replay buffer that change after they were stored."""

from __future__ import annotations

from tensordict import NestedKey, TensorDictBase, is_tensor_collection
from torchrl.data import ReplayBuffer, TensorStorage

__all__ = ["copy_entry", "write_entry"]


def copy_entry(buffer: ReplayBuffer, source: NestedKey, target: NestedKey) -> None:
    """Adds an entry to all transitions of a buffer: a copy of another one.

    So improved actions can be kept beside those of the data, which the critics go on to read. Of
    a memory-mapped buffer the copy is memory-mapped, too. Transitions that are added later must
    bring the entry with them, because what is stored in their place otherwise stays.

    Args:
        buffer (ReplayBuffer): a buffer whose storage is a :class:`~torchrl.data.TensorStorage`,
            which holds something already.
        source (NestedKey): the entry to copy.
        target (NestedKey): the entry to write.

    Raises:
        TypeError: for another storage.
        ValueError: if the buffer is empty.
        KeyError: if there is no ``source``, or a ``target`` already.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
        >>> buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(100), batch_size=4)
        >>> _ = buffer.extend(TensorDict({"action": torch.randn(8, 2)}, [8]))
        >>> copy_entry(buffer, "action", "improved_action")
        >>> buffer.sample()["improved_action"].shape
        torch.Size([4, 2])
    """
    storage = _tensor_storage(buffer)
    data = storage._storage
    present = list(data.keys(True, True))
    if source not in present:
        raise KeyError(f"The buffer has no entry {source!r} to copy, only {present}.")
    if target in present:
        raise KeyError(f"The buffer has an entry {target!r} already: choose another target.")
    if data.is_memmap():
        # Without the clone both entries would be one file.
        data.make_memmap_from_tensor(target, data.get(source).clone())
        # The storage would drop the entry from transitions that are added later.
        storage._storage_keys = None
        return
    was_locked = data.is_locked
    data.unlock_().set(target, data.get(source).clone())
    if was_locked:
        data.lock_()


def write_entry(buffer: ReplayBuffer, batch: TensorDictBase, key: NestedKey) -> None:
    """Writes an entry of a sampled batch back to where the batch was drawn from, in place.

    Samplers and writers take no notice: priorities and the order of replacement stay. Of a
    transition that was drawn twice one of the values is kept, and padding, where the batch has a
    ``("collector", "mask")`` that is ``False``, is not written. Batches that a buffer with
    ``prefetch`` has already drawn hold the old values.

    Args:
        buffer (ReplayBuffer): a buffer whose storage is a :class:`~torchrl.data.TensorStorage`.
        batch (TensorDictBase): a batch [B] of it, or slices [B, T], with the entry ``"index"``
            that :class:`~torchrl.data.TensorDictReplayBuffer` writes: the batch's shape, for a
            storage of D dimensions with D more numbers at the end; with one dimension the slice
            samplers keep that one number, too.
        key (NestedKey): the entry.

    Raises:
        TypeError: for another storage.
        ValueError: if the buffer is empty, or the shape of index or entry does not fit it.
        KeyError: if the batch lacks ``"index"`` or the entry, or the buffer the entry.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
        >>> buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(100), batch_size=4)
        >>> _ = buffer.extend(TensorDict({"action": torch.zeros(8, 2)}, [8]))
        >>> batch = buffer.sample()
        >>> batch["action"] += 1.0
        >>> write_entry(buffer, batch, "action")
        >>> bool((buffer[:]["action"][batch["index"]] == 1).all())
        True
    """
    stored = _tensor_storage(buffer).get(slice(None))
    for name, holder in (("index", batch), (key, batch), (key, stored)):
        if holder.get(name, default=None) is None:
            owner = "batch" if holder is batch else "buffer"
            raise KeyError(
                f"The {owner} has no entry {name!r}, only {list(holder.keys(True, True))}. Batches "
                "of a TensorDictReplayBuffer have an index; copy_entry adds an entry to a buffer."
            )
    entry = stored.get(key)
    index, value = batch.get("index"), batch.get(key)
    dims = stored.batch_dims
    if dims == 1 and index.ndim == batch.batch_dims:
        index = index.unsqueeze(-1)
    shapes = {"index": (*batch.shape, dims), key: (*batch.shape, *entry.shape[dims:])}
    for name, tensor in (("index", index), (key, value)):
        if tensor.shape != shapes[name]:
            raise ValueError(
                f"The entry {name!r} of the batch {tuple(batch.shape)} must have the shape "
                f"{shapes[name]} for a buffer of {dims} dimension(s), whose {key!r} is "
                f"{tuple(entry.shape)}; got {tuple(tensor.shape)}."
            )
    mask = batch.get(("collector", "mask"), default=None)
    if mask is not None:
        # Padding bears the index of a true transition.
        mask = mask.reshape(batch.shape)
        index, value = index[mask], value[mask]
    place = index.to(entry.device).unbind(-1)
    entry[place] = value.detach().to(entry)


def _tensor_storage(buffer: ReplayBuffer) -> TensorStorage:
    storage = buffer.storage
    if not isinstance(storage, TensorStorage):
        raise TypeError(
            f"The storage of the buffer must be a TensorStorage, such as LazyTensorStorage or "
            f"LazyMemmapStorage, whose entries can be written in place; got "
            f"{type(storage).__name__}."
        )
    if not storage.initialized or len(storage) == 0:
        raise ValueError("The buffer is empty: add transitions first.")
    if not is_tensor_collection(storage._storage):
        raise TypeError("The buffer must hold TensorDicts.")
    return storage
