"""A point-mass maze with one fixed goal, after D4RL's maze2d, on gymnasium-robotics' physics."""

from __future__ import annotations

import importlib.util
import os
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

_has_sim = all(
    importlib.util.find_spec(name) is not None for name in ("gymnasium_robotics", "mujoco")
)

MazeName = Literal["umaze", "medium", "large"]

# D4RL's target cells (row, column) of maze2d-*-v1; gymnasium-robotics has the same three maps.
GOAL_CELLS: dict[str, tuple[int, int]] = {"umaze": (1, 1), "medium": (6, 6), "large": (7, 9)}
# D4RL's time limits.
MAX_EPISODE_STEPS: dict[str, int] = {"umaze": 300, "medium": 600, "large": 800}
# The distance that gymnasium-robotics' PointMaze counts as success (D4RL: 0.5).
GOAL_RADIUS = 0.45
# Half-width of the uniform noise on the start position, gymnasium-robotics' default.
START_NOISE = 0.25

_WALL = 1


def _check_maze(maze: str) -> None:
    if maze not in get_args(MazeName):
        raise ValueError(f"maze must be one of {list(get_args(MazeName))}, got {maze!r}.")


class FixedGoalPointMaze(gym.Env):
    """PointMaze with one fixed goal that is not part of the observation.

    A ball of 4.2 kg is pushed through a maze of unit cells by a force along x and y. The simulated
    model is gymnasium-robotics' ``PointEnv`` in its ``U_MAZE``, ``MEDIUM_MAZE`` or ``LARGE_MAZE``
    map (10 ms a step, speed clipped to 5 a second in each direction); the task is D4RL's maze2d:
    an episode starts at rest in a uniformly random free cell other than the goal's, at most
    0.25 from its centre in x and in y, and the reward is 1 at each step that ends within
    0.45 of the goal (gymnasium-robotics' radius; D4RL takes 0.5), else 0. The goal is the centre
    of cell (1, 1) in umaze, (6, 6) in medium and (7, 9) in large, as in D4RL. An episode never
    terminates; the time limit in :func:`point_maze_spec` truncates it.

    * observation: ``[x, y, vx, vy]``, ``Box(4)`` of ``float32``;
    * action: the force along x and y in [-1, 1], ``Box(2)`` of ``float32``;
    * ``info["success"]``: whether the ball is within 0.45 of the goal now.

    Args:
        maze (str, optional): ``"umaze"``, ``"medium"`` or ``"large"``. Defaults to ``"umaze"``.
        render_mode (str, optional): ``"human"``, ``"rgb_array"`` or ``"depth_array"``. Defaults
            to ``None``, no rendering.

    Attributes:
        maze: gymnasium-robotics' ``Maze``: ``maze_map`` (rows of 0, free, and 1, wall) and
            ``cell_rowcol_to_xy``.
        free_cells: the free cells ``(row, column)``, row by row.
        goal_cell: the goal's cell.
        goal: the goal's position, ``ndarray`` of shape ``[2]``.

    Raises:
        ValueError: if ``maze`` is unknown.
        ImportError: if the simulator is missing.

    Reference: Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning",
    https://arxiv.org/abs/2004.07219.

    Examples:
        >>> from torchrl_gtp.envs import FixedGoalPointMaze
        >>> env = FixedGoalPointMaze("umaze")
        >>> observation, info = env.reset(seed=0)
        >>> observation.shape, info
        ((4,), {'success': False})
        >>> print(env.goal)
        [-1.  1.]
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (gymnasium's own annotation)
        "render_modes": ["human", "rgb_array", "depth_array"],
        "render_fps": 100,
    }

    def __init__(self, maze: MazeName = "umaze", render_mode: str | None = None) -> None:
        _check_maze(maze)
        if not _has_sim:
            raise ImportError(
                "FixedGoalPointMaze needs gymnasium-robotics and mujoco: "
                'pip install "torchrl_gtp[sim]".'
            )
        import gymnasium_robotics
        from gymnasium_robotics.envs.maze import maps
        from gymnasium_robotics.envs.maze.maze_v4 import Maze
        from gymnasium_robotics.envs.maze.point import PointEnv

        maze_map = {
            "umaze": maps.U_MAZE,
            "medium": maps.MEDIUM_MAZE,
            "large": maps.LARGE_MAZE,
        }[maze]
        package = os.path.dirname(gymnasium_robotics.__file__)
        # make_maze leaves its XML in the temporary folder: it is removed once it is compiled.
        self.maze, xml_path = Maze.make_maze(
            agent_xml_path=os.path.join(package, "envs", "assets", "point", "point.xml"),
            maze_map=maze_map,
            maze_size_scaling=1,
            maze_height=0.4,
        )
        try:
            self._point = PointEnv(
                xml_file=xml_path,
                render_mode=render_mode,
                default_camera_config={"distance": 12.5 if len(maze_map) > 8 else 8.8},
            )
        finally:
            os.remove(xml_path)

        self.goal_cell = GOAL_CELLS[maze]
        self.goal: np.ndarray = self.maze.cell_rowcol_to_xy(np.array(self.goal_cell))
        self.free_cells = [
            (row, column)
            for row, cells in enumerate(maze_map)
            for column, cell in enumerate(cells)
            if cell != _WALL
        ]
        self._start_cells = [cell for cell in self.free_cells if cell != self.goal_cell]
        self._point.model.site("target").pos[:2] = self.goal

        self.render_mode = render_mode
        self.action_space = self._point.action_space
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, shape=(4,), dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Puts the ball at rest in a random free cell.

        Args:
            seed (int, optional): seeds the environment's own random generator.
            options (dict, optional): not used.

        Returns:
            the observation and the info.
        """
        super().reset(seed=seed)
        cell = self._start_cells[self.np_random.integers(len(self._start_cells))]
        centre = self.maze.cell_rowcol_to_xy(np.array(cell))
        self._point.init_qpos[:2] = centre + self.np_random.uniform(-START_NOISE, START_NOISE, 2)
        state, _ = self._point.reset()
        return state.astype(np.float32), {"success": self._at_goal(state)}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Applies one force for 10 ms.

        Args:
            action (ndarray): the force, shape ``[2]``; clipped to [-1, 1].

        Returns:
            observation, reward, ``False`` (never terminated), ``False`` and the info.
        """
        state, *_ = self._point.step(action)
        success = self._at_goal(state)
        return state.astype(np.float32), float(success), False, False, {"success": success}

    def _at_goal(self, state: np.ndarray) -> bool:
        return bool(np.linalg.norm(state[:2] - self.goal) <= GOAL_RADIUS)

    def render(self) -> Any:
        """Renders the scene in the mode that the constructor got."""
        return self._point.render()

    def close(self) -> None:
        """Frees the renderer."""
        self._point.close()


def point_maze_spec(maze: MazeName = "umaze") -> EnvSpec:
    """Returns the ``EnvSpec`` from which ``gymnasium.make`` builds the maze with its time limit.

    The spec needs no registration and can be written as JSON, so a Minari dataset that carries it
    gives the environment back in any process that can import this package.

    Args:
        maze (str, optional): ``"umaze"``, ``"medium"`` or ``"large"``; episodes of 300, 600 and
            800 steps. Defaults to ``"umaze"``.

    Returns:
        the ``EnvSpec``.

    Raises:
        ValueError: if ``maze`` is unknown.

    Examples:
        >>> import gymnasium as gym
        >>> from torchrl_gtp.envs import point_maze_spec
        >>> env = gym.make(point_maze_spec("umaze"))
        >>> env.spec.max_episode_steps
        300
    """
    _check_maze(maze)
    return EnvSpec(
        id=f"gtp/PointMaze-{maze}-v0",
        entry_point="torchrl_gtp.envs.point_maze:FixedGoalPointMaze",
        max_episode_steps=MAX_EPISODE_STEPS[maze],
        disable_env_checker=True,
        kwargs={"maze": maze},
    )
