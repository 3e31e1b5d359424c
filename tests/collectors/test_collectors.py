"""TorchRL's collectors act on this library's policies, and follow the learner's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.collectors import BaseCollector, Collector, MultiAsyncCollector, MultiSyncCollector
from torchrl.data import Bounded
from torchrl.envs import GymEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.objectives import SoftUpdate
from torchrl.weight_update import MultiProcessWeightSyncScheme

from torchrl_gtp import CandidateActor, GTPActor, GTPLoss, make_actor_critic, make_gtp_actor

# Importable by name, so that worker processes can make their own.
make_env = partial(GymEnv, "Pendulum-v1")
FRAMES = 8


def make_policy(seed: int = 0) -> GTPActor:
    env = make_env()
    torch.manual_seed(seed)
    actor, _ = make_actor_critic(env.observation_spec, env.action_spec, hidden_sizes=(8,))
    # The last layer starts at zero: two new actors would act alike.
    torch.nn.init.normal_(list(actor.parameters())[-1])
    return actor


def make_loss(seed: int = 0) -> GTPLoss:
    env = make_env()
    actor = make_policy(seed)
    _, qvalue = make_actor_critic(env.observation_spec, env.action_spec, hidden_sizes=(8,))
    return GTPLoss(actor, qvalue)


def agree(batch: TensorDictBase, policy: TensorDictModuleBase) -> bool:
    """Whether the actions in a batch are those of the policy without noise."""
    observation = batch["observation"].flatten(0, -2)
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        action = policy(TensorDict({"observation": observation}, [len(observation)]))["action"]
    return torch.allclose(batch["action"].flatten(0, -2), action, rtol=0, atol=1e-5)


def weights(policy: TensorDictModuleBase) -> TensorDictBase:
    # A Collector in this process takes no module here, whatever its documentation says.
    return TensorDict.from_module(policy).data


def change(policy: torch.nn.Module) -> None:
    """Takes a step, as an optimiser would: in place.

    A small one: with large weights a batch of one and a batch of eight round to actions further
    apart than the tolerance.
    """
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.fixture
def collect() -> Iterator[Callable[..., BaseCollector]]:
    """Makes collectors of the noise-free policy and ends them after the test."""
    made: list[BaseCollector] = []

    def make(kind: type, envs: object, policy: object = None, **options: object) -> BaseCollector:
        options.setdefault("exploration_type", ExplorationType.DETERMINISTIC)
        collector = kind(
            envs,
            policy,
            frames_per_batch=FRAMES,
            total_frames=-1,
            auto_register_policy_transforms=False,
            **options,
        )
        made.append(collector)
        return collector

    yield make
    for collector in made:
        collector.shutdown()


def policies() -> dict[str, Callable[[], TensorDictModuleBase]]:
    return {
        "actor": make_policy,
        "target_actor": lambda: make_loss().target_actor(),
        "candidate_actor": lambda: make_loss().candidate_actor(num_candidates=3),
    }


@pytest.mark.filterwarnings("ignore:No target network updater")
@pytest.mark.parametrize("kind", ["actor", "target_actor", "candidate_actor"])
def test_collector_follows_the_policy_that_it_was_given(collect, kind: str) -> None:
    policy = policies()[kind]()
    collector = collect(Collector, make_env(), policy)
    batches = iter(collector)
    before = next(batches).clone()
    assert before.batch_size == torch.Size([FRAMES])
    assert agree(before, policy)
    change(policy)
    # In one process the collector acts on the very tensors of the learner.
    after = next(batches)
    assert agree(after, policy)
    assert not agree(before, policy)


def test_collector_acts_on_the_moving_average_of_a_loss(collect) -> None:
    loss = make_loss()
    updater = SoftUpdate(loss, tau=0.5)
    policy = loss.target_actor()
    collector = collect(Collector, make_env(), policy)
    batches = iter(collector)
    before = next(batches).clone()
    change(loss)
    updater.step()
    after = next(batches)
    assert agree(after, policy)
    assert not agree(before, policy)


def test_weights_of_another_policy(collect) -> None:
    learner = make_policy(seed=1)
    collector = collect(Collector, make_env(), make_policy())
    batches = iter(collector)
    assert not agree(next(batches), learner)
    collector.update_policy_weights_(weights(learner))
    assert agree(next(batches), learner)
    change(learner)
    assert not agree(next(batches), learner)
    collector.update_policy_weights_(weights(learner))
    assert agree(next(batches), learner)


def test_policy_factory(collect) -> None:
    learner = make_policy()
    collector = collect(Collector, make_env, policy_factory=make_policy)
    batches = iter(collector)
    assert agree(next(batches), learner)
    change(learner)
    collector.update_policy_weights_(weights(learner))
    assert agree(next(batches), learner)


@pytest.mark.parametrize("num_candidates", [1, 4])
def test_random_exploration_samples_the_policy(collect, num_candidates: int) -> None:
    loss = make_loss()
    SoftUpdate(loss, tau=0.5)
    policy = loss.candidate_actor(num_candidates)
    assert isinstance(policy, CandidateActor)
    collector = collect(Collector, make_env(), policy, exploration_type=ExplorationType.RANDOM)
    batch = next(iter(collector))
    assert not agree(batch, policy)
    assert len(batch["action"].unique()) > 1
    assert (batch["action"].abs() <= 2).all()


def test_compiled_policy(collect) -> None:
    policy = make_policy()
    collector = collect(
        Collector,
        make_env(),
        policy,
        exploration_type=ExplorationType.RANDOM,
        # The default back end compiles for seconds; what the collector does is the same.
        compile_policy={"backend": "eager", "fullgraph": True, "warmup": 1},
    )
    batches = iter(collector)
    for _ in range(2):
        batch = next(batches)
        assert batch["action"].isfinite().all()
        assert len(batch["action"].unique()) == FRAMES


def test_graph_capture_is_harmless_without_a_gpu(collect) -> None:
    policy = make_policy()
    options = {"exploration_type": ExplorationType.RANDOM, "cudagraph_policy": {"warmup": 2}}
    with pytest.warns(UserWarning, match="(?i)cuda"):
        batch = next(iter(collect(Collector, make_env(), policy, **options)))
    assert len(batch["action"].unique()) == FRAMES


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compile_policy", [False, {"mode": "default", "warmup": 1}])
def test_captured_policy_draws_anew(collect, compile_policy) -> None:
    policy = make_policy().cuda()
    collector = collect(
        Collector,
        make_env,
        policy,
        exploration_type=ExplorationType.RANDOM,
        policy_device="cuda",
        env_device="cpu",
        storing_device="cpu",
        compile_policy=compile_policy,
        cudagraph_policy={"warmup": 3},
    )
    batches = iter(collector)
    for _ in range(3):
        assert len(next(batches)["action"].unique()) == FRAMES


@pytest.mark.filterwarnings("ignore:No target network updater")
def test_sync_workers_follow_the_learner(collect) -> None:
    learner = make_loss().target_actor()
    collector = collect(MultiSyncCollector, [make_env, make_env], make_loss().target_actor())
    batches = iter(collector)
    before = next(batches).clone()
    assert before.batch_size == torch.Size([2, FRAMES // 2])
    assert agree(before, learner)
    change(learner)
    assert not agree(next(batches), learner)
    collector.update_policy_weights_(weights(learner))
    after = next(batches)
    assert agree(after, learner)


@pytest.mark.filterwarnings("ignore:No target network updater")
def test_async_workers_follow_the_learner(collect) -> None:
    learner = make_loss().candidate_actor(num_candidates=3)
    collector = collect(
        MultiAsyncCollector, [make_env], make_loss().candidate_actor(num_candidates=3)
    )
    batches = iter(collector)
    assert agree(next(batches), learner)
    change(learner)
    collector.update_policy_weights_(weights(learner))
    # Batches that were under way still come from the former weights.
    assert any(agree(next(batches), learner) for _ in range(5))
    assert agree(next(batches), learner)


def test_policy_factory_in_a_worker(collect) -> None:
    # Importable by name: the worker makes a policy of its own.
    factory = partial(make_gtp_actor, 3, Bounded(-2, 2, (1,)), hidden_sizes=(8,))
    learner = make_policy()
    scheme = {"policy": MultiProcessWeightSyncScheme()}
    collector = collect(
        MultiSyncCollector, [make_env], policy_factory=factory, weight_sync_schemes=scheme
    )
    batches = iter(collector)
    assert not agree(next(batches), learner)
    collector.update_policy_weights_(weights(learner))
    assert agree(next(batches), learner)
