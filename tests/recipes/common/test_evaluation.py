from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs import EnvBase
from torchrl.envs.utils import exploration_type

from recipes.common.evaluation import evaluate, first_episodes, milliseconds_per_action


class CountingEnv(EnvBase):
    """Three environments that end after 2, 3 and 9 steps; the reward is the action."""

    def __init__(self) -> None:
        super().__init__(batch_size=[3])
        self.observation_spec = Composite(
            observation=Unbounded((3, 1)), success=Unbounded((3, 1), dtype=torch.bool), shape=[3]
        )
        self.action_spec = Bounded(-1, 1, (3, 1))
        self.reward_spec = Unbounded((3, 1))
        self._ends = torch.tensor([[2], [3], [9]])
        self._count = torch.zeros(3, 1)

    def _reset(self, tensordict=None):
        reset = torch.ones(3, 1, dtype=torch.bool)
        if tensordict is not None and "_reset" in tensordict.keys():
            reset = tensordict["_reset"].reshape(3, 1)
        self._count = torch.where(reset, 0.0, self._count)
        return self._observe()

    def _observe(self):
        return TensorDict(
            {"observation": self._count.clone(), "success": self._count == 2}, batch_size=[3]
        )

    def _step(self, tensordict):
        self._count = self._count + 1
        done = self._count >= self._ends
        return self._observe().update(
            {"reward": tensordict["action"].clone(), "done": done, "terminated": done}
        )

    def _set_seed(self, seed):
        return seed


def constant_policy() -> TensorDictModule:
    return TensorDictModule(torch.ones_like, ["observation"], ["action"])


def random_policy() -> TensorDictModule:
    return TensorDictModule(torch.rand_like, ["observation"], ["action"])


def test_only_first_episodes_count() -> None:
    result = evaluate(CountingEnv(), constant_policy(), num_episodes=3, max_steps=6, seed=0)
    assert result.returns.tolist() == [2.0, 3.0, 6.0]
    assert [len(path) for path in result.paths] == [2, 3, 6]
    assert result.success is not None
    assert result.success.tolist() == [True, True, True]
    assert result.return_mean == pytest.approx(11 / 3)
    assert result.return_std == pytest.approx(torch.tensor([2.0, 3.0, 6.0]).std(correction=0))


def test_success_after_the_end_does_not_count() -> None:
    flags = torch.tensor([[False, False, True], [False, True, False]]).unsqueeze(-1)
    done = torch.tensor([[False, True, False], [False, True, False]]).unsqueeze(-1)
    rollout = TensorDict(
        {
            "observation": torch.zeros(2, 3, 4),
            "next": {"reward": torch.ones(2, 3, 1), "done": done, "success": flags},
        },
        batch_size=[2, 3],
    )
    result = first_episodes(rollout)
    assert result.success is not None
    assert result.success.tolist() == [False, True]
    assert first_episodes(rollout.exclude(("next", "success"))).success_rate is None


def test_number_of_episodes_needs_not_fill_the_batch() -> None:
    result = evaluate(CountingEnv(), constant_policy(), num_episodes=4, max_steps=6, seed=0)
    assert result.returns.tolist() == [2.0, 3.0, 6.0, 2.0]
    assert len(result.paths) == 4


def test_same_seed_same_episodes_and_generator_untouched() -> None:
    before = torch.get_rng_state()
    first = evaluate(CountingEnv(), random_policy(), num_episodes=3, max_steps=6, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    second = evaluate(CountingEnv(), random_policy(), num_episodes=3, max_steps=6, seed=1)
    other = evaluate(CountingEnv(), random_policy(), num_episodes=3, max_steps=6, seed=2)
    assert torch.equal(first.returns, second.returns)
    assert not torch.equal(first.returns, other.returns)


def test_policy_is_sampled() -> None:
    seen = []

    def act(observation: torch.Tensor) -> torch.Tensor:
        seen.append(exploration_type().name)
        return torch.zeros_like(observation)

    policy = TensorDictModule(act, ["observation"], ["action"])
    evaluate(CountingEnv(), policy, num_episodes=3, max_steps=2, seed=0)
    assert set(seen) == {"RANDOM"}


def test_no_episodes_is_an_error() -> None:
    with pytest.raises(ValueError, match="num_episodes must be at least 1, got 0"):
        evaluate(CountingEnv(), constant_policy(), num_episodes=0, max_steps=6, seed=0)


def test_milliseconds_per_action_calls_with_one_observation() -> None:
    shapes = []

    def act(observation: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(observation.shape))
        return observation

    policy = TensorDictModule(act, ["observation"], ["action"])
    assert milliseconds_per_action(policy, torch.zeros(4), repeats=10) > 0
    assert shapes == [(1, 4)] * 11
