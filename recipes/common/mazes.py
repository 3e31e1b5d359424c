"""The map of a point maze, for pictures."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from torchrl_gtp.envs.point_maze import GOAL_RADIUS, FixedGoalPointMaze


@dataclass(frozen=True)
class Maze:
    """Walls and goal in the coordinates of the observation.

    Attributes:
        walls: centres of the wall cells.
        cell: side of a cell.
        goal: centre of the goal.
        goal_radius: distance to the goal that counts as success.
    """

    walls: list[tuple[float, float]]
    cell: float
    goal: tuple[float, float]
    goal_radius: float


def fixed_goal_maze(spec: EnvSpec | None) -> Maze | None:
    """Build the map of a fixed-goal point maze; ``None`` for every other environment.

    Args:
        spec: the environment specification of the dataset.
    """
    if spec is None or spec.entry_point != f"{FixedGoalPointMaze.__module__}:FixedGoalPointMaze":
        return None
    env = gym.make(spec)
    point_maze = env.unwrapped
    assert isinstance(point_maze, FixedGoalPointMaze)
    maze = point_maze.maze
    walls = [
        tuple(maze.cell_rowcol_to_xy((row, column)).tolist())
        for row, cells in enumerate(maze.maze_map)
        for column, cell in enumerate(cells)
        if cell == 1
    ]
    goal_x, goal_y = point_maze.goal.tolist()
    env.close()
    return Maze(walls, maze.maze_size_scaling, (goal_x, goal_y), GOAL_RADIUS)
