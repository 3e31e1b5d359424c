"""Minari datasets as TorchRL replay buffers."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor
from torchrl._utils import logger
from torchrl.data import ImmutableDatasetWriter, TensorDictReplayBuffer, TensorStorage
from torchrl.data.replay_buffers import SampleUnit
from torchrl.data.replay_buffers.samplers import Sampler
from torchrl.envs.transforms import Transform

from torchrl_gtp.data.metadata import MinariMetadata
from torchrl_gtp.data.reading import read_transitions
from torchrl_gtp.data.rewards import fit_reward_transform
from torchrl_gtp.data.source import dataset_scores, evaluation_spec, open_dataset
from torchrl_gtp.data.spaces import goals_unseen, make_action_spec, select_observation_keys

# The least standard deviation that an observation is divided by.
MIN_SCALE = 1e-3

_Storage = Literal["ram", "memmap"]


class MinariReplayBuffer(TensorDictReplayBuffer):
    """A replay buffer over a whole dataset, read-only, with the dataset's metadata.

    Made by :func:`load_minari`.

    Args:
        metadata (MinariMetadata): what is known about the dataset.
        **kwargs: as for :class:`~torchrl.data.TensorDictReplayBuffer`.
    """

    def __init__(self, *, metadata: MinariMetadata, **kwargs: Any) -> None:
        super().__init__(writer=ImmutableDatasetWriter(), **kwargs)
        self.metadata = metadata


def load_minari(
    dataset_id: str,
    batch_size: int = 256,
    *,
    observation_keys: Sequence[NestedKey] | None = None,
    storage: Literal["ram", "memmap"] = "ram",
    scratch_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    reward_transform: Callable[[Tensor], Tensor]
    | Literal["standardize", "return_range"]
    | None = None,
    normalize_observations: bool = False,
    clip_actions: bool = False,
    cut_after_success: bool = False,
    env_kwargs: Mapping[str, Any] | None = None,
    reference_scores: tuple[float, float] | None = None,
    sampler: Sampler | None = None,
    sample_unit: SampleUnit | None = None,
    transform: Transform | None = None,
    prefetch: int | None = None,
) -> MinariReplayBuffer:
    """Loads a Minari dataset, local or remote, HDF5 or Arrow, into a replay buffer.

    The buffer holds one entry per transition, all real numbers as ``float32``:

    * ``"observation"`` ``[N, O]``, ``"action"`` ``[N, A]``, ``"episode"`` ``[N]`` (``int64``);
    * ``("next", "observation")`` ``[N, O]``, which at the end of an episode is that episode's own
      last observation, and ``("next", "reward")`` ``[N, 1]``;
    * ``("next", "terminated")``, ``("next", "truncated")`` and their union ``("next", "done")``,
      ``[N, 1]`` (``bool``). An episode that ends with neither (data that were cut) counts as
      truncated at its last step;
    * ``"done"``, ``"terminated"`` and ``"truncated"`` at the root, ``False``, so that online data
      can be added.

    For :class:`~torchrl.data.replay_buffers.SliceSampler` pass ``traj_key="episode"``.

    Args:
        dataset_id (str): Minari id, ``"(namespace/)name-v0"``.
        batch_size (int, optional): transitions per sample. Defaults to 256.
        observation_keys (sequence of NestedKey, optional): the parts of a ``Dict`` observation that
            are concatenated, in this order, on the last axis; the key of a nested ``Dict`` stands
            for all of its leaves. Defaults to ``"observation"`` and ``"desired_goal"`` if there are
            both, to ``"observation"`` if there is that alone, and else to every leaf in the order
            of the space. A warning says if that leaves out what the goal is about, as in AntMaze,
            where the position stands in ``"achieved_goal"`` alone.
        storage (str, optional): ``"ram"`` or ``"memmap"``, memory-mapped files that are filled
            episode by episode. Defaults to ``"ram"``.
        scratch_dir (path, optional): the folder in which those files get a folder of their own;
            it is removed with the buffer or when the process ends. Defaults to the system's
            temporary folder.
        download (bool, optional): fetches a dataset that is not found locally with
            ``minari.load_dataset(..., download=True)``. Defaults to ``True``.
        reward_transform (callable or str, optional): maps the rewards ``[N, 1]`` to others of the
            same shape, for instance :class:`~torchrl_gtp.data.AffineReward`; or the name of a
            transform that is fitted to them, see
            :func:`~torchrl_gtp.data.fit_reward_transform`. ``metadata.reward_transform`` has it,
            ``metadata.behavior_returns`` keeps the raw rewards' sums. Defaults to none.
        normalize_observations (bool, optional): subtracts the mean of ``"observation"`` over the
            dataset and divides by its standard deviation (at least 1e-3), in ``"observation"`` and
            ``("next", "observation")`` alike; ``metadata`` has both. Defaults to ``False``.
        clip_actions (bool, optional): clips actions to their bounds instead of raising an error.
            Defaults to ``False``.
        cut_after_success (bool, optional): drops what comes after the first success of an episode
            (the first reward of 1, before any transform) and marks that step as terminated: for
            sparse rewards of 0 and 1 in data that go on at the goal, like Minari's AntMaze sets.
            Right where the evaluation ends at the goal too, and where no transformed reward before
            it is positive, or delay would pay. ``metadata`` counts and sums what is left.
            Defaults to ``False``.
        env_kwargs (mapping, optional): arguments of the evaluation environment that replace or join
            those of the dataset, for instance ``{"continuing_task": False}`` to end Minari's
            AntMaze at the goal. Defaults to none.
        reference_scores ((float, float), optional): the returns of normalised score 0 and 100 in
            that environment. Defaults to the dataset's own or, if it has none, to D4RL's; but with
            ``cut_after_success``, where a return is 0 or 1, those beyond belong to whole episodes
            and are left out.
        sampler (Sampler, optional): TorchRL sampler. Defaults to uniform sampling with replacement.
        sample_unit (SampleUnit, optional): what each drawn transition expands to; for chunks of
            actions see :func:`~torchrl_gtp.data.action_chunks`. Defaults to that transition.
        transform (Transform, optional): TorchRL transform of the batches. Defaults to none.
        prefetch (int, optional): batches drawn ahead in threads. Defaults to none.

    Returns:
        the buffer; ``buffer.metadata`` is a :class:`~torchrl_gtp.data.MinariMetadata`.

    Raises:
        FileNotFoundError: if the dataset is neither local nor can be downloaded.
        KeyError: if an observation key does not exist.
        TypeError: if the actions are not continuous and bounded, or a chosen observation is not a
            vector (images, text, discrete).
        ValueError: if the dataset is empty or inconsistent, holds a non-finite observation, action
            or reward or actions outside their bounds, if ``cut_after_success`` meets a reward that
            is neither 0 nor 1, if ``env_kwargs`` are given for a dataset without environment, or
            if an argument is out of range.
            In each case nothing is left behind.

    Examples:
        >>> import os, tempfile
        >>> from torchrl_gtp.data import load_minari, make_point_maze_dataset
        >>> os.environ["MINARI_DATASETS_PATH"] = tempfile.mkdtemp()
        >>> _ = make_point_maze_dataset("umaze", num_steps=500)
        >>> buffer = load_minari("gtp/pointmaze/umaze-v0", batch_size=32)
        >>> buffer.sample()["next", "observation"].shape
        torch.Size([32, 4])
        >>> buffer.metadata.num_episodes
        2
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be an integer of at least 1, got {batch_size!r}.")
    if storage not in get_args(_Storage):
        raise ValueError(f"storage must be one of {list(get_args(_Storage))}, got {storage!r}.")
    dataset = open_dataset(dataset_id, download)
    keys = select_observation_keys(dataset.observation_space, observation_keys, dataset_id)
    action_spec = make_action_spec(dataset.action_space, dataset_id)
    env_spec = evaluation_spec(dataset, env_kwargs)
    if dataset.total_steps == 0:
        raise ValueError(f"dataset {dataset_id!r} is empty: it has no step.")

    first = next(iter(dataset.iterate_episodes(dataset.episode_indices[:1])))
    if observation_keys is None and goals_unseen(first.observations, keys):
        logger.warning(
            f"{dataset_id}: the observation {keys} does not contain 'achieved_goal', so that a "
            "policy does not see how far the goal is. To include it pass "
            f"observation_keys={['achieved_goal', *keys]}."
        )

    folder: Path | None = None
    if storage == "memmap":
        folder = Path(tempfile.mkdtemp(prefix="torchrl_gtp-", dir=scratch_dir))
    try:
        data, returns = read_transitions(
            dataset,
            keys,
            action_spec,
            clip_actions=clip_actions,
            cut_after_success=cut_after_success,
            folder=folder,
        )
        if isinstance(reward_transform, str):
            rewards = data["next", "reward"]
            reward_transform = fit_reward_transform(reward_transform, rewards, returns, dataset_id)
        if reward_transform is not None:
            _transform_rewards(data, reward_transform, dataset_id)
        loc, scale = _normalize(data) if normalize_observations else (None, None)
        ref_min, ref_max = reference_scores or dataset_scores(dataset, cut_after_success)
        buffer = MinariReplayBuffer(
            metadata=MinariMetadata(
                dataset_id=dataset_id,
                observation_keys=keys,
                observation_dim=data["observation"].shape[-1],
                action_spec=action_spec,
                observation_loc=loc,
                observation_scale=scale,
                ref_min_score=ref_min,
                ref_max_score=ref_max,
                env_spec=env_spec,
                num_steps=len(data),
                num_episodes=len(returns),
                behavior_returns=returns,
                reward_transform=reward_transform,
            ),
            storage=TensorStorage(data),
            sampler=sampler,
            sample_unit=sample_unit,
            transform=transform,
            batch_size=batch_size,
            prefetch=prefetch,
        )
    except BaseException:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if folder is not None:
        weakref.finalize(buffer, _remove, folder, os.getpid())
    cut = dataset.total_steps - len(data)
    logger.info(
        f"loaded {dataset_id}: {len(data)} steps in {len(returns)} episodes"
        + (f", {cut} steps after a success cut." if cut_after_success else ".")
    )
    return buffer


def _remove(folder: Path, owner: int) -> None:
    # A forked child has a copy of the buffer, but the folder is its parent's.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _transform_rewards(
    data: TensorDictBase, reward_transform: Callable[[Tensor], Tensor], dataset_id: str
) -> None:
    reward = data["next", "reward"]
    transformed = torch.as_tensor(reward_transform(reward.clone()), dtype=reward.dtype)
    if transformed.shape != reward.shape or not transformed.isfinite().all():
        raise ValueError(
            f"reward_transform must map the rewards {tuple(reward.shape)} of {dataset_id!r} to "
            f"finite ones of the same shape, got {tuple(transformed.shape)}."
        )
    reward.copy_(transformed)


def _normalize(data: TensorDictBase) -> tuple[Tensor, Tensor]:
    scale, loc = torch.std_mean(data["observation"], dim=0, correction=0)
    loc, scale = loc.clone(), scale.clamp_min(MIN_SCALE)
    for key in ("observation", ("next", "observation")):
        data[key].sub_(loc).div_(scale)
    return loc, scale
