"""Evaluation of a policy in a batched environment, the same episodes each time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type


@dataclass(frozen=True)
class Evaluation:
    """What the first episode of every environment gave.

    Attributes:
        returns: sum of rewards, shape ``[episodes]``.
        success: whether the environment reported success at any step, shape ``[episodes]``;
            ``None`` for environments that do not report it.
        paths: the observations of each episode, each of shape ``[steps, observation_dim]``.
    """

    returns: Tensor
    success: Tensor | None
    paths: list[Tensor]

    @property
    def return_mean(self) -> float:
        """Mean return."""
        return self.returns.mean().item()

    @property
    def return_std(self) -> float:
        """Standard deviation of the returns over the episodes (of the population)."""
        return self.returns.std(unbiased=False).item()

    @property
    def success_rate(self) -> float | None:
        """Share of successful episodes in [0, 1], ``None`` where success is not reported."""
        return None if self.success is None else self.success.float().mean().item()


def first_episodes(rollout: TensorDictBase) -> Evaluation:
    """Read the first episode of every environment out of a rollout.

    Args:
        rollout: what ``env.rollout`` gave, batch size ``[environments, steps]`` or ``[steps]``.
            Steps after an environment's first end are ignored.
    """
    if rollout.ndim == 1:
        rollout = rollout.unsqueeze(0)
    done = rollout["next", "done"].squeeze(-1)
    ended_before = done.cumsum(-1) - done.long() > 0
    lengths = (~ended_before).sum(-1).tolist()
    rewards = rollout["next", "reward"].squeeze(-1).masked_fill(ended_before, 0.0)
    success = rollout.get(("next", "success"), None)
    if success is not None:
        success = (success.flatten(2).any(-1) & ~ended_before).any(-1)
    observations = rollout["observation"]
    return Evaluation(
        returns=rewards.sum(-1),
        success=success,
        paths=[path[:length] for path, length in zip(observations, lengths, strict=True)],
    )


def evaluate(
    env: EnvBase,
    policy: TensorDictModuleBase,
    *,
    num_episodes: int,
    max_steps: int,
    seed: int,
) -> Evaluation:
    """Run whole episodes with the sampling policy and leave the global generators as they were.

    The environments and the policy's noise start from ``seed``, so that two policies, or one policy
    at two times, meet the same episodes.

    Args:
        env: a TorchRL environment, batched or not.
        policy: reads observations and writes actions; sampled under ``ExplorationType.RANDOM``.
        num_episodes: episodes to run, in rounds of one episode an environment.
        max_steps: steps after which an episode is cut.
        seed: seed of these episodes.
    """
    if num_episodes < 1:
        raise ValueError(f"num_episodes must be at least 1, got {num_episodes}.")
    rounds = []
    with (
        torch.random.fork_rng(),
        torch.no_grad(),
        set_exploration_type(ExplorationType.RANDOM),
    ):
        torch.manual_seed(seed)
        env.set_seed(seed)
        for _ in range(math.ceil(num_episodes / max(1, env.batch_size.numel()))):
            rollout = env.rollout(
                max_steps,
                policy,
                auto_cast_to_device=True,
                break_when_any_done=False,
            )
            rounds.append(first_episodes(rollout.cpu()))
    paths = [path for part in rounds for path in part.paths]
    success = [part.success for part in rounds if part.success is not None]
    return Evaluation(
        returns=torch.cat([part.returns for part in rounds])[:num_episodes],
        success=torch.cat(success)[:num_episodes] if success else None,
        paths=paths[:num_episodes],
    )


def milliseconds_per_action(
    policy: TensorDictModuleBase, observation: Tensor, *, repeats: int = 100
) -> float:
    """Time that one action takes for one observation, median of ``repeats`` calls in milliseconds.

    Args:
        policy: a policy that reads ``"observation"``.
        observation: one observation on the policy's device, shape ``[observation_dim]``.
        repeats: number of timed calls, after a tenth as many that are not.
    """
    batch = TensorDict({"observation": observation.unsqueeze(0)}, batch_size=[1])
    durations = []
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM), torch.random.fork_rng():
        for _ in range(repeats // 10 + repeats):
            start = time.perf_counter()
            policy(batch.copy())
            if observation.is_cuda:
                torch.cuda.synchronize(observation.device)
            durations.append(time.perf_counter() - start)
    return 1e3 * torch.tensor(durations[repeats // 10 :]).median().item()
