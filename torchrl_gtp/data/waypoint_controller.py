"""The controller that walks through a maze of cells: D4RL's planner and its PD law."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gymnasium_robotics.envs.maze.maze_v4 import Maze

Cell = tuple[int, int]

# D4RL's maze2d controller: force = clip(10 (waypoint - position) - velocity, -1, 1).
P_GAIN = 10.0
D_GAIN = -1.0
# Distance at which a waypoint counts as reached.
REACHED = 0.1


def shortest_path(free_cells: Sequence[Cell], start: Cell, goal: Cell) -> list[Cell]:
    """Breadth-first search for a shortest path over free cells.

    Args:
        free_cells (sequence of (int, int)): the cells one may stand on.
        start (tuple of int): first cell.
        goal (tuple of int): last cell.

    Returns:
        the cells from ``start`` to ``goal``, both included.

    Raises:
        ValueError: if no path joins them.

    Examples:
        >>> shortest_path([(0, 0), (0, 1), (1, 1)], (0, 0), (1, 1))
        [(0, 0), (0, 1), (1, 1)]
    """
    free = set(free_cells)
    came_from: dict[Cell, Cell | None] = {goal: None}
    queue = deque([goal])
    while queue and start not in came_from:
        row, column = cell = queue.popleft()
        for neighbour in (
            (row - 1, column),
            (row + 1, column),
            (row, column - 1),
            (row, column + 1),
        ):
            if neighbour in free and neighbour not in came_from:
                came_from[neighbour] = cell
                queue.append(neighbour)
    if start not in came_from:
        raise ValueError(f"no path from cell {start} to cell {goal}.")
    path: list[Cell] = []
    step: Cell | None = start
    while step is not None:
        path.append(step)
        step = came_from[step]
    return path


class WaypointController:
    """Drives a point mass along the cell centres of a shortest path, with D4RL's PD law.

    The force is ``clip(10 (waypoint - position) - velocity, -1, 1)``; a waypoint closer than 0.1
    gives way to the next one, and the last one is held for ever.

    Args:
        maze (Maze): gymnasium-robotics' ``Maze``, which turns cells into positions and back.
        free_cells (sequence of (int, int)): the cells one may stand on.

    Reference: D4RL's ``d4rl/pointmaze/waypoint_controller.py``.

    Examples:
        >>> from torchrl_gtp.envs import FixedGoalPointMaze
        >>> env = FixedGoalPointMaze("umaze")
        >>> observation, _ = env.reset(seed=0)
        >>> controller = WaypointController(env.maze, env.free_cells)
        >>> controller.set_goal(observation, env.goal_cell)
        >>> for _ in range(300):
        ...     observation, reward, *_ = env.step(controller(observation))
        >>> reward
        1.0
    """

    def __init__(self, maze: Maze, free_cells: Sequence[Cell]) -> None:
        self._maze = maze
        self._free_cells = free_cells
        self._waypoints: list[np.ndarray] = []

    def set_goal(self, observation: np.ndarray, goal: Cell) -> None:
        """Plans a path from where the point is to a cell.

        Args:
            observation (ndarray): ``[x, y, vx, vy]``.
            goal (tuple of int): the cell to walk to.

        Raises:
            ValueError: if no path leads there.
        """
        row, column = self._maze.cell_xy_to_rowcol(observation[:2])
        path = shortest_path(self._free_cells, (int(row), int(column)), goal)
        # The walker stands in the first cell already: its centre is no detour worth making,
        # unless it is the goal itself.
        self._waypoints = [
            self._maze.cell_rowcol_to_xy(np.array(cell)) for cell in path[1:] or path
        ]

    def arrived(self, observation: np.ndarray) -> bool:
        """Returns whether the point is at the goal, all waypoints before it behind.

        Args:
            observation (ndarray): ``[x, y, vx, vy]``.
        """
        return len(self._waypoints) == 1 and self._at_waypoint(observation)

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """Computes the force towards the next waypoint.

        Args:
            observation (ndarray): ``[x, y, vx, vy]``.

        Returns:
            the force in [-1, 1], shape ``[2]``, ``float64``.
        """
        if len(self._waypoints) > 1 and self._at_waypoint(observation):
            del self._waypoints[0]
        force = P_GAIN * (self._waypoints[0] - observation[:2]) + D_GAIN * observation[2:]
        return np.clip(force, -1.0, 1.0)

    def _at_waypoint(self, observation: np.ndarray) -> bool:
        return bool(np.linalg.norm(observation[:2] - self._waypoints[0]) < REACHED)
