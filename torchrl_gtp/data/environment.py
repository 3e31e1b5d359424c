"""The environment of a dataset, with the observation made as in the replay buffer."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from tensordict import TensorDictBase
from torchrl.data import Categorical, TensorSpec
from torchrl.envs import (
    CatTensors,
    Compose,
    DoubleToFloat,
    EnvBase,
    ExcludeTransform,
    GymWrapper,
    ObservationNorm,
    RemoveEmptySpecs,
    Transform,
    TransformedEnv,
)
from torchrl.envs.gym_like import BaseInfoDictReader

from torchrl_gtp.data.metadata import MinariMetadata
from torchrl_gtp.data.spaces import OBSERVATION

_SUCCESS = "success"


class _SuccessReader(BaseInfoDictReader):
    """Writes ``info["success"]`` of a vector of environments as ``bool [num_envs, 1]``."""

    def __init__(self, num_envs: int) -> None:
        self._spec = Categorical(2, shape=(num_envs, 1), dtype=torch.bool)

    def __call__(self, info_dict: dict[str, Any], tensordict: TensorDictBase) -> TensorDictBase:
        success = info_dict.get(_SUCCESS)
        if success is None:
            return tensordict.set(_SUCCESS, self._spec.zero())
        flags = np.asarray(success, dtype=bool).reshape(self._spec.shape)
        return tensordict.set(_SUCCESS, torch.from_numpy(flags))

    @property
    def info_spec(self) -> dict[str, TensorSpec]:
        return {_SUCCESS: self._spec}


def make_minari_env(
    metadata: MinariMetadata, num_envs: int = 1, seed: int | None = None
) -> EnvBase:
    """Makes the evaluation environment of a dataset as a batched TorchRL environment.

    ``"observation"`` is made as in the dataset's replay buffer: the same parts in the same order,
    ``float32``, normalised with the same numbers. No other part of the observation is kept. Where
    the environment reports ``info["success"]`` (after a reset or a step), it is read into
    ``("next", "success")``, ``bool`` of shape ``[num_envs, 1]``; elsewhere that entry is missing.

    The environments are stepped one after the other in this process by gymnasium's
    ``SyncVectorEnv`` without auto-reset, which takes a third of the time of
    :class:`~torchrl.envs.SerialEnv`. Run it with ``env.rollout(steps, policy,
    break_when_any_done=False)``: an environment whose episode ends is reset at once, so take the
    steps up to the first ``("next", "done")`` of each for one episode each
    (``break_when_all_done=True`` is not possible). The environment lives on the CPU; for a policy
    elsewhere add ``auto_cast_to_device=True``.

    Args:
        metadata (MinariMetadata): ``buffer.metadata``.
        num_envs (int, optional): number of environments; the batch size is ``[num_envs]``, also for
            one. Defaults to 1.
        seed (int, optional): the i-th environment is seeded with ``seed + i``. Defaults to none.

    Returns:
        the environment.

    Raises:
        ValueError: if ``num_envs`` is below 1 or the dataset names no environment.
        ImportError: if the environment's simulator is missing.

    Examples:
        >>> import os, tempfile
        >>> from torchrl_gtp.data import load_minari, make_minari_env, make_point_maze_dataset
        >>> os.environ["MINARI_DATASETS_PATH"] = tempfile.mkdtemp()
        >>> _ = make_point_maze_dataset("umaze", num_steps=500)
        >>> metadata = load_minari("gtp/pointmaze/umaze-v0").metadata
        >>> env = make_minari_env(metadata, num_envs=3, seed=0)
        >>> rollout = env.rollout(10, break_when_any_done=False)
        >>> rollout["observation"].shape, rollout["next", "success"].shape
        (torch.Size([3, 10, 4]), torch.Size([3, 10, 1]))
    """
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
    spec = metadata.env_spec
    if spec is None:
        raise ValueError(
            f"dataset {metadata.dataset_id!r} names no environment (env_spec): evaluation needs "
            "one that you make yourself."
        )
    try:
        vector = SyncVectorEnv(
            [lambda: gym.make(spec)] * num_envs, autoreset_mode=AutoresetMode.DISABLED
        )
    except (ImportError, gym.error.DependencyNotInstalled) as err:
        raise ImportError(
            f"the environment {spec.id!r} of dataset {metadata.dataset_id!r} needs a package that "
            f'is missing ({err}). For most environments: pip install "torchrl_gtp[sim]".'
        ) from err
    env = GymWrapper(vector)
    kept = [OBSERVATION]
    if _reports_success(vector.envs[0]):
        env.set_info_dict_reader(_SuccessReader(num_envs))
        kept.append(_SUCCESS)
    if seed is not None:
        env.set_seed(seed)

    # Without keys: casts whatever the environment has in float64, the action included.
    transforms: list[Transform] = [DoubleToFloat()]
    keys = list(metadata.observation_keys)
    if keys != [OBSERVATION]:
        transforms.append(CatTensors(keys, OBSERVATION, sort=False, del_keys=False))
    leaves = env.observation_spec.keys(include_nested=True, leaves_only=True)
    others = [key for key in leaves if key not in kept]
    if others:
        transforms.append(ExcludeTransform(*others))
    if any(isinstance(key, tuple) for key in others):
        transforms.append(RemoveEmptySpecs())
    if metadata.observation_loc is not None:
        transforms.append(
            ObservationNorm(
                metadata.observation_loc,
                metadata.observation_scale,
                in_keys=[OBSERVATION],
                standard_normal=True,
            )
        )
    return TransformedEnv(env, Compose(*transforms))


def _reports_success(env: gym.Env) -> bool:
    _, info = env.reset()
    if _SUCCESS not in info:
        # Some environments report it from the first step on.
        *_, info = env.step(np.zeros_like(env.action_space.sample()))
    return _SUCCESS in info
