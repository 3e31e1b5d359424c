"""Chunks of consecutive actions from a replay buffer."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor
from torchrl.data import Sequence
from torchrl.data.replay_buffers import SampleUnit, Storage
from torchrl.envs.transforms import Transform

__all__ = ["ActionChunks", "ChunkTransitions", "action_chunks"]


class ActionChunks(SampleUnit):
    """Expands each drawn transition to the H transitions from there on, [B, H].

    The windows are those of TorchRL's :class:`~torchrl.data.Sequence`: past the end of an episode
    they repeat its last transition. In contrast to it the batch keeps a dimension for the
    windows, so any sampler of transitions serves chunks too, and what the sampler emits stays one
    number for each drawn transition [B].

    The batch also has ``action_is_pad`` [B, H], ``True`` for repeated transitions (the name of
    :class:`~torchrl.envs.transforms.ActionChunkTransform`), and ``anchor_index`` [B], the index
    that was drawn: weights are updated with
    ``buffer.update_priority(batch["anchor_index"], weight)``.

    Args:
        length (int): the number H of transitions.
        done_key (NestedKey): the flag of the end of an episode. Defaults to ``("next", "done")``.
        pad_key (NestedKey): the entry of the mask. Defaults to ``"action_is_pad"``.

    Raises:
        ValueError: if ``length`` is smaller than 1.
    """

    def __init__(
        self,
        length: int,
        *,
        done_key: NestedKey = ("next", "done"),
        pad_key: NestedKey = "action_is_pad",
    ) -> None:
        if length < 1:
            raise ValueError(f"length is the number H of actions in a chunk, >= 1; got {length}.")
        self.length = length
        self.pad_key = pad_key
        self._sequence = Sequence(length, done_key=done_key)

    def expand(
        self, index: Tensor, info: dict[NestedKey, Any], storage: Storage
    ) -> tuple[Tensor, dict[NestedKey, Any]]:
        """Expands indices; the buffer calls it.

        Args:
            index (Tensor): the indices that were drawn [B].
            info (dict): what the sampler emits.
            storage (Storage): the storage.

        Returns:
            tuple: indices [B, H], and ``info`` with the entries above.

        Raises:
            ValueError: if the storage has several dimensions, or the sampler draws slices.
        """
        if isinstance(index, tuple):
            raise ValueError(
                "ActionChunks needs a storage of one dimension (extend the buffer with flat "
                "batches) and a sampler of single transitions, not of slices; got a storage of "
                f"{storage.ndim} dimensions and indices of {len(index)}."
            )
        windows, sequence = self._sequence.expand(index, {}, storage)
        is_pad = ~sequence["validity_mask"].reshape(-1, self.length)
        return windows.reshape(-1, self.length), {
            **info,
            "anchor_index": index,
            self.pad_key: is_pad,
        }


class ChunkTransitions(Transform):
    """Folds windows of transitions [B, H] into transitions with a chunk of actions [B].

    A chunk of n executed actions is one action over n steps: from observation ``o_t`` to
    ``o_{t+n}`` with the reward ``sum_k gamma^k r_{t+k}``, k below n. ``n`` is H or less, where
    the episode ends. In the result

    * the action is [B, H, A]; past the end it repeats the last one;
    * all other root entries are those of the first transition;
    * ``next`` is that of transition n - 1, with the summed reward [B, 1];
    * ``steps_to_next_obs`` [B, 1] is n. TorchRL's value estimators read it: they discount the
      next value by ``gamma^n``.

    Every episode in the buffer must end with ``done``, as those of
    :func:`~torchrl_gtp.data.load_minari` do; the end of an unfinished one is not seen.

    Args:
        gamma (float): the discount, as in the loss, in [0, 1].
        action_key (NestedKey): entry of the action. Defaults to ``"action"``.
        reward_key (NestedKey): entry of the reward in ``next``. Defaults to ``"reward"``.
        done_key (NestedKey): entry of the end in ``next``. Defaults to ``"done"``.

    Raises:
        ValueError: if ``gamma`` is out of range.
    """

    def __init__(
        self,
        gamma: float,
        *,
        action_key: NestedKey = "action",
        reward_key: NestedKey = "reward",
        done_key: NestedKey = "done",
    ) -> None:
        super().__init__()
        if not 0.0 <= gamma <= 1.0:
            raise ValueError(f"gamma is the discount, in [0, 1]; got {gamma}.")
        self.gamma = gamma
        self.action_key = action_key
        self.reward_key = reward_key
        self.done_key = done_key

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Folds a batch.

        Args:
            tensordict (TensorDictBase): windows of transitions, batch size [B, H]. Transitions
                [B], which ``buffer[index]`` gives, stay as they are.

        Returns:
            TensorDictBase: transitions, batch size [B].
        """
        if tensordict.batch_dims < 2:
            return tensordict
        following = tensordict.get("next")
        done = following.get(self.done_key).flatten(2).any(-1)
        # What comes after the end of the episode does not count.
        executed = (done.cumsum(1) - done.long()) == 0
        steps = executed.sum(1)
        reward = following.get(self.reward_key)
        discount = self.gamma ** torch.arange(done.shape[1], device=done.device)
        factor = (executed * discount).to(reward.dtype).unsqueeze(-1)
        rows = torch.arange(len(steps), device=done.device)
        result = tensordict[:, 0]
        result.set(self.action_key, tensordict.get(self.action_key))
        result.set("next", following[rows, steps - 1])
        result.set(("next", self.reward_key), (factor * reward).sum(1))
        return result.set("steps_to_next_obs", steps.unsqueeze(-1))


def action_chunks(
    length: int, gamma: float, *, action_key: NestedKey = "action"
) -> dict[str, ActionChunks | ChunkTransitions]:
    """Returns the arguments that make a replay buffer draw chunks of actions.

    They are ``sample_unit`` and ``transform`` of :func:`~torchrl_gtp.data.load_minari` and of
    TorchRL's :class:`~torchrl.data.TensorDictReplayBuffer`. The batch size stays the number B of
    chunks, and each transition may begin one.

    Args:
        length (int): the number H of actions in a chunk.
        gamma (float): the discount, as in the loss.
        action_key (NestedKey): entry of the action. Defaults to ``"action"``.

    Returns:
        dict: the arguments.

    Examples:
        >>> from tensordict import TensorDict
        >>> from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
        >>> buffer = TensorDictReplayBuffer(
        ...     storage=LazyTensorStorage(6), batch_size=4, **action_chunks(3, gamma=0.9)
        ... )
        >>> done = torch.tensor([False, False, False, False, False, True]).unsqueeze(-1)
        >>> _ = buffer.extend(
        ...     TensorDict(
        ...         {
        ...             "action": torch.zeros(6, 2),
        ...             "next": {"reward": torch.ones(6, 1), "done": done},
        ...         },
        ...         [6],
        ...     )
        ... )
        >>> batch = buffer.sample()
        >>> batch["action"].shape, batch["action_is_pad"].shape, batch["next", "reward"].shape
        (torch.Size([4, 3, 2]), torch.Size([4, 3]), torch.Size([4, 1]))
    """
    return {
        "sample_unit": ActionChunks(length),
        "transform": ChunkTransitions(gamma, action_key=action_key),
    }
