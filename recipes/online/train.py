"""Train DIPO (arXiv 2305.13122) from scratch in an environment of Gymnasium.

The config is ``config.yaml``, with the differences of a task on top; every field can be overridden
on the command line::

    python recipes/online/train.py
    python recipes/online/train.py task=hopper seed=1

Ctrl-C ends a run between two updates, with a checkpoint; ``resume=<folder>`` goes on with it. The
checkpoint holds the replay buffer but not the episodes under way: others start in their place.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs.utils import RandomPolicy

from recipes.common.evaluation import Evaluation, evaluate, milliseconds_per_action
from recipes.common.interrupt import Interrupt
from recipes.common.start import refuse_used_folder, set_up_torch
from recipes.gtp.report import MethodResults, write_report
from recipes.gtp.train import FRESH_SEED, make_logger, resumed_config
from recipes.offline_to_online.training import Schedule
from recipes.online.environment import check_env, make_env
from recipes.online.learner import DipoLearner, make_action_gradient, make_networks
from recipes.online.training import OnlineRun

KEY = "dipo"
CONFIG = Path(__file__).with_name("config.yaml")
RESUMABLE = ("resume", "env.eval", "env.final", "logger.", "checkpoint.", "device", "num_threads")


def make_schedule(cfg: DictConfig) -> Schedule:
    """Read how updates and environment steps take turns.

    Raises:
        ValueError: if the numbers do not fit together.
    """
    return Schedule(
        offline_updates=0,
        frames=cfg.online.frames,
        initial_frames=cfg.online.initial_frames,
        frames_per_batch=cfg.online.frames_per_batch,
        updates_per_batch=cfg.online.updates_per_batch,
        num_envs=cfg.online.num_envs,
    )


def run(cfg: DictConfig, folder: Path) -> dict[str, MethodResults]:
    """Train, evaluate, write table and curves.

    Args:
        cfg: the recipe's config.
        folder: where all outputs go; a run in it goes on if ``cfg.resume`` is set.

    Returns:
        the rows of the table by key: ``"behaviour"``, which are random actions, and ``"dipo"``.

    Raises:
        FileExistsError: if the folder holds another run.
        ValueError: if the config is inconsistent or the environment does not fit.
        SystemExit: if Ctrl-C or SIGTERM ended the training; the checkpoint is written before.
    """
    refuse_used_folder(cfg, folder)
    schedule = make_schedule(cfg)
    kwargs: dict[str, Any] = OmegaConf.to_container(cfg.env.kwargs) if cfg.env.kwargs else {}  # type: ignore[assignment]
    time_limit = check_env(cfg.env.id, kwargs)
    max_steps = cfg.env.max_steps or time_limit
    if max_steps is None:
        raise ValueError(
            f"env.id={cfg.env.id} has no time limit: set env.max_steps, the steps of an evaluation "
            "episode."
        )
    device = set_up_torch(cfg)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, folder / "config.yaml", resolve=True)

    torch.manual_seed(cfg.seed)
    env = make_env(cfg.env.id, kwargs, cfg.env.num_envs)
    train_env = make_env(cfg.env.id, kwargs, cfg.online.num_envs)
    train_env.set_seed(cfg.seed)
    action_spec = env.action_spec_unbatched
    replay = TensorDictReplayBuffer(
        storage=LazyTensorStorage(cfg.online.buffer_size), batch_size=cfg.online.batch_size
    )
    observation_dim = env.observation_spec["observation"].shape[-1]
    actor, loss = make_networks(cfg, observation_dim, action_spec, device)
    gradient: dict[str, Any] = OmegaConf.to_container(cfg.action_gradient)  # type: ignore[assignment]
    store = gradient.pop("store")
    improve = make_action_gradient(
        loss, "action_gradient", gradient, action_spec.shape[-1], from_improved=store
    )
    optim = OmegaConf.create({**cfg.optim, "steps": schedule.updates})
    learner = DipoLearner(loss, optim, improve, replay if store else None)
    method = OnlineRun(
        name="DIPO",
        learner=learner,
        buffer=replay,
        env=env,
        cfg=cfg,
        folder=folder / KEY,
        max_steps=max_steps,
        logger=make_logger(cfg, folder, KEY),
        actor=actor,
        train_env=train_env,
        schedule=schedule,
    )
    try:
        if cfg.resume is not None:
            method.load(folder / KEY / "last.pt")
            # The environments' own generators are in no checkpoint: go on with fresh starts.
            train_env.set_seed(cfg.seed + method.frames)
        with Interrupt() as interrupt:
            finished = method.train(interrupt)
        if not finished:
            print(
                f"\nStopped at update {learner.step} of {learner.num_updates}. Go on with: "
                f"python recipes/online/train.py resume={folder}"
            )
            sys.exit(interrupt.exit_code)
        # Other episodes than those of the learning curves.
        fresh = {"num_episodes": cfg.env.final_episodes, "seed": cfg.env.eval_seed + FRESH_SEED}
        trained = method.evaluate(**fresh)
        random = evaluate(env, RandomPolicy(env.action_spec), max_steps=max_steps, **fresh)
    finally:
        method.close()
        env.close()

    rows = {"behaviour": _results("random actions", random)}
    rows[KEY] = _results(
        "DIPO",
        trained,
        updates_per_second=method.updates_per_second,
        milliseconds_per_action=milliseconds_per_action(
            method.policy(), replay[0]["observation"].to(device)
        ),
    )
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    settings = {
        "env": cfg.env.id,
        "seed": cfg.seed,
        "updates": schedule.updates,
        "env_steps": method.frames,
        "config": {key: config[key] for key in config if key not in ("seed", "resume")},
    }
    print("\n" + write_report(folder, rows, {KEY: method.history}, settings) + "\n")
    print(f"Picture: {folder / 'learning_curves.png'}")
    return rows


def _results(name: str, evaluation: Evaluation, **speeds: float) -> MethodResults:
    return MethodResults(
        name=name,
        episodes=len(evaluation.returns),
        return_mean=evaluation.return_mean,
        return_std=evaluation.return_std,
        **speeds,
    )


@hydra.main(config_path="", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    job = HydraConfig.get()
    if cfg.resume is not None:
        cfg = resumed_config(Path(cfg.resume), list(job.overrides.task), RESUMABLE, [CONFIG])
    run(cfg, Path(job.runtime.output_dir))


if __name__ == "__main__":
    main()
