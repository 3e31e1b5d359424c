"""The embedded dataset: a noisy walk to random goals, rewarded for one fixed goal."""

from __future__ import annotations

import functools
import math
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import gymnasium as gym
import minari
import numpy as np
from gymnasium.envs.registration import EnvSpec
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_dataset import parse_dataset_id
from minari.dataset.minari_storage import MinariStorage
from minari.namespace import create_namespace, list_local_namespaces
from minari.storage import get_dataset_path
from torchrl._utils import logger

from torchrl_gtp.data.waypoint_controller import WaypointController
from torchrl_gtp.envs.point_maze import FixedGoalPointMaze, MazeName, point_maze_spec

if TYPE_CHECKING:
    from minari import MinariDataset

# Standard deviation of the Gaussian noise on the force, D4RL's.
ACTION_NOISE = 0.5
# Episodes behind each reference score and the seed of the first one.
REFERENCE_EPISODES = 50
REFERENCE_SEED = 1_000_000
# Steps between two messages of progress.
_REPORT_EVERY = 50_000


def point_maze_settings(
    maze: MazeName, num_steps: int, seed: int, action_noise: float = ACTION_NOISE
) -> dict[str, Any]:
    """Returns what decides the content of a dataset; kept in its metadata as ``"generator"``.

    Args:
        maze (str): ``"umaze"``, ``"medium"`` or ``"large"``.
        num_steps (int): number of steps.
        seed (int): seed.
        action_noise (float): standard deviation of the noise on the force. Defaults to 0.5.

    Examples:
        >>> point_maze_settings("umaze", 1000, 0)["maze"]
        'umaze'
    """
    return {
        "name": "torchrl_gtp.data.make_point_maze_dataset",
        "version": 1,
        "maze": maze,
        "num_steps": num_steps,
        "seed": seed,
        "action_noise": action_noise,
    }


def make_point_maze_dataset(
    maze: MazeName = "umaze",
    num_steps: int = 200_000,
    seed: int = 0,
    dataset_id: str | None = None,
    *,
    action_noise: float = ACTION_NOISE,
    data_format: Literal["hdf5", "arrow"] | None = None,
    overwrite: bool = False,
) -> MinariDataset:
    """Makes an offline dataset of :class:`~torchrl_gtp.envs.FixedGoalPointMaze`.

    After D4RL's maze2d protocol: a waypoint controller with Gaussian noise on its force (standard
    deviation ``action_noise``, the sum clipped to [-1, 1]) walks to a uniformly random free cell;
    when it arrives, the next cell is drawn and the walk goes on, without a reset. The reward is not
    that of the walk but that of the environment: 1 within 0.45 of the one fixed goal, which neither
    the observation nor the walker knows. So cloning the walk does not solve the task.

    The one long walk is stored as episodes that are truncated every 300, 600 or 800 steps (umaze,
    medium, large), none terminated; each begins where the one before it ended, the last one may be
    shorter. The dataset carries the environment's spec, so Minari can recover the environment, and
    two reference scores, each a mean return over 50 episodes of fixed seeds: ``ref_min_score`` of
    uniformly random actions and ``ref_max_score`` of the noise-free controller that walks to the
    goal and stays there.

    Everything is made in memory and written to a hidden folder beside its destination, then
    renamed: a failure or an interruption leaves nothing behind.

    Args:
        maze (str, optional): ``"umaze"``, ``"medium"`` or ``"large"``. Defaults to ``"umaze"``.
        num_steps (int, optional): number of steps. Defaults to 200,000.
        seed (int, optional): seed; the same seed gives the same arrays. Defaults to 0.
        dataset_id (str, optional): Minari id. Defaults to ``f"gtp/pointmaze/{maze}-v0"``.
        action_noise (float, optional): standard deviation of the noise on the force, whose bounds
            are -1 and 1; more noise makes worse data. Defaults to 0.5, as in D4RL.
        data_format (str, optional): ``"hdf5"`` or ``"arrow"``. Defaults to Minari's choice, HDF5.
        overwrite (bool, optional): replaces an existing dataset of that id. Defaults to ``False``.

    Returns:
        the ``MinariDataset``.

    Raises:
        ValueError: if ``maze`` or ``data_format`` is unknown, ``num_steps`` is below 1,
            ``action_noise`` negative or infinite, or ``dataset_id`` malformed.
        FileExistsError: if the id exists and ``overwrite`` is ``False``.
        ImportError: if the simulator is missing.

    Examples:
        >>> import os, tempfile
        >>> os.environ["MINARI_DATASETS_PATH"] = tempfile.mkdtemp()
        >>> dataset = make_point_maze_dataset("umaze", num_steps=700)
        >>> dataset.id, dataset.total_episodes, dataset.total_steps
        ('gtp/pointmaze/umaze-v0', 3, 700)
    """
    spec = point_maze_spec(maze)
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
    if not 0.0 <= action_noise < math.inf:
        raise ValueError(f"action_noise must be finite and at least 0, got {action_noise}.")
    if data_format not in (None, "hdf5", "arrow"):
        raise ValueError(f"data_format must be 'hdf5', 'arrow' or None, got {data_format!r}.")
    if dataset_id is None:
        dataset_id = f"gtp/pointmaze/{maze}-v0"
    destination = _checked_path(dataset_id)
    if destination.exists() and not overwrite:
        raise FileExistsError(
            f"the dataset {dataset_id!r} exists at {destination}: pass overwrite=True to replace "
            "it, or another dataset_id."
        )

    start = time.perf_counter()
    episodes = _walk(maze, num_steps, seed, action_noise)
    ref_min, ref_max = _reference_scores(maze)
    metadata = {
        "dataset_id": dataset_id,
        "minari_version": minari.__version__,
        "eval_env_spec": spec.to_json(),
        "ref_min_score": ref_min,
        "ref_max_score": ref_max,
        "num_episodes_average_score": REFERENCE_EPISODES,
        "algorithm_name": "Waypoint controller with Gaussian noise (D4RL's maze2d)",
        "author": {"torchrl_gtp contributors"},
        "description": (
            f"A ball walks through PointMaze {maze} to random cells without end; the reward is "
            "that of one fixed goal, which is not in the observation."
        ),
        "requirements": ["torchrl_gtp[sim]"],
        "generator": point_maze_settings(maze, num_steps, seed, action_noise),
    }
    _publish(destination, spec, episodes, metadata, data_format)

    rewards = np.concatenate([episode.rewards for episode in episodes])
    logger.info(
        f"{dataset_id}: {num_steps} steps in {len(episodes)} episodes, "
        f"{rewards.mean():.1%} of them rewarded, mean return per {spec.max_episode_steps} steps "
        f"{rewards.mean() * spec.max_episode_steps:.1f}, reference scores {ref_min:.1f} (random) "
        f"and {ref_max:.1f} (controller to the goal), {time.perf_counter() - start:.1f} s."
    )
    return minari.load_dataset(dataset_id)


