"""The training loop: a turn of the collector, then updates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tensordict import TensorDictBase
from torchrl.collectors import Collector
from torchrl.envs import EnvBase

from recipes.gtp.training import Run
from recipes.offline_to_online.mixed_buffer import REPLAY_KEYS
from recipes.offline_to_online.training import Schedule
from recipes.online.learner import IMPROVED
from torchrl_gtp import GTPActor


@dataclass
class OnlineRun(Run):
    """A run that fills its replay buffer from an environment.

    Args:
        actor: the policy with the current parameters, which collects and is evaluated.
        train_env: environment of the collector.
        schedule: how updates and environment steps take turns.

    Attributes:
        frames: environment steps so far.
    """

    actor: GTPActor = field(kw_only=True)
    train_env: EnvBase = field(kw_only=True)
    schedule: Schedule = field(kw_only=True)
    frames: int = 0

    def __post_init__(self) -> None:
        """Makes the collector."""
        self.collector = Collector(
            self.train_env,
            self.actor,
            frames_per_batch=self.schedule.frames_per_batch,
            init_random_frames=self.schedule.initial_frames,
            total_frames=-1,
            policy_device=self.device,
            env_device="cpu",
            storing_device="cpu",
            auto_register_policy_transforms=False,  # the policy keeps no state between steps
        )
        self._batches: Iterator[TensorDictBase] = iter(self.collector)

    def policy(self) -> GTPActor:
        """The policy with the current parameters: DIPO's moving average is for TD targets alone."""
        return self.actor

    def sample(self) -> TensorDictBase:
        """Collect what is due, then draw the batch of the next update."""
        for _ in range(self.schedule.batches_due(self.learner.step)):
            self.collect()
        return self.buffer.sample()

    def collect(self) -> None:
        """Take one turn in the environment and keep its transitions."""
        transitions = next(self._batches).select(*REPLAY_KEYS).reshape(-1)
        # Improvement starts from the action that was taken.
        transitions[IMPROVED] = transitions["action"]
        self.buffer.extend(transitions)
        self.frames += transitions.numel()

    def state_dict(self) -> dict[str, Any]:
        """The state of the run; episodes under way are no part of it, they start anew."""
        replay = self.buffer.state_dict() if len(self.buffer) else None
        return {**super().state_dict(), "replay": replay, "frames": self.frames}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to the state of :meth:`state_dict`."""
        super().load_state_dict(state)
        self.frames = state["frames"]
        # The collector counts its own steps from zero.
        self.collector.init_random_frames = max(0, self.schedule.initial_frames - self.frames)
        if state["replay"] is not None:
            self.buffer.load_state_dict(state["replay"])

    def counters(self) -> dict[str, float]:
        """Environment steps so far."""
        return {"train/env_steps": self.frames}

    def close(self) -> None:
        """End the collector and its environment."""
        self.collector.shutdown()
