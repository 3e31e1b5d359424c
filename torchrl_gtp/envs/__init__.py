"""Gymnasium environments that the library's own datasets come from."""

from __future__ import annotations

from torchrl_gtp.envs.point_maze import FixedGoalPointMaze, MazeName, point_maze_spec

__all__ = ["FixedGoalPointMaze", "MazeName", "point_maze_spec"]
