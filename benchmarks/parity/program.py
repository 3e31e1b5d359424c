"""What Diffusion-QL and Consistency-AC have in common: programs that differ in the policy alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

from benchmarks.parity.batch import ACTION_DIM, BATCH_SIZE, GAMMA, OBSERVATION_DIM, Memory
from benchmarks.parity.draws import Chain
from benchmarks.parity.networks import copy_qvalues, set_targets
from torchrl_gtp import GTPActor, QGradientLoss, TargetUpdate
from torchrl_gtp.flow_map import Objective

__all__ = ["AGENT_OPTIONS", "ETA", "Program", "StepDraws"]

ETA = 0.7
# Gradients are not clipped: ours are a multiple of theirs, so that a limit would not do the same.
# The moving average of the actor starts at once, so that it comes apart from the actor.
AGENT_OPTIONS: dict[str, Any] = {
    "state_dim": OBSERVATION_DIM,
    "action_dim": ACTION_DIM,
    "max_action": 1.0,
    "device": "cpu",
    "discount": GAMMA,
    "tau": 0.005,
    "eta": ETA,
    "step_start_ema": 0,
    "grad_norm": 0.0,
}


class StepDraws(NamedTuple):
    """The random numbers of one published step.

    Attributes:
        backup: of the samples of the TD target.
        policy: of the sample that the gradient of Q passes through.
        term: of the cloning term, by the names that our loss has for them.
    """

    backup: Chain
    policy: Chain
    term: dict[str, Tensor]


class Program(ABC):
    """A published program, and our parts that stand for it.

    Attributes:
        ema_name: the agent's name of the moving average of its policy.
        term: our name of the cloning term.
        title: the name of its loss in the table.
        factor: what our actor's losses are to be multiplied by, for theirs.
        factor_name: the same in words.
        objective: our objective.
    """

    ema_name: str
    term: str
    title: str
    factor: float
    factor_name: str
    objective: Objective

    @abstractmethod
    def wrap(self, policy: Any) -> GTPActor:
        """Builds our policy around a copy of a published one."""

    @abstractmethod
    def network(self, policy: Any) -> nn.Module:
        """The part of a published policy that :meth:`wrap` puts into ours."""

    @abstractmethod
    def read_chain(self, draws: Iterator[Tensor]) -> Chain:
        """Reads the draws of one run of the sampler."""

    @abstractmethod
    def read_step(self, draws: Iterator[Tensor]) -> StepDraws:
        """Reads the draws of a training step."""

    def train_a_little(self, agent: Any, updates: int = 50) -> None:
        """Lets the published program train, so that copies differ and actions make sense."""
        agent.train(Memory(), iterations=updates, batch_size=BATCH_SIZE)
        # Our optimiser is new in the step that is compared, and so is theirs.
        agent.critic_optimizer.state.clear()

    def make_loss(self, agent: Any, num_backup_samples: int = 1) -> QGradientLoss:
        """Builds our loss with all weights of the agent."""
        loss = QGradientLoss(
            self.wrap(agent.actor),
            copy_qvalues(agent.critic),
            objective=self.objective,
            q_weight=ETA / self.factor,
            num_backup_samples=num_backup_samples,
        )
        loss.make_value_estimator(gamma=GAMMA)
        TargetUpdate(loss, AGENT_OPTIONS["tau"])
        set_targets(loss, "actor_network", [self.wrap(getattr(agent, self.ema_name))])
        set_targets(loss, "qvalue_network", copy_qvalues(agent.critic_target))
        return loss
