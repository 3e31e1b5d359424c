"""The episodes of a dataset as one tensordict of transitions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Bounded

from torchrl_gtp.data.checks import ActionBoundsCheck, check_episode
from torchrl_gtp.data.spaces import concatenate
from torchrl_gtp.data.success import steps_to_success

if TYPE_CHECKING:
    from minari import EpisodeData, MinariDataset


def read_transitions(
    dataset: MinariDataset,
    keys: tuple[NestedKey, ...],
    action_spec: Bounded,
    *,
    clip_actions: bool = False,
    cut_after_success: bool = False,
    folder: Path | None = None,
) -> tuple[TensorDictBase, Tensor]:
    """Reads all episodes, one after the other.

    Args:
        dataset (MinariDataset): the dataset.
        keys (tuple of NestedKey): what the observation vector is made of, from
            :func:`~torchrl_gtp.data.spaces.select_observation_keys`.
        action_spec (Bounded): the bounds of the actions, shape ``[A]``.
        clip_actions (bool, optional): whether actions are clipped to them. Defaults to ``False``.
        cut_after_success (bool, optional): whether an episode ends, terminated, with its first
            success. Defaults to ``False``.
        folder (Path, optional): where memory-mapped files go. Defaults to none: the transitions
            stay in memory.

    Returns:
        the transitions as :func:`~torchrl_gtp.data.load_minari` describes them, batch size
        ``[N]``, and the returns of the episodes as they were read, shape ``[num_episodes]``.

    Raises:
        ValueError: if an episode is damaged, an action is out of bounds, or a reward does not fit
            ``cut_after_success``.
    """
    num_steps = _steps_until_success(dataset) if cut_after_success else dataset.total_steps
    data: TensorDictBase | None = None
    returns: list[Tensor] = []
    bounds = ActionBoundsCheck(action_spec)
    stop = 0
    for episode in dataset.iterate_episodes():
        number = int(episode.id)
        observations = torch.from_numpy(concatenate(episode.observations, keys))
        actions = torch.from_numpy(np.array(episode.actions, dtype=np.float32))
        rewards = _rewards(episode)
        check_episode(dataset.id, number, observations, actions, rewards)
        terminated = torch.from_numpy(np.array(episode.terminations, dtype=bool).reshape(-1, 1))
        truncated = torch.from_numpy(np.array(episode.truncations, dtype=bool).reshape(-1, 1))
        if cut_after_success:
            kept = steps_to_success(rewards, dataset.id, number)
            observations, actions, rewards = (
                observations[: kept + 1],
                actions[:kept],
                rewards[:kept],
            )
            terminated, truncated = terminated[:kept], truncated[:kept]
            reached = rewards[-1:].unsqueeze(-1) == 1
            terminated[-1:] |= reached
            truncated[-1:] &= ~reached
        if clip_actions:
            actions = actions.clamp(action_spec.space.low, action_spec.space.high)
        bounds.add(actions, number)

        start, stop = stop, stop + len(rewards)
        if stop > num_steps:
            break
        if data is None:
            data = _allocate(num_steps, observations.shape[-1], actions.shape[-1], folder)
        # Data that were cut end here without a flag; the next row belongs to another episode.
        truncated[-1:] |= ~terminated[-1:]
        rows = slice(start, stop)
        data["observation"][rows] = observations[:-1]
        data["action"][rows] = actions
        data["episode"][rows] = number
        data["next", "observation"][rows] = observations[1:]
        data["next", "reward"][rows] = rewards.unsqueeze(-1)
        data["next", "terminated"][rows] = terminated
        data["next", "truncated"][rows] = truncated
        data["next", "done"][rows] = terminated | truncated
        returns.append(rewards.double().sum())
    bounds.raise_if_any(dataset.id)
    if data is None or stop != num_steps:
        raise ValueError(
            f"dataset {dataset.id!r} is damaged: its metadata promise {num_steps} steps,"
            f" but its episodes hold {'more' if stop > num_steps else stop}. Fetch or "
            "make it again."
        )
    return data, torch.stack(returns).float()


def _steps_until_success(dataset: MinariDataset) -> int:
    # A pass of its own: how much to allocate, in memory or on disk, depends on every episode.
    episodes = dataset.iterate_episodes()
    return sum(steps_to_success(_rewards(each), dataset.id, int(each.id)) for each in episodes)


def _rewards(episode: EpisodeData) -> Tensor:
    return torch.from_numpy(np.array(episode.rewards, dtype=np.float32).reshape(-1))


def _allocate(
    num_steps: int, observation_dim: int, action_dim: int, folder: Path | None
) -> TensorDictBase:
    flag = torch.zeros(1, 1, dtype=torch.bool)
    flags = {"done": flag, "terminated": flag, "truncated": flag}
    row = TensorDict(
        {
            "observation": torch.zeros(1, observation_dim),
            "action": torch.zeros(1, action_dim),
            "episode": torch.zeros(1, dtype=torch.int64),
            **flags,
            "next": {
                "observation": torch.zeros(1, observation_dim),
                "reward": torch.zeros(1, 1),
                **flags,
            },
        },
        batch_size=[1],
    ).expand(num_steps)
    # An expanded tensor takes no memory; both calls below allocate each entry once.
    return row.clone() if folder is None else row.memmap_like(folder)