def _checked_path(dataset_id: str) -> Path:
    try:
        parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as err:  # Minari raises TypeError when the version is missing.
        raise ValueError(
            f"dataset_id must read '(namespace/)name-v0', got {dataset_id!r}."
        ) from err
    return get_dataset_path(dataset_id)


def _walk(maze: MazeName, num_steps: int, seed: int, action_noise: float) -> list[EpisodeBuffer]:
    env = FixedGoalPointMaze(maze)
    # The environment draws its start from `seed` too: another stream keeps them independent.
    rng = np.random.default_rng([seed, 1])
    controller = WaypointController(env.maze, env.free_cells)

    observations = np.empty((num_steps + 1, 4), dtype=np.float32)
    actions = np.empty((num_steps, 2), dtype=np.float32)
    rewards = np.empty(num_steps)
    observations[0], _ = env.reset(seed=seed)

    def draw_goal(observation: np.ndarray) -> None:
        controller.set_goal(observation, env.free_cells[rng.integers(len(env.free_cells))])

    draw_goal(observations[0])
    for step in range(num_steps):
        force = controller(observations[step]) + rng.normal(0.0, action_noise, 2)
        actions[step] = np.clip(force, -1.0, 1.0)
        observations[step + 1], rewards[step], *_ = env.step(actions[step])
        if controller.arrived(observations[step + 1]):
            draw_goal(observations[step + 1])
        if (step + 1) % _REPORT_EVERY == 0:
            logger.info(f"PointMaze {maze}: {step + 1} of {num_steps} steps.")
    env.close()

    length = point_maze_spec(maze).max_episode_steps
    assert length is not None
    episodes: list[EpisodeBuffer] = []
    for first in range(0, num_steps, length):
        last = min(first + length, num_steps)
        truncations = np.zeros(last - first, dtype=bool)
        truncations[-1] = True
        episodes.append(
            EpisodeBuffer(
                id=len(episodes),
                observations=observations[first : last + 1],
                actions=actions[first:last],
                rewards=rewards[first:last],
                terminations=np.zeros(last - first, dtype=bool),
                truncations=truncations,
            )
        )
    return episodes


@functools.cache
def _reference_scores(maze: MazeName) -> tuple[float, float]:
    env = gym.make(point_maze_spec(maze))
    point_maze = env.unwrapped
    assert isinstance(point_maze, FixedGoalPointMaze)
    controller = WaypointController(point_maze.maze, point_maze.free_cells)
    rng = np.random.default_rng(REFERENCE_SEED)

    def mean_return(controlled: bool) -> float:
        total = 0.0
        for episode in range(REFERENCE_EPISODES):
            observation, _ = env.reset(seed=REFERENCE_SEED + episode)
            controller.set_goal(observation, point_maze.goal_cell)
            truncated = False
            while not truncated:
                action = controller(observation) if controlled else rng.uniform(-1.0, 1.0, 2)
                observation, reward, _, truncated, _ = env.step(action)
                total += float(reward)
        return total / REFERENCE_EPISODES

    scores = mean_return(controlled=False), mean_return(controlled=True)
    env.close()
    return scores


def _publish(
    destination: Path,
    spec: EnvSpec,
    episodes: list[EpisodeBuffer],
    metadata: dict[str, Any],
    data_format: str | None,
) -> None:
    root = get_dataset_path()
    # Minari ignores hidden folders; on the same file system a rename is atomic.
    scratch = Path(tempfile.mkdtemp(prefix=".torchrl_gtp-", dir=root))
    try:
        (scratch / "new").mkdir()
        storage = MinariStorage.new(
            scratch / "new" / "data",
            env_spec=spec,
            data_format="hdf5" if data_format is None else data_format,
        )
        storage.update_metadata(metadata)
        storage.update_episodes(episodes)

        namespace, *_ = parse_dataset_id(metadata["dataset_id"])
        if namespace is not None and namespace not in list_local_namespaces():
            create_namespace(namespace)
        if destination.exists():
            os.replace(destination, scratch / "old")
        try:
            os.replace(scratch / "new", destination)
        except BaseException:
            if (scratch / "old").exists():
                os.replace(scratch / "old", destination)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
