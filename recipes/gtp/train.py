"""Train Generative Trajectory Policies on a Minari dataset and show how well they do.

The config is ``config.yaml``, every field can be overridden on the command line::

    python recipes/gtp/train.py dataset=gtp/pointmaze/umaze-v0 compare_bc=true

Ctrl-C ends a run between two updates, with a checkpoint, and exits with code 130 (143 on SIGTERM).

Under torchrun it is data-parallel, with ``replay_buffer.batch_size`` transitions for each process::

    torchrun --nproc-per-node 2 recipes/gtp/train.py replay_buffer.batch_size=128
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torchrl.record.loggers import Logger, get_logger

from recipes.common.checkpoints import load_checkpoint
from recipes.common.evaluation import milliseconds_per_action
from recipes.common.former_config import completed, recipe_config
from recipes.common.interrupt import Interrupt
from recipes.common.mazes import fixed_goal_maze
from recipes.common.options import keyword_defaults
from recipes.common.plots import plot_maze_paths
from recipes.common.processes import Processes
from recipes.common.start import refuse_used_folder, set_up_torch
from recipes.gtp.learner import Learner, make_loss
from recipes.gtp.report import (
    PATHS_DRAWN,
    MethodResults,
    behaviour_paths,
    behaviour_results,
    method_results,
    write_report,
)
from recipes.gtp.training import Run
from torchrl_gtp.data import AffineReward, MinariReplayBuffer, load_minari, make_minari_env

FRESH_SEED = 100_000
CONFIG = Path(__file__).with_name("config.yaml")
METHODS = {"gtp_bc": "GTP-BC", "gtp": "GTP"}
# What a resumed run may change; the rest is in the state of its checkpoint.
RESUMABLE = ("resume", "env.", "logger.", "checkpoint.", "device", "num_threads", "optim.steps")


def resumed_config(
    folder: Path,
    overrides: list[str],
    resumable: Sequence[str] = RESUMABLE,
    files: Sequence[Path] = (CONFIG,),
) -> DictConfig:
    """Read the config of an interrupted run and apply the overrides given beside ``resume``.

    Fields that were added since take what they stood for before, and are printed.

    Args:
        folder: the run's output folder.
        overrides: of the form ``key=value``.
        resumable: beginnings of the names that may change.
        files: the config files of the recipe, later ones over earlier ones.

    Raises:
        FileNotFoundError: if the folder holds no checkpoint.
        ValueError: if an override would change what was trained, or the run has a field that there
            is no more.
    """
    checkpoints = sorted(folder.glob("*/last.pt"))
    if not checkpoints:
        raise FileNotFoundError(
            f"resume={folder}: there is no checkpoint. Give the output folder of a run, the one "
            "that holds gtp/last.pt or gtp_bc/last.pt."
        )
    accepted = [f"replay_buffer.{name}" for name in keyword_defaults(load_minari)]
    fields, added = completed(
        load_checkpoint(checkpoints[0])["config"], recipe_config(*files), accepted
    )
    if added:
        defaults = ", ".join(f"{name}={value}" for name, value in added.items())
        print(
            f"The run in {folder} is older than some fields, which get what was so then: {defaults}"
        )
    config = OmegaConf.create(fields)
    OmegaConf.set_struct(config, True)
    former = config.copy()
    overrides = [override.lstrip("+") for override in overrides]
    config.merge_with_dotlist(overrides)
    for name in (override.partition("=")[0] for override in overrides):
        before, now = OmegaConf.select(former, name), OmegaConf.select(config, name)
        if now != before and not name.startswith(tuple(resumable)):
            raise ValueError(
                f"{name}={now}: the run in {folder} was trained with {before}, and a resumed run "
                f"may only change {', '.join(resumable)}. Start another run."
            )
    return config


def make_buffer(cfg: DictConfig) -> MinariReplayBuffer:
    """Load the dataset as the config says.

    Raises:
        FileNotFoundError: if it is not there and cannot be fetched.
        ValueError: if both a fitted and an affine transform of the rewards are asked for.
    """
    options: dict[str, Any] = OmegaConf.to_container(cfg.replay_buffer, resolve=True)  # type: ignore[assignment]
    affine = AffineReward(options.pop("reward_scale"), options.pop("reward_shift"))
    fitted = options.pop("reward_transform")
    if fitted is not None and affine != AffineReward():
        raise ValueError(
            f"replay_buffer.reward_transform={fitted} is fitted to the dataset: leave "
            f"reward_scale={affine.scale} and reward_shift={affine.shift} at 1 and 0."
        )
    return load_minari(
        cfg.dataset,
        reward_transform=fitted if affine == AffineReward() else affine,
        env_kwargs=OmegaConf.to_container(cfg.env.kwargs) if cfg.env.kwargs else None,  # type: ignore[arg-type]
        reference_scores=cfg.env.reference_scores,
        **options,
    )


def run(cfg: DictConfig, folder: Path) -> dict[str, MethodResults]:
    """Train what the config asks for, evaluate it and write tables and pictures.

    Args:
        cfg: the recipe's config.
        folder: where all outputs go; a run in it goes on if ``cfg.resume`` is set.

    Returns:
        the rows of the table by key: ``"behaviour"``, ``"gtp_bc"``, ``"gtp"``; none in a process
        of a data-parallel run that is not the first.

    Raises:
        FileExistsError: if the folder holds another run.
        SystemExit: if Ctrl-C or SIGTERM ended the training; the checkpoint is written before.
    """
    with Processes(cfg.device) as processes:
        # The folder's name has the time in it, which the processes do not share.
        return _run(cfg, processes.of_main(folder), processes)


def _run(cfg: DictConfig, folder: Path, processes: Processes) -> dict[str, MethodResults]:
    if processes.is_main:
        refuse_used_folder(cfg, folder)
    set_up_torch(cfg)
    device, is_main = processes.device, processes.is_main
    buffer = make_buffer(cfg)
    max_steps = cfg.env.max_steps or buffer.metadata.max_episode_steps
    if max_steps is None:
        raise ValueError(
            f"The environment of {cfg.dataset} has no time limit: set env.max_steps, the steps of "
            "an evaluation episode."
        )
    env = None
    if is_main:
        env = make_minari_env(buffer.metadata, num_envs=cfg.env.num_envs, seed=cfg.env.eval_seed)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(cfg, folder / "config.yaml", resolve=True)

    rows = {"behaviour": behaviour_results(buffer)}
    paths = {}
    histories = {}
    try:
        for key in ["gtp_bc", "gtp"] if cfg.compare_bc else ["gtp_bc" if cfg.bc else "gtp"]:
            torch.manual_seed(cfg.seed)
            loss = make_loss(cfg, buffer, bc=key == "gtp_bc").to(device)
            if not is_main:
                processes.seed(cfg.seed)
            method = Run(
                name=METHODS[key],
                learner=Learner(loss, cfg.optim, processes, cfg.compile),
                buffer=buffer,
                env=env,
                cfg=cfg,
                folder=folder / key,
                max_steps=max_steps,
                logger=make_logger(cfg, folder, key) if is_main else None,
                processes=processes,
            )
            if cfg.resume is not None and (folder / key / "last.pt").exists():
                method.load(folder / key / "last.pt")
            with Interrupt() as interrupt:
                finished = method.train(interrupt)
            if not finished:
                if is_main:
                    print(
                        f"\nStopped {method.name} at update {method.learner.step} of "
                        f"{method.learner.num_updates}. Go on with: python recipes/gtp/train.py "
                        f"resume={folder}"
                    )
                sys.exit(interrupt.exit_code)
            if not is_main:
                continue
            # Other episodes than those of the learning curves, by which best.pt was chosen.
            evaluation = method.evaluate(cfg.env.final_episodes, cfg.env.eval_seed + FRESH_SEED)
            rows[key] = method_results(
                method.name,
                evaluation,
                buffer.metadata,
                updates_per_second=method.updates_per_second,
                milliseconds_per_action=milliseconds_per_action(
                    method.policy(), buffer[0]["observation"].to(device)
                ),
            )
            paths[key] = evaluation.paths[:PATHS_DRAWN], evaluation.returns[:PATHS_DRAWN]
            histories[key] = method.history
    finally:
        if env is not None:
            env.close()
    if not is_main:
        return {}

    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    settings = {"dataset": cfg.dataset, "seed": cfg.seed, "updates": cfg.optim.steps}
    settings["config"] = {key: config[key] for key in config if key not in ("seed", "resume")}
    print("\n" + write_report(folder, rows, histories, settings) + "\n")
    maze = fixed_goal_maze(buffer.metadata.env_spec)
    if maze is not None:
        paths = {"behaviour": behaviour_paths(buffer), **paths}
        panels = {f"{rows[key].name}: {rows[key].return_mean:.1f}": paths[key] for key in paths}
        plot_maze_paths(folder / "paths.png", maze, panels)
    for file in sorted(folder.glob("*.png")):
        print(f"Picture: {file}")
    return rows


def make_logger(cfg: DictConfig, folder: Path, key: str) -> Logger | None:
    """TorchRL's logger of the chosen backend, writing into ``<folder>/<key>``."""
    wandb = {"project": cfg.logger.project, "mode": cfg.logger.mode}
    wandb["config"] = OmegaConf.to_container(cfg, resolve=True)
    return get_logger(cfg.logger.backend, str(folder), key, wandb_kwargs=wandb)


OmegaConf.register_new_resolver("or", lambda value, default: value or default, replace=True)


@hydra.main(config_path="", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    job = HydraConfig.get()
    if cfg.resume is not None:
        cfg = resumed_config(Path(cfg.resume), list(job.overrides.task))
    run(cfg, Path(job.runtime.output_dir))


if __name__ == "__main__":
    main()
