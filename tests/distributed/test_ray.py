"""Ray on this machine: collection in a remote worker, and evaluation."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.collectors import Evaluator
from torchrl.data import Bounded
from torchrl.envs import GymEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type

from torchrl_gtp import GTPActor, make_gtp_actor

_has_ray = importlib.util.find_spec("ray") is not None
pytestmark = [
    pytest.mark.skipif(not _has_ray, reason='needs ray: pip install "torchrl_gtp[ray]"'),
    pytest.mark.slow,  # Ray's own processes take long to start on few cores
]
# Importable by name in the workers.
make_env = partial(GymEnv, "Pendulum-v1")
FRAMES = 8
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 * MEGABYTE,
        log_to_driver=False,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
    )
    yield
    ray.shutdown()


def make_policy() -> GTPActor:
    torch.manual_seed(0)
    policy = make_gtp_actor(3, Bounded(-2, 2, (1,)), hidden_sizes=(8,))
    # The last layer starts at zero: two new actors would act alike.
    torch.nn.init.normal_(list(policy.parameters())[-1])
    return policy


def agree(batch: TensorDictBase, policy: TensorDictModuleBase) -> bool:
    """Whether the actions in a batch are those of the policy without noise."""
    observation = batch["observation"].flatten(0, -2)
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        action = policy(TensorDict({"observation": observation}, [len(observation)]))["action"]
    return torch.allclose(batch["action"].flatten(0, -2), action, rtol=0, atol=1e-5)


def test_remote_collector_follows_the_learner(cluster: None) -> None:
    from torchrl.collectors.distributed import RayCollector

    policy = make_policy()
    collector = RayCollector(
        [make_env],
        policy,
        frames_per_batch=FRAMES,
        total_frames=20 * FRAMES,
        sync=True,
        exploration_type=ExplorationType.DETERMINISTIC,
        remote_configs={"num_cpus": 1, "num_gpus": 0, "memory": 500 * MEGABYTE},
        collector_kwargs={"auto_register_policy_transforms": False},
    )
    try:
        batches = iter(collector)
        batch = next(batches)
        assert batch.numel() == FRAMES
        assert agree(batch, policy)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(torch.randn_like(parameter))
        assert not agree(next(batches), policy)
        collector.update_policy_weights_(policy)
        # A batch that was under way still comes from the former weights.
        assert any(agree(next(batches), policy) for _ in range(2))
        assert agree(next(batches), policy)
    finally:
        # Ray goes on: it belongs to all tests of this file.
        collector.shutdown(shutdown_ray=False)


def test_remote_evaluator(cluster: None) -> None:
    policy = make_policy()
    evaluator = Evaluator(
        make_env,
        # A lambda travels by value: Ray's workers do not find this file by name.
        policy_factory=lambda env=None: make_gtp_actor(3, Bounded(-2, 2, (1,)), hidden_sizes=(8,)),
        max_steps=5,
        backend="ray",
        num_gpus=0,
    )
    try:
        metrics = evaluator.evaluate(weights=policy, step=3)
        # This back end runs one episode, whatever num_trajectories is.
        assert (metrics["eval/episode_length"], metrics["eval/step"]) == (5, 3)
        assert -5 * 16.3 < metrics["eval/reward"] < 0
    finally:
        evaluator.shutdown()
