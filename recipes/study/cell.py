"""One cell: training that goes on where it stopped, then the evaluations that the report needs."""

from __future__ import annotations

import dataclasses
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from recipes.common.checkpoints import load_checkpoint
from recipes.common.evaluation import evaluate, milliseconds_per_action
from recipes.common.interrupt import Interrupt
from recipes.common.start import set_up_torch
from recipes.gtp.learner import Learner
from recipes.gtp.report import behaviour_results
from recipes.gtp.train import FRESH_SEED, make_buffer
from recipes.gtp.training import Run
from recipes.study import files
from recipes.study.versions import now, versions
from torchrl_gtp.data import make_minari_env, normalized_score
from torchrl_gtp.flow_map import FlowMap, MLPBackbone
from torchrl_gtp.flow_map.named_samplers import as_sampler

MEBIBYTE = 2**20


class Stopped(Exception):
    """A signal ended the cell between two updates; its checkpoint is written."""


@dataclass
class CellRun(Run):
    """The training of a cell, which keeps ``curves.csv`` beside its checkpoints up to date.

    Args:
        on_update: called with the number of updates before each one.

    Attributes:
        wall_seconds: time spent on the cell before this start.
    """

    on_update: Callable[[int], None] = field(kw_only=True)
    wall_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds spent on the cell so far, evaluation and writing included."""
        return self.wall_seconds + time.perf_counter() - self._start

    def sample(self) -> Any:
        """Draw the batch of the next update."""
        self.on_update(self.learner.step)
        return super().sample()

    def save(self, name: str) -> None:
        """Write a checkpoint, and the curves up to it."""
        super().save(name)
        files.write_curves(self.folder / files.CURVES, self.history)

    def state_dict(self) -> dict[str, Any]:
        """The state of the run and its time."""
        return {**super().state_dict(), "wall_seconds": self.elapsed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state of :meth:`state_dict`; the clock goes on from it."""
        super().load_state_dict(state)
        self.wall_seconds = state["wall_seconds"]
        self._start = time.perf_counter()

    def go_on(self) -> None:
        """Go back to the last checkpoint that can be read; start anew if there is none."""
        for name in ("last", "best"):
            path = self.folder / f"{name}.pt"
            if not path.exists():
                continue
            try:
                state = load_checkpoint(path, self.device)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                # Whatever the zip reader and the unpickler raise at a damaged file. It is kept:
                # the next checkpoint would overwrite it.
                print(f"{path} cannot be read, so it is left out: {error}", file=sys.stderr)
                path.replace(path.with_suffix(".damaged"))
                continue
            self.load_state_dict(state)
            print(f"Going on from {path} at update {self.learner.step}.")
            return
        print("Starting at update 0.")


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
            result = _result(run, place, interrupt)
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


def _result(run: CellRun, place: dict[str, Any], interrupt: Interrupt) -> dict[str, Any]:
    config, learner, metadata = run.cfg, run.learner, run.buffer.metadata
    scored = metadata.ref_min_score is not None and metadata.ref_max_score is not None
    observation = run.buffer[0]["observation"].to(run.device)
    train_seconds, updates_per_second = run.seconds, run.updates_per_second

    def evaluated(
        num_steps: int | None, num_episodes: int, num_candidates: int = config.env.num_candidates
    ) -> dict[str, Any]:
        if interrupt:
            raise Stopped
        policy = learner.policy(
            num_steps or config.actor.num_steps_eval,
            num_candidates=num_candidates,
            temperature=config.env.candidate_temperature,
            selection=config.env.candidate_selection,
        )
        assert run.env is not None
        evaluation = evaluate(
            run.env,
            policy,
            num_episodes=num_episodes,
            max_steps=run.max_steps,
            seed=config.env.eval_seed + FRESH_SEED,
        )
        scores = normalized_score(evaluation.returns, metadata) if scored else evaluation.returns
        success = evaluation.success
        return {
            "update": learner.step,
            "num_steps": num_steps,
            "returns": evaluation.returns.tolist(),
            "scores": scores.tolist(),
            "success": None if success is None else success.tolist(),
            "return": evaluation.return_mean,
            "score": scores.mean().item(),
            "success_rate": evaluation.success_rate,
            "milliseconds_per_action": milliseconds_per_action(policy, observation),
        }

    chosen = config.actor.num_steps_eval if learner.takes_num_steps else None
    last = evaluated(chosen, config.env.final_episodes)
    # What is left without choosing among candidates.
    single = None
    if config.env.num_candidates > 1:
        single = evaluated(chosen, config.env.final_episodes, 1)
    sweep = {}
    if learner.takes_num_steps:
        episodes = config.final.sweep_episodes or config.env.final_episodes
        sweep = {str(steps): evaluated(steps, episodes) for steps in config.final.num_steps}
    best = None
    if config.final.best and (run.folder / "best.pt").exists():
        learner.load_state_dict(load_checkpoint(run.folder / "best.pt", run.device)["learner"])
        best = evaluated(chosen, config.env.final_episodes)
    return {
        **place,
        "label": config.method.label,
        "method_note": config.method.note,
        "ablation_of": config.method.ablation_of,
        "task_name": config.study.name,
        "suite": config.study.suite,
        "note": config.study.note,
        "dataset": config.dataset,
        "score_kind": "normalised score" if scored else "return",
        "behaviour": dataclasses.asdict(behaviour_results(run.buffer)),
        "updates": learner.num_updates,
        "episodes": config.env.final_episodes,
        "num_candidates": config.env.num_candidates,
        "last": last,
        "best": best,
        "single": single,
        "sweep": sweep,
        "parameters": sum(p.numel() for p in learner.loss.parameters()),
        "updates_per_second": updates_per_second,
        "train_seconds": train_seconds,
        "wall_seconds": run.elapsed,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_gpu_memory_mib": (
            torch.cuda.max_memory_allocated(run.device) / MEBIBYTE
            if run.device.type == "cuda"
            else None
        ),
        "device": (torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else "CPU"),
        "finished": now(),
        "versions": versions(),
    }
