"""Draws of transitions by their advantage weight."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import torch
from tensordict import NestedKey
from torch import Tensor
from torchrl.data.replay_buffers import Storage
from torchrl.data.replay_buffers.samplers import Sampler

from torchrl_gtp.data.samplers.indices import flat_index
from torchrl_gtp.data.samplers.weight_table import WeightTable

__all__ = ["AdvantageWeightedSampler"]

_FILE = "advantage_weighted_sampler.pt"


class AdvantageWeightedSampler(Sampler):
    r"""Draws transitions, with replacement, in proportion to a power of their advantage weight.

    Advantage-weighted losses minimise ``mean_i w_i l_i`` over the N transitions of a buffer. The
    weight may stand in the loss, in the draws, or in both: with its share ``alpha`` transition i
    is drawn with probability

    ``p_i = w_i^alpha / S``, where ``S = sum_j w_j^alpha``,

    and the sampler emits for it what is left for the loss,

    ``c_i = w_i / (N p_i) = w_i^(1 - alpha) S / N``    (entry ``remaining_weight``).

    So for every alpha the mean of ``c_i l_i`` over a batch has the same expectation,

    ``E[c l] = sum_i p_i c_i l_i = sum_i p_i (w_i / (N p_i)) l_i = mean_i w_i l_i``,

    without a constant in front (a transition of weight 0, which for alpha > 0 is never drawn,
    adds 0 on both sides). With alpha = 0 draws are uniform and ``c_i = w_i``; with alpha = 1 all
    ``c_i`` are the mean weight. A loss that computes its weights anew takes the entry
    ``sampling_weight`` ``r_i = 1 / (N p_i)`` instead: ``E[r v l] = mean_i v_i l_i`` for any
    ``v`` that is 0 wherever ``w`` is. The losses of this package do so where they find it; to
    use the stored weights alone, clone with ``GTPLoss(actor)`` after
    ``loss.set_keys(sampling_weight="remaining_weight")``.

    Weights are set by :meth:`update_weight`, or through the buffer with
    ``buffer.update_priority(batch["index"], batch["advantage_weight"])``, where the second entry is
    what :class:`~torchrl_gtp.GTPLoss` wrote: call this, and not
    ``buffer.update_tensordict_priority``, which ignores samplers that do not derive from
    TorchRL's ``PrioritizedSampler``. A transition that is new, or that overwrites another, has
    ``default_weight`` until then; data that carry their weight under the ``priority_key`` of a
    :class:`~torchrl.data.TensorDictReplayBuffer` have it at once.

    Staleness: a weight is as old as the last update of its transition. With ``remaining_weight``
    the loss minimises the mean with those old weights; with ``sampling_weight`` and fresh
    weights in the loss old ones cost variance, but no bias.

    The sampler lives on the CPU, grows with its storage and may be used from several threads.

    Args:
        alpha (float): the share of the weight in the draws, in [0, 1]; settable, at a cost of
            ``O(N)``. Defaults to ``1.0``.

    Keyword Args:
        default_weight (float): weight of transitions not yet updated, positive. Defaults to
            ``1.0``, the weight of a transition without advantage.
        remaining_weight_key (NestedKey): entry of the batch for ``c_i`` [B]. Defaults to
            ``"remaining_weight"``.
        sampling_weight_key (NestedKey): entry of the batch for ``r_i`` [B]. Defaults to
            ``"sampling_weight"``.

    Raises:
        ValueError: if ``alpha`` or ``default_weight`` is out of range.

    Examples:
        >>> from tensordict import TensorDict
        >>> from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
        >>> buffer = TensorDictReplayBuffer(
        ...     storage=LazyTensorStorage(100),
        ...     sampler=AdvantageWeightedSampler(alpha=0.5),
        ...     batch_size=4,
        ... )
        >>> _ = buffer.extend(TensorDict({"observation": torch.randn(3, 2)}, [3]))
        >>> buffer.update_priority(torch.tensor([0, 1, 2]), torch.tensor([0.0, 1.0, 4.0]))
        >>> batch = buffer.sample()
        >>> batch["remaining_weight"].shape, bool((batch["index"] > 0).all())
        (torch.Size([4]), True)
    """

    _shape: tuple[int, ...] | None

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        default_weight: float = 1.0,
        remaining_weight_key: NestedKey = "remaining_weight",
        sampling_weight_key: NestedKey = "sampling_weight",
    ) -> None:
        if not 0.0 < default_weight < float("inf"):
            raise ValueError(f"default_weight must be finite and positive, got {default_weight}.")
        self.default_weight = default_weight
        self.remaining_weight_key = remaining_weight_key
        self.sampling_weight_key = sampling_weight_key
        self._table = WeightTable(alpha)
        self._lock = threading.RLock()
        self._empty()

    @property
    def alpha(self) -> float:
        """The share of the weight in the draws."""
        return self._table.alpha

    @alpha.setter
    def alpha(self, value: float) -> None:
        with self._lock:
            self._table.alpha = value

    @property
    def default_priority(self) -> float:
        """What TorchRL calls ``default_weight``."""
        return self.default_weight

    @property
    def weights(self) -> Tensor:
        """A copy of the weights, shape [N], ``float64``."""
        with self._lock:
            self._reset_overwritten()
            return self._table.weights

    def sample(self, storage: Storage, batch_size: int) -> tuple[Any, dict[NestedKey, Any]]:
        """Draws the indices of a batch.

        Args:
            storage (Storage): the storage of the buffer.
            batch_size (int): the number B of transitions.

        Returns:
            tuple: the indices [B] (a tuple of them for a storage of several dimensions), and the
            entries ``remaining_weight_key`` and ``sampling_weight_key``, [B].

        Raises:
            RuntimeError: if the storage is empty, or all weights are 0.
        """
        with self._lock:
            self._follow(storage)
            if self._table.size == 0:
                raise RuntimeError("The replay buffer is empty: add transitions before sampling.")
            if self._table.total == 0:
                raise RuntimeError(
                    f"All {self._table.size} weights are 0, so that no transition can be drawn "
                    f"with alpha={self.alpha}. Set positive weights with update_weight, or alpha=0."
                )
            index, weight, importance = self._table.sample(batch_size, self._rng)
        dtype = torch.get_default_dtype()
        info = {
            self.remaining_weight_key: (weight * importance).to(dtype),
            self.sampling_weight_key: importance.to(dtype),
        }
        if storage.ndim > 1:
            return torch.unravel_index(index, storage.shape), info
        return index, info

    def update_weight(
        self,
        index: int | Tensor | tuple[Tensor, ...],
        weight: float | Tensor,
        *,
        storage: Storage | None = None,
    ) -> None:
        """Sets the weights of transitions; of an index given twice the last weight counts.

        Args:
            index (int, Tensor or tuple of Tensor): indices [B], or [B, D] for a storage of D
                dimensions. -1 stands for a transition that was not stored, and is left out.
            weight (float or Tensor): finite, non-negative weights: one, or one for each index.
            storage (Storage, optional): the storage, as the buffer gives it. Without it only
                transitions that the sampler knows from an earlier call can be meant.

        Raises:
            ValueError: if a weight is negative or not finite, or their number does not fit.
            IndexError: if an index is out of range.
        """
        if isinstance(index, tuple):
            index = torch.stack(index, -1)
        values = torch.as_tensor(weight).detach().to("cpu", torch.float64).reshape(-1)
        if not bool((values.isfinite() & (values >= 0)).all()):
            bad = values[~(values.isfinite() & (values >= 0))][0].item()
            raise ValueError(f"weights must be finite and at least 0, got {bad} among them.")
        with self._lock:
            if storage is not None:
                self._follow(storage)
            else:
                self._reset_overwritten()
            flat = flat_index(index, self._shape)
            if values.numel() not in (1, flat.numel()):
                raise ValueError(
                    f"weight must be one number or one for each of the {flat.numel()} indices, "
                    f"got the shape {tuple(torch.as_tensor(weight).shape)}."
                )
            values, stored = values.expand(flat.shape), flat != -1
            flat, values = flat[stored], values[stored]
            if flat.numel() and not (flat.min() >= 0 and flat.max() < self._table.size):
                bad = flat[(flat < 0) | (flat >= self._table.size)][0].item()
                raise IndexError(
                    f"index {bad} is out of range: the sampler knows {self._table.size} "
                    "transitions. buffer.update_priority(index, weight) tells it about new ones."
                )
            self._table.set(flat, values)

    def update_priority(
        self,
        index: int | Tensor | tuple[Tensor, ...],
        priority: float | Tensor,
        *,
        storage: Storage | None = None,
    ) -> None:
        """Does what :meth:`update_weight` does; ``buffer.update_priority`` calls it."""
        self.update_weight(index, priority, storage=storage)

    def mark_update(self, index: int | Tensor, *, storage: Storage | None = None) -> None:
        """Gives transitions the default weight, because their data were changed."""
        self.update_weight(index, self.default_weight, storage=storage)

    def add(self, index: int | Tensor) -> None:
        """Notes that a transition was written; the buffer calls it."""
        self.extend(torch.as_tensor(index))

    def extend(self, index: Tensor) -> None:
        """Notes that transitions were written; the buffer calls it."""
        with self._lock:
            # Collected, because many buffers add transition by transition between two batches.
            self._written.append(index)

    def state_dict(self) -> dict[str, Any]:
        """Returns the weights and settings that a checkpoint needs."""
        with self._lock:
            return {
                "weights": self.weights,
                "alpha": self.alpha,
                "default_weight": self.default_weight,
                "shape": self._shape,
            }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what :meth:`state_dict` returned."""
        with self._lock:
            self._empty()
            self.default_weight = float(state_dict["default_weight"])
            self.alpha = float(state_dict["alpha"])
            weights = torch.as_tensor(state_dict["weights"])
            self._table.resize(weights.numel(), self.default_weight)
            self._table.set(torch.arange(weights.numel()), weights)
            self._shape = None if state_dict["shape"] is None else tuple(state_dict["shape"])

    def dumps(self, path: str | os.PathLike[str]) -> None:
        """Writes the state to a folder."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.state_dict(), folder / _FILE)

    def loads(self, path: str | os.PathLike[str]) -> None:
        """Reads the state from a folder."""
        self.load_state_dict(torch.load(Path(path) / _FILE, weights_only=True))

    def _empty(self) -> None:
        with self._lock:
            self._table = WeightTable(self.alpha)
            self._written: list[Tensor] = []
            self._shape = None

    def _follow(self, storage: Storage) -> None:
        """Takes notice of what was written and of how long the storage is now."""
        self._reset_overwritten()
        self._shape = tuple(storage.shape) if storage.ndim > 1 and len(storage) else None
        self._table.resize(len(storage), self.default_weight)

    def _reset_overwritten(self) -> None:
        written, self._written = self._written, []
        size = self._table.size
        if size == 0 or not written:
            return  # what is new gets its weight from _follow
        index = torch.cat([flat_index(index, self._shape) for index in written])
        index = index[(index >= 0) & (index < size)]
        self._table.set(index, torch.tensor(self.default_weight))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())
