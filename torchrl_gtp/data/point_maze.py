"""Command line: ``python -m torchrl_gtp.data.point_maze umaze --steps 200000 --seed 0``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

import minari
from torchrl._utils import logger

from torchrl_gtp.data.point_maze_dataset import (
    ACTION_NOISE,
    make_point_maze_dataset,
    point_maze_settings,
)
from torchrl_gtp.envs.point_maze import MazeName


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the dataset of one maze unless it is there already.

    Args:
        arguments (sequence of str, optional): the command line. Defaults to ``sys.argv[1:]``.

    Returns:
        the exit code: 0 if the dataset is there, 1 if one of other settings is in its place.
    """
    parser = argparse.ArgumentParser(
        prog="python -m torchrl_gtp.data.point_maze",
        description="Make the offline PointMaze dataset as a local Minari dataset.",
    )
    parser.add_argument("maze", nargs="?", default="umaze", choices=get_args(MazeName))
    parser.add_argument("--steps", type=int, default=200_000, help="number of steps (200000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the walk (0)")
    parser.add_argument(
        "--noise",
        type=float,
        default=ACTION_NOISE,
        help=f"standard deviation of the noise on the controller's force ({ACTION_NOISE})",
    )
    parser.add_argument("--dataset-id", default=None, help="Minari id (gtp/pointmaze/MAZE-v0)")
    parser.add_argument("--overwrite", action="store_true", help="remake an existing dataset")
    options = parser.parse_args(arguments)
    dataset_id = options.dataset_id or f"gtp/pointmaze/{options.maze}-v0"

    settings = point_maze_settings(options.maze, options.steps, options.seed, options.noise)
    if not options.overwrite:
        try:
            existing = minari.load_dataset(dataset_id).storage.metadata.get("generator")
        except FileNotFoundError:
            pass
        else:
            if existing == settings:
                logger.info(f"{dataset_id} is there already, with the same settings.")
                return 0
            logger.error(f"{dataset_id} exists with other settings: --overwrite remakes it.")
            return 1

    make_point_maze_dataset(
        options.maze,
        options.steps,
        options.seed,
        options.dataset_id,
        action_noise=options.noise,
        overwrite=options.overwrite,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
