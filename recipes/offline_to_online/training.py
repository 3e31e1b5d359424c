"""The training loop of both phases: updates on the dataset, then collection in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase, TensorDictSequential
from torch import Tensor
from torchrl.collectors import Collector
from torchrl.envs import EnvBase
from torchrl.modules import AdditiveGaussianModule

from recipes.gtp.training import Run
from recipes.offline_to_online.mixed_buffer import MixedReplayBuffer
from torchrl_gtp.data import MinariReplayBuffer


@dataclass
class Schedule:
    """How updates and environment steps take turns.

    Args:
        offline_updates: updates before the switch.
        frames: environment steps after it, those of ``initial_frames`` included.
        initial_frames: steps taken at the switch, before the first online update.
        frames_per_batch: steps of each later turn of the collector.
        updates_per_batch: updates after each turn.
        num_envs: environments that are stepped together.
    """

    offline_updates: int
    frames: int
    initial_frames: int
    frames_per_batch: int
    updates_per_batch: int
    num_envs: int

    def __post_init__(self) -> None:
        """Checks that the numbers fit together."""
        for name, least in (
            ("frames_per_batch", 1),
            ("updates_per_batch", 1),
            ("num_envs", 1),
            ("offline_updates", 0),
        ):
            if getattr(self, name) < least:
                label = "optim.steps" if name == "offline_updates" else f"online.{name}"
                raise ValueError(f"{label} must be at least {least}, got {getattr(self, name)}.")
        if self.frames_per_batch % self.num_envs:
            raise ValueError(
                f"online.frames_per_batch={self.frames_per_batch} must be a multiple of "
                f"online.num_envs={self.num_envs}: all environments take a step together."
            )
        for name in ("frames", "initial_frames"):
            value = getattr(self, name)
            if value < self.frames_per_batch or value % self.frames_per_batch:
                raise ValueError(
                    f"online.{name}={value} must be a positive multiple of "
                    f"online.frames_per_batch={self.frames_per_batch}."
                )
        if self.initial_frames > self.frames:
            raise ValueError(
                f"online.initial_frames={self.initial_frames} must be at most "
                f"online.frames={self.frames}."
            )

    @property
    def turns(self) -> int:
        """Turns of the collector after which updates follow."""
        return 1 + (self.frames - self.initial_frames) // self.frames_per_batch

    @property
    def updates(self) -> int:
        """Updates of both phases together."""
        return self.offline_updates + self.turns * self.updates_per_batch

    def batches_due(self, step: int) -> int:
        """How many batches the collector has to bring before the update after ``step`` updates."""
        online = step - self.offline_updates
        if online < 0 or online % self.updates_per_batch:
            return 0
        return self.initial_frames // self.frames_per_batch if online == 0 else 1


@dataclass
class OfflineToOnlineRun(Run):
    """A run that goes on learning in the environment.

    Args:
        buffer: the dataset.
        replay: what batches are drawn from.
        train_env: environment of the collector.
        schedule: how updates and environment steps take turns.
        reward: what was done to the rewards of the dataset.

    Attributes:
        frames: environment steps so far.
    """

    buffer: MinariReplayBuffer
    replay: MixedReplayBuffer = field(kw_only=True)
    train_env: EnvBase = field(kw_only=True)
    schedule: Schedule = field(kw_only=True)
    reward: Callable[[Tensor], Tensor] = field(kw_only=True)
    frames: int = 0

    def __post_init__(self) -> None:
        """Makes the collector."""
        self.collector = Collector(
            self.train_env,
            self.exploration_policy(),
            frames_per_batch=self.schedule.frames_per_batch,
            total_frames=-1,
            policy_device=self.device,
            env_device="cpu",
            storing_device="cpu",
            auto_register_policy_transforms=False,  # the policy keeps no state between steps
        )
        self._batches: Iterator[TensorDictBase] = iter(self.collector)

    def exploration_policy(self) -> TensorDictModuleBase:
        """The policy of the collector: it samples, and adds noise where the config says so.

        It shares its tensors with the loss: what an update changes, it acts on.
        """
        online = self.cfg.online
        policy = self.learner.policy(
            self.cfg.actor.num_steps_eval,
            num_candidates=online.num_candidates,
            temperature=online.candidate_temperature,
        )
        if not 0.0 <= online.action_noise < math.inf:
            raise ValueError(
                f"online.action_noise must be finite and at least 0, got {online.action_noise}."
            )
        if online.action_noise == 0:
            return policy
        noise = AdditiveGaussianModule(
            self.buffer.metadata.action_spec,
            sigma_init=float(online.action_noise),
            sigma_end=float(online.action_noise),
            annealing_num_steps=1,
            device=self.device,
        )
        return TensorDictSequential(policy, noise)

    def sample(self) -> TensorDictBase:
        """Collect what is due, then draw the batch of the next update."""
        step = self.learner.step
        if step == self.schedule.offline_updates:
            self.save("offline")
        for _ in range(self.schedule.batches_due(step)):
            self.collect()
        return self.replay.sample()

    def collect(self) -> None:
        """Take one turn in the environment and keep its transitions."""
        transitions = next(self._batches).copy()
        transitions["next", "reward"] = self.reward(transitions["next", "reward"])
        self.replay.extend(transitions)
        self.frames += transitions.numel()

    def state_dict(self) -> dict[str, Any]:
        """The state of the run; episodes under way are no part of it, they start anew."""
        online = self.replay.state_dict() if len(self.replay.online) else None
        return {**super().state_dict(), "online": online, "frames": self.frames}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to the state of :meth:`state_dict`."""
        super().load_state_dict(state)
        self.frames = state["frames"]
        if state["online"] is not None:
            self.replay.load_state_dict(state["online"])

    def counters(self) -> dict[str, float]:
        """Environment steps so far."""
        return {"train/env_steps": self.frames}

    def close(self) -> None:
        """End the collector and its environment."""
        self.collector.shutdown()
