"""TorchRL's Evaluator runs this library's policies, in a thread and in a process."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.collectors import Evaluator
from torchrl.data import Bounded
from torchrl.envs import GymEnv
from torchrl.envs.utils import ExplorationType
from torchrl.objectives import SoftUpdate

from torchrl_gtp import GTPActor, GTPLoss, make_gtp_actor

make_env = partial(GymEnv, "Pendulum-v1")
SPEC = Bounded(-2, 2, (1,))
STEPS = 5


def make_policy() -> GTPActor:
    return make_gtp_actor(3, SPEC, hidden_sizes=(8,))


def always(force: float) -> TensorDictBase:
    """Weights of a policy that pushes with a constant force."""
    policy = make_policy()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
        # The flow map's output is scaled down by far more than this bias.
        list(policy.parameters())[-1].fill_(1e4 * force)
    return TensorDict.from_module(policy).data


def forces(trajectories: TensorDictBase) -> dict[str, float]:
    action = trajectories["action"]
    valid = trajectories.get(("collector", "mask"), None)
    action = action if valid is None else action[valid]
    return {"force": action.mean().item(), "steps": float(action.shape[0])}


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_evaluation_with_given_weights(backend: str) -> None:
    evaluator = Evaluator(
        make_env,
        # A lambda travels by value: worker processes do not find this file by name.
        policy_factory=lambda env=None: make_gtp_actor(3, SPEC, hidden_sizes=(8,)),
        num_trajectories=2,
        max_steps=STEPS,
        exploration_type=ExplorationType.RANDOM,
        metrics_fn=forces,
        backend=backend,
    )
    try:
        for force in (1.0, -1.0):
            metrics = evaluator.evaluate(weights=always(force))
            assert metrics["eval/force"] == 2 * force
            assert metrics["eval/num_episodes"] == 2
            assert metrics["eval/steps"] == 2 * STEPS
            assert metrics["eval/reward"] < 0
    finally:
        evaluator.shutdown()


def test_evaluation_in_the_background_beside_a_loss() -> None:
    loss = GTPLoss(make_policy())
    updater = SoftUpdate(loss, tau=0.5)
    # The evaluator writes the weights that it gets into the policy that it was given.
    policy = deepcopy(loss.target_actor())
    evaluator = Evaluator(
        make_env(), policy, num_trajectories=1, max_steps=STEPS, metrics_fn=forces
    )
    try:
        before = loss.target_actor_network_params.data.clone()
        assert evaluator.trigger_eval(weights=always(-1.0), step=7)
        metrics = evaluator.wait()
        assert metrics is not None
        assert (metrics["eval/force"], metrics["eval/step"]) == (-2.0, 7)
        assert (loss.target_actor_network_params.data == before).all()

        loss.actor_network_params.data.update_(always(1.0))
        for _ in range(40):
            updater.step()
        metrics = evaluator.evaluate(weights=loss.target_actor())
        assert metrics["eval/force"] == 2.0
    finally:
        evaluator.shutdown()
