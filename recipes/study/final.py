"""What follows the last update of a cell: the evaluations that the report needs."""

from __future__ import annotations

import dataclasses
import resource
from typing import Any

import torch

from recipes.common.evaluation import evaluate, milliseconds_per_action
from recipes.common.interrupt import Interrupt
from recipes.gtp.report import behaviour_results
from recipes.gtp.train import FRESH_SEED
from recipes.study.training import CellRun, Stopped, read_checkpoint
from recipes.study.versions import now, versions
from torchrl_gtp import CandidateActor
from torchrl_gtp.data import normalized_score

MEBIBYTE = 2**20


def final_result(run: CellRun, place: dict[str, Any], interrupt: Interrupt) -> dict[str, Any]:
    """Evaluate a trained cell on fresh episodes, and put together its ``result.json``.

    Args:
        run: the cell after its last update.
        place: ``task``, ``method`` and ``seed``, for the result.
        interrupt: asked before each evaluation.

    Returns:
        the result, as ``docs/study.md`` describes it.

    Raises:
        Stopped: if SIGINT or SIGTERM came.
    """
    config, learner, metadata = run.cfg, run.learner, run.buffer.metadata
    scored = metadata.ref_min_score is not None and metadata.ref_max_score is not None
    observation = run.buffer[0]["observation"].to(run.device)
    train_seconds, updates_per_second = run.seconds, run.updates_per_second

    def policy_of(num_steps: int | None, num_candidates: int) -> Any:
        return learner.policy(
            num_steps or config.actor.num_steps_eval,
            num_candidates=num_candidates,
            temperature=config.env.candidate_temperature,
            selection=config.env.candidate_selection,
        )

    def evaluated(
        num_steps: int | None, num_episodes: int, num_candidates: int = config.env.num_candidates
    ) -> dict[str, Any]:
        if interrupt:
            raise Stopped
        policy = policy_of(num_steps, num_candidates)
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
    # Without a critic one action is drawn, whatever the config says.
    policy = policy_of(chosen, config.env.num_candidates)
    num_candidates = policy.num_candidates if isinstance(policy, CandidateActor) else 1
    last = evaluated(chosen, config.env.final_episodes)
    # What is left without choosing among candidates.
    single = None
    if num_candidates > 1:
        single = evaluated(chosen, config.env.final_episodes, 1)
    sweep = {}
    if learner.takes_num_steps:
        episodes = config.final.sweep_episodes or config.env.final_episodes
        sweep = {str(steps): evaluated(steps, episodes) for steps in config.final.num_steps}
    best = None
    if config.final.best and (run.folder / "best.pt").exists():
        state = read_checkpoint(run.folder / "best.pt", run.device)
        if state is not None:
            learner.load_state_dict(state["learner"])
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
        "num_candidates": num_candidates,
        "last": last,
        "best": best,
        "single": single,
        "sweep": sweep,
        "compiled": learner.compiled,
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
