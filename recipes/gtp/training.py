"""The training loop of one method: updates, evaluation, logs, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDictBase
from torchrl.data import TensorDictReplayBuffer
from torchrl.envs import EnvBase
from torchrl.record.loggers import Logger
from tqdm import tqdm

from recipes.common.checkpoints import (
    load_checkpoint,
    random_state,
    save_checkpoint,
    set_random_state,
)
from recipes.common.evaluation import Evaluation, evaluate
from recipes.common.interrupt import Interrupt
from recipes.common.processes import Processes
from recipes.gtp.learner import Learner
from recipes.gtp.report import mean_score
from torchrl_gtp import CandidateActor, GTPActor
from torchrl_gtp.data import MinariReplayBuffer

# A question costs a round of messages.
UPDATES_BETWEEN_QUESTIONS = 20


@dataclass
class Run:
    """One method in training.

    Args:
        name: the method's name in bar and messages.
        learner: what an update is.
        buffer: the dataset, or the transitions that a derived run collects.
        env: evaluation environment; ``None`` in a process that does not evaluate.
        cfg: the recipe's config.
        folder: where checkpoints go.
        max_steps: steps an evaluation episode.
        logger: TorchRL logger or ``None``; closed when the training ends.
        processes: those of a data-parallel run, of which the first evaluates and writes.

    Attributes:
        history: logged values by update, for the learning curves.
        best_return: best evaluation return so far.
        seconds: time spent on updates so far, evaluation and writing left out.
    """

    name: str
    learner: Learner
    buffer: TensorDictReplayBuffer
    env: EnvBase | None
    cfg: DictConfig
    folder: Path
    max_steps: int
    logger: Logger | None = None
    processes: Processes = field(default_factory=Processes)
    history: list[dict[str, float]] = field(default_factory=list)
    best_return: float = -float("inf")
    seconds: float = 0.0

    def train(self, interrupt: Interrupt) -> bool:
        """Train to the last update, or until ``interrupt`` is set; leave ``last.pt`` either way.

        Returns:
            whether the last update was reached.
        """
        cfg, learner = self.cfg, self.learner
        self.policy()  # whether there is one to evaluate, before hours of training
        bar = tqdm(
            total=learner.num_updates,
            initial=learner.step,
            desc=self.name,
            unit="update",
            dynamic_ncols=True,
            # No bar where nobody watches: the evaluations are printed.
            disable=None if self.processes.is_main else True,
        )
        start = time.perf_counter()
        try:
            with bar:
                while learner.step < learner.num_updates and not self._stopped(interrupt):
                    losses = learner.update(self.sample().to(self.device))
                    bar.update()
                    if _is_due(learner.step, cfg.logger.interval):
                        bar.set_postfix(self._log_losses(losses), refresh=False)
                    evaluation_due = _is_due(learner.step, cfg.env.eval_interval)
                    checkpoint_due = _is_due(learner.step, cfg.checkpoint.interval)
                    if evaluation_due or checkpoint_due:
                        self.seconds += time.perf_counter() - start
                        if evaluation_due and self.processes.is_main:
                            self._evaluate(bar)
                        if checkpoint_due:
                            self.save("last")
                        start = time.perf_counter()
            self.seconds += time.perf_counter() - start
            self.save("last")
        finally:
            if self.logger is not None:
                self.logger.close()
        return learner.step >= learner.num_updates

    def _stopped(self, interrupt: Interrupt) -> bool:
        """Whether a signal came; several processes ask each other now and then, all at once."""
        if self.processes.size == 1:
            return bool(interrupt)
        due = self.learner.step % UPDATES_BETWEEN_QUESTIONS == 0
        return due and self.processes.any(bool(interrupt))

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return next(self.learner.loss.parameters()).device

    def sample(self) -> TensorDictBase:
        """Draw the batch of the next update."""
        return self.buffer.sample()

    def evaluate(self, num_episodes: int, seed: int) -> Evaluation:
        """Evaluate the averaged actor with the K of evaluation."""
        assert self.env is not None
        return evaluate(
            self.env,
            self.policy(),
            num_episodes=num_episodes,
            max_steps=self.max_steps,
            seed=seed,
        )

    def policy(self) -> GTPActor | CandidateActor:
        """The averaged actor with the K and the candidates of evaluation."""
        env = self.cfg.env
        return self.learner.policy(
            self.cfg.actor.num_steps_eval,
            num_candidates=env.num_candidates,
            temperature=env.candidate_temperature,
            selection=env.candidate_selection,
        )

    @property
    def updates_per_second(self) -> float:
        """Speed of training, evaluation left out."""
        return self.learner.step / self.seconds if self.seconds > 0 else 0.0

    def save(self, name: str) -> None:
        """Write the whole state to ``<folder>/<name>.pt``."""
        if not self.processes.is_main:
            return
        save_checkpoint(self.folder / f"{name}.pt", self.state_dict())

    def load(self, path: Path) -> None:
        """Go back to a state of :meth:`save`."""
        self.load_state_dict(load_checkpoint(path, self.device))

    def state_dict(self) -> dict[str, Any]:
        """The state of all that training changes, and the config."""
        return {
            "config": OmegaConf.to_container(self.cfg, resolve=True),
            "learner": self.learner.state_dict(),
            "history": self.history,
            "best_return": self.best_return,
            "seconds": self.seconds,
            "random": random_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to the state of :meth:`state_dict`; the config stays."""
        self.learner.load_state_dict(state["learner"])
        self.history = state["history"]
        self.best_return = state["best_return"]
        self.seconds = state["seconds"]
        if self.processes.is_main:
            set_random_state(state["random"])
        else:
            # The checkpoint is the main process's: the others go on with other draws.
            self.processes.seed(self.cfg.seed + self.learner.step)

    def counters(self) -> dict[str, float]:
        """What is counted beside the updates, logged with losses and evaluations."""
        return {}

    def _log_losses(self, losses: TensorDictBase) -> dict[str, str]:
        values = {name: value.mean().item() for name, value in losses.items()}
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise FloatingPointError(
                f"{', '.join(broken)} became nan or infinite at update {self.learner.step} of "
                f"{self.name}. Try a smaller optim.lr, or optim.grad_clip=1."
            )
        self._record({f"train/{name}": value for name, value in values.items()})
        return {
            name.removeprefix("loss_"): f"{value:.3g}"
            for name, value in values.items()
            if name.startswith("loss_")
        }

    def _evaluate(self, bar: tqdm) -> None:
        evaluation = self.evaluate(self.cfg.env.eval_episodes, self.cfg.env.eval_seed)
        metrics = {
            "eval/return": evaluation.return_mean,
            "eval/success_rate": evaluation.success_rate,
            "eval/normalized_score": self._score(evaluation),
            "time/updates_per_second": self.updates_per_second,
        }
        self._record({name: value for name, value in metrics.items() if value is not None})
        success = evaluation.success_rate
        bar.write(
            f"{self.name} {self.learner.step}/{self.learner.num_updates}: "
            f"return {evaluation.return_mean:.2f}"
            + ("" if success is None else f", success {success:.2f}")
            + f", {self.updates_per_second:.0f} updates/s"
        )
        if evaluation.return_mean > self.best_return:
            self.best_return = evaluation.return_mean
            self.save("best")

    def _score(self, evaluation: Evaluation) -> float | None:
        """Mean normalised score; a buffer that no dataset fills has no reference scores."""
        if not isinstance(self.buffer, MinariReplayBuffer):
            return None
        return mean_score(evaluation.returns, self.buffer.metadata)

    def _record(self, values: Mapping[str, float]) -> None:
        values = {**self.counters(), **values}
        self.history.append({"step": self.learner.step, **values})
        if self.logger is not None:
            for name, value in values.items():
                self.logger.log_scalar(name, value, step=self.learner.step)


def _is_due(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0
