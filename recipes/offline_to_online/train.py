"""Pretrain GTP on a Minari dataset, then fine-tune it in the dataset's environment.

The config is ``offline_to_online.yaml`` on top of ``recipes/gtp/config.yaml``::

    python recipes/offline_to_online/train.py dataset=gtp/pointmaze/umaze-noisy-v0 seed=1

Ctrl-C ends a run between two updates, with a checkpoint; ``resume=<folder>`` goes on with it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from recipes.common.checkpoints import load_checkpoint
from recipes.common.interrupt import Interrupt
from recipes.common.start import refuse_used_folder, set_up_torch
from recipes.gtp.learner import Learner, make_loss
from recipes.gtp.report import MethodResults, behaviour_results, method_results, write_report
from recipes.gtp.train import CONFIG, FRESH_SEED, make_buffer, make_logger, resumed_config
from recipes.offline_to_online.mixed_buffer import MixedReplayBuffer
from recipes.offline_to_online.training import OfflineToOnlineRun, Schedule
from torchrl_gtp.data import AffineReward, make_minari_env

KEY = "gtp"
# The number of updates decides when the switch comes and how the learning rate falls.
RESUMABLE = ("resume", "env.", "logger.", "checkpoint.", "device", "num_threads")
CONFIGS = (CONFIG, Path(__file__).with_name("offline_to_online.yaml"))


def make_schedule(cfg: DictConfig) -> Schedule:
    """Read how updates and environment steps take turns.

    Raises:
        ValueError: if the numbers do not fit together, or the config asks for cloning.
    """
    if cfg.bc or cfg.compare_bc:
        raise ValueError(
            "bc and compare_bc must be false: cloning has no use for the rewards of online data. "
            "recipes/gtp/train.py clones."
        )
    return Schedule(
        offline_updates=cfg.optim.steps,
        frames=cfg.online.frames,
        initial_frames=cfg.online.initial_frames,
        frames_per_batch=cfg.online.frames_per_batch,
        updates_per_batch=cfg.online.updates_per_batch,
        num_envs=cfg.online.num_envs,
    )


def run(cfg: DictConfig, folder: Path) -> dict[str, MethodResults]:
    """Train in both phases, evaluate the policies before and after, write table and curves.

    Args:
        cfg: the recipe's config.
        folder: where all outputs go; a run in it goes on if ``cfg.resume`` is set.

    Returns:
        the rows of the table by key: ``"behaviour"``, ``"offline"``, ``"online"``.

    Raises:
        FileExistsError: if the folder holds another run.
        ValueError: if the config is inconsistent.
        SystemExit: if Ctrl-C or SIGTERM ended the training; the checkpoint is written before.
    """
    refuse_used_folder(cfg, folder)
    schedule = make_schedule(cfg)
    device = set_up_torch(cfg)
    buffer = make_buffer(cfg)
    max_steps = cfg.env.max_steps or buffer.metadata.max_episode_steps
    if max_steps is None:
        raise ValueError(
            f"The environment of {cfg.dataset} has no time limit: set env.max_steps, the steps of "
            "an evaluation episode."
        )
    replay = MixedReplayBuffer(buffer, cfg.online.buffer_size, cfg.online.offline_fraction)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, folder / "config.yaml", resolve=True)

    torch.manual_seed(cfg.seed)
    optim = cfg.optim.copy()
    optim.steps = schedule.updates
    loss = make_loss(cfg, buffer, bc=False).to(device)
    learner = Learner(loss, optim, compilation=cfg.compile)
    env = make_minari_env(buffer.metadata, num_envs=cfg.env.num_envs, seed=cfg.env.eval_seed)
    train_env = make_minari_env(buffer.metadata, num_envs=cfg.online.num_envs, seed=cfg.seed)
    method = OfflineToOnlineRun(
        name="GTP",
        learner=learner,
        buffer=buffer,
        env=env,
        cfg=cfg,
        folder=folder / KEY,
        max_steps=max_steps,
        logger=make_logger(cfg, folder, KEY),
        replay=replay,
        train_env=train_env,
        schedule=schedule,
        reward=buffer.metadata.reward_transform or AffineReward(),
    )
    try:
        if cfg.resume is not None:
            method.load(folder / KEY / "last.pt")
            if method.frames:
                # The environments' own generators are in no checkpoint: go on with fresh starts.
                train_env.set_seed(cfg.seed + method.frames)
        with Interrupt() as interrupt:
            finished = method.train(interrupt)
        if not finished:
            print(
                f"\nStopped at update {learner.step} of {learner.num_updates}. Go on with: "
                f"python recipes/offline_to_online/train.py resume={folder}"
            )
            sys.exit(interrupt.exit_code)
        rows = {"behaviour": behaviour_results(buffer)}
        # Other episodes than those of the learning curves.
        fresh = {"num_episodes": cfg.env.final_episodes, "seed": cfg.env.eval_seed + FRESH_SEED}
        online = method.evaluate(**fresh)
        updates_per_second = method.updates_per_second
        learner.load_state_dict(load_checkpoint(folder / KEY / "offline.pt", device)["learner"])
        offline = method.evaluate(**fresh)
    finally:
        method.close()
        env.close()

    rows["offline"] = method_results("GTP, before the switch", offline, buffer.metadata)
    rows["online"] = method_results(
        "GTP, after online training",
        online,
        buffer.metadata,
        updates_per_second=updates_per_second,
    )
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    settings = {
        "dataset": cfg.dataset,
        "seed": cfg.seed,
        "updates": schedule.updates,
        "offline_updates": schedule.offline_updates,
        "env_steps": method.frames,
        "config": {key: config[key] for key in config if key not in ("seed", "resume")},
    }
    events = {"switch to online": schedule.offline_updates}
    print("\n" + write_report(folder, rows, {"online": method.history}, settings, events) + "\n")
    print(f"Picture: {folder / 'learning_curves.png'}")
    return rows


@hydra.main(config_path="", config_name="offline_to_online", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    job = HydraConfig.get()
    if cfg.resume is not None:
        cfg = resumed_config(Path(cfg.resume), list(job.overrides.task), RESUMABLE, CONFIGS)
    run(cfg, Path(job.runtime.output_dir))


if __name__ == "__main__":
    main()
