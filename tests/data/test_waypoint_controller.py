from __future__ import annotations

import itertools

import numpy as np
import pytest

from torchrl_gtp.data.waypoint_controller import WaypointController, shortest_path
from torchrl_gtp.envs import FixedGoalPointMaze


def test_shortest_path_of_the_umaze_goes_round_the_wall():
    cells = FixedGoalPointMaze("umaze").free_cells
    assert shortest_path(cells, (3, 1), (1, 1)) == [
        (3, 1),
        (3, 2),
        (3, 3),
        (2, 3),
        (1, 3),
        (1, 2),
        (1, 1),
    ]
    assert shortest_path(cells, (1, 2), (1, 2)) == [(1, 2)]


def test_no_path():
    with pytest.raises(ValueError, match=r"no path from cell \(0, 0\) to cell \(2, 0\)"):
        shortest_path([(0, 0), (2, 0)], (0, 0), (2, 0))


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_reaches_every_cell_from_every_cell(noise):
    env = FixedGoalPointMaze("umaze")
    rng = np.random.default_rng(0)
    controller = WaypointController(env.maze, env.free_cells)
    observation, _ = env.reset(seed=0)
    for start, goal in itertools.permutations(env.free_cells, 2):
        for cell in (start, goal):
            controller.set_goal(observation, cell)
            for _ in range(400):
                action = np.clip(controller(observation) + rng.normal(0.0, noise, 2), -1.0, 1.0)
                observation, *_ = env.step(action)
                if controller.arrived(observation):
                    break
            assert controller.arrived(observation), (start, goal)
            centre = env.maze.cell_rowcol_to_xy(np.array(cell))
            assert np.linalg.norm(observation[:2] - centre) < 0.1


def test_force_is_the_pd_law_and_clipped():
    env = FixedGoalPointMaze("umaze")
    controller = WaypointController(env.maze, env.free_cells)
    near_goal = np.array([-0.98, 1.01, 0.1, -0.2], dtype=np.float32)
    controller.set_goal(near_goal, (1, 1))
    np.testing.assert_allclose(controller(near_goal), [-0.2 - 0.1, -0.1 + 0.2], atol=1e-6)
    far = np.array([0.0, 1.0, 0.0, 0.0], dtype=np.float32)
    controller.set_goal(far, (1, 1))
    np.testing.assert_allclose(controller(far), [-1.0, 0.0], atol=1e-6)
