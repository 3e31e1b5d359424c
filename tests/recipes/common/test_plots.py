from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from recipes.common.mazes import Maze, fixed_goal_maze
from recipes.common.plots import plot_learning_curves, plot_maze_paths
from torchrl_gtp.envs.point_maze import point_maze_spec


def colours(path: Path) -> int:
    image = Image.open(path).convert("RGB")
    assert min(image.size) > 300
    return len(image.getcolors(image.width * image.height))


def test_learning_curves(tmp_path: Path) -> None:
    history = [
        {"step": 1, "train/loss_flow": 1.0, "train/loss_consistency": 0.1},
        {"step": 2, "eval/return": 3.0, "eval/success_rate": 0.5},
    ]
    plot_learning_curves(tmp_path / "curves.png", {"GTP": history}, {"data": 2.0})
    assert colours(tmp_path / "curves.png") > 10


def test_learning_curves_without_any_evaluation(tmp_path: Path) -> None:
    plot_learning_curves(tmp_path / "curves.png", {"GTP": [{"step": 1, "train/loss_flow": 1.0}]})
    assert (tmp_path / "curves.png").exists()


def test_paths_are_coloured_by_return(tmp_path: Path) -> None:
    maze = Maze([(-1.0, -1.0), (1.0, 1.0)], 1.0, (0.0, 0.0), 0.45)
    paths = [torch.rand(20, 4), torch.rand(5, 4)]
    plot_maze_paths(tmp_path / "zero.png", maze, {"A": (paths, torch.zeros(2))})
    plot_maze_paths(tmp_path / "some.png", maze, {"A": (paths, torch.tensor([5.0, 0.0]))})
    zero, some = Image.open(tmp_path / "zero.png"), Image.open(tmp_path / "some.png")
    assert zero.tobytes() != some.tobytes()


def test_map_of_a_fixed_goal_maze() -> None:
    maze = fixed_goal_maze(point_maze_spec("umaze"))
    assert maze is not None
    assert maze.goal == (-1.0, 1.0)
    # Five by five cells, seven of them free, and none of those a wall.
    assert len(maze.walls) == 18
    assert maze.goal not in maze.walls


def test_other_environments_have_no_map() -> None:
    assert fixed_goal_maze(None) is None
