"""One cell: training that goes on where it stopped, then the evaluations that the report needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from recipes.common.interrupt import Interrupt
from recipes.common.start import set_up_torch
from recipes.gtp.learner import Learner
from recipes.gtp.train import make_buffer
from recipes.study import files
from recipes.study.final import final_result
from recipes.study.training import CellRun, Stopped
from recipes.study.versions import now, versions
from torchrl_gtp.data import make_minari_env
from torchrl_gtp.flow_map import FlowMap, MLPBackbone
from torchrl_gtp.flow_map.named_samplers import as_sampler


def run_cell(
    config: DictConfig,
    place: dict[str, Any],
    folder: Path,
    on_update: Callable[[int], None] = lambda step: None,
) -> dict[str, Any]:
    """Train and evaluate one cell, or what is left of it, and write ``result.json``.

    Args:
        config: the cell's config.
        place: ``task``, ``method`` and ``seed``, for the result.
        folder: the cell's folder.
        on_update: called with the number of updates before each one.

    Raises:
        Stopped: if SIGINT or SIGTERM came; the checkpoint is written before.
        ValueError: if the folder was made with other settings, or the policy cannot take a number
            of steps of the config.
    """
    # Before the config is written, which must stay free to be mended.
    check_steps(config)
    added = files.check_config(folder, config)
    if added:
        print(f"The cell is older than these fields, which get their defaults: {', '.join(added)}")
    files.write_config(folder, config)
    starts = files.read_json(folder / files.STARTS) or []
    start = {"time": now(), "compiled": bool(config.compile.compile), **versions()}
    files.write_json(folder / files.STARTS, [*starts, start])
    device = set_up_torch(config)

    # A signal ends this part at once: a download may take long, and there is nothing to write yet.
    buffer = make_buffer(config)
    max_steps = config.env.max_steps or buffer.metadata.max_episode_steps
    if max_steps is None:
        raise ValueError(
            f"The environment of {config.dataset} has no time limit: set env.max_steps in the "
            "task, the steps of an evaluation episode."
        )
    with Interrupt() as interrupt:
        env = make_minari_env(
            buffer.metadata, num_envs=config.env.num_envs, seed=config.env.eval_seed
        )
        try:
            torch.manual_seed(config.seed)
            build = instantiate(config.method.learner, _partial_=True, _recursive_=False)
            learner: Learner = build(config, buffer, device)
            run = CellRun(
                name=config.method.label,
                learner=learner,
                buffer=buffer,
                env=env,
                cfg=config,
                folder=folder,
                max_steps=max_steps,
                on_update=on_update,
            )
            run.go_on()
            if not run.train(interrupt):
                raise Stopped
            on_update(learner.step)
            result = final_result(run, place, interrupt)
        finally:
            env.close()
    files.write_json(folder / files.RESULT, result)
    (folder / files.FAILURE).unlink(missing_ok=True)
    return result


def check_steps(config: DictConfig) -> None:
    """Try the sampler with each number of steps: most are needed after the last update only.

    Args:
        config: the cell's config.

    Raises:
        ValueError: if the sampler does not take one of them.
    """
    actor = instantiate(config.actor, _convert_="all")
    sampler = as_sampler(actor["sampler"])
    fields = {
        "actor.num_steps_train": [config.actor.num_steps_train],
        "actor.num_steps_eval": [config.actor.num_steps_eval],
        "final.num_steps": list(config.final.num_steps),
    }
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        # Which steps a sampler takes depends on its times, not on the network.
        flow_map = FlowMap(MLPBackbone(action_dim=1), noise_levels=actor["noise_levels"])
        for field_name, values in fields.items():
            for num_steps in values:
                try:
                    sampler(flow_map, torch.zeros(1, 1), None, num_steps)
                except ValueError as error:
                    raise ValueError(
                        f"{field_name}={values}: the sampler of {config.method.label} does not "
                        f"take {num_steps} steps: {error} Set {field_name} in the overrides of the "
                        "study, or restrict the grid to other methods."
                    ) from error
