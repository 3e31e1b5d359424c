"""The environment: any of Gymnasium's with a vector observation and bounded continuous actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torchrl.envs import ActionScaling, Compose, DoubleToFloat, EnvBase, GymWrapper, TransformedEnv


def check_env(env_id: str, kwargs: Mapping[str, Any]) -> int | None:
    """Check that an environment fits, and give its time limit.

    Args:
        env_id: Gymnasium's id.
        kwargs: arguments of the environment.

    Returns:
        the steps after which it cuts an episode, ``None`` if it never does.

    Raises:
        ValueError: if the observation is no vector, or the actions are not bounded numbers.

    Example:
        >>> check_env("Pendulum-v1", {})
        200
    """
    env = gym.make(env_id, **kwargs)
    observations, actions = env.observation_space, env.action_space
    limit = env.spec.max_episode_steps if env.spec is not None else None
    env.close()
    if not isinstance(observations, Box) or len(observations.shape) != 1:
        raise ValueError(
            f"env.id={env_id} has the observations {observations}: this recipe's networks read one "
            "vector, a one-dimensional Box. Choose another environment."
        )
    if not isinstance(actions, Box) or len(actions.shape) != 1:
        raise ValueError(
            f"env.id={env_id} has the actions {actions}: a diffusion policy makes vectors of "
            "continuous numbers, a one-dimensional Box. Choose another environment."
        )
    if not np.isfinite([actions.low, actions.high]).all():
        raise ValueError(
            f"env.id={env_id} has the actions {actions} without bounds: actions that move uphill "
            "in Q would not stop. Choose an environment whose low and high are finite."
        )
    return limit


def make_env(env_id: str, kwargs: Mapping[str, Any], num_envs: int) -> EnvBase:
    """Make a batch of environments, stepped one after the other in this process.

    Observations and rewards are ``float32``; the bounds of the actions are -1 and 1.

    Args:
        env_id: Gymnasium's id.
        kwargs: arguments of the environment.
        num_envs: how many; the batch size is ``[num_envs]``, also for one.

    Example:
        >>> env = make_env("Pendulum-v1", {}, num_envs=2)
        >>> env.rollout(3)["observation"].shape, env.action_spec_unbatched.space.high
        (torch.Size([2, 3, 3]), tensor([1.]))
    """
    vector = SyncVectorEnv(
        [lambda: gym.make(env_id, **kwargs)] * num_envs, autoreset_mode=AutoresetMode.DISABLED
    )
    return TransformedEnv(GymWrapper(vector), Compose(DoubleToFloat(), ActionScaling()))
