"""IDQL's published learner, and our loss with its weights."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from tensordict import TensorDict
from torch import nn
from torchrl.modules import ValueOperator

from benchmarks.parity.adapters import NoisePrediction
from benchmarks.parity.batch import ACTION_DIM, GAMMA, OBSERVATION_DIM, make_batch
from benchmarks.parity.flax_networks import FlaxNetwork, copy_layers
from benchmarks.parity.networks import make_actor, set_targets
from benchmarks.parity.peers import import_from
from torchrl_gtp import GTPActor, GTPLoss, TargetUpdate, make_qvalue, make_value
from torchrl_gtp.flow_map import AncestralSampler, VPSchedule, family

__all__ = [
    "CANDIDATES",
    "NUM_BLOCKS",
    "SCHEDULE",
    "arrays",
    "import_learner",
    "make_learner",
    "make_loss",
    "wrap",
]

SCHEDULE = VPSchedule(5)
CANDIDATES = 64
NUM_BLOCKS = 3
_HIDDEN: dict[str, Any] = {"hidden_sizes": (256, 256), "activation": nn.ReLU}


def import_learner(peer: Path) -> ModuleType:
    """Imports the learner and its networks, and nothing else, from a checkout.

    The files of its packages import all other learners, D4RL and the simulators; of gym and of
    the datasets the learner names types alone.
    """
    packages = ("jaxrl5.agents", "jaxrl5.agents.ddpm_iql", "jaxrl5.data")
    stubs: dict[str, dict[str, Any]] = {
        name: {"__path__": [str(peer.resolve().joinpath(*name.split(".")))]} for name in packages
    }
    stubs["jaxrl5.data.dataset"] = {"DatasetDict": dict}
    stubs["gym"] = {"spaces": SimpleNamespace(Space=object, Box=object)}
    (learner,) = import_from(peer, "jaxrl5.agents.ddpm_iql.ddpm_iql_learner", stubs=stubs)
    return learner


def make_learner(learner: ModuleType) -> Any:
    """Builds the published agent in double precision, and lets it train a little."""
    import jax

    observations, actions = (
        SimpleNamespace(shape=(size,), sample=functools.partial(np.zeros, size))
        for size in (OBSERVATION_DIM, ACTION_DIM)
    )
    agent = learner.DDPMIQLLearner.create(
        0,
        observations,
        actions,
        actor_architecture="ln_resnet",
        actor_num_blocks=NUM_BLOCKS,
        actor_layer_norm=True,
        discount=GAMMA,
        N=CANDIDATES,
        T=SCHEDULE.num_levels,
    )

    def in_double(array: Any) -> Any:
        # Flax makes weights in single precision even where jax computes in double.
        is_real = jax.numpy.issubdtype(jax.numpy.asarray(array).dtype, jax.numpy.floating)
        return jax.numpy.asarray(array, dtype="float64") if is_real else array

    agent = jax.tree_util.tree_map(in_double, agent)
    # So that copies differ and actions make sense.
    for _ in range(50):
        agent, _ = agent.update(arrays(make_batch()))
    return agent


def arrays(batch: TensorDict) -> dict[str, np.ndarray]:
    """Renames the entries of a batch as the learner has them."""
    after = batch["next"]
    return {
        "observations": batch["observation"].numpy(),
        "actions": batch["action"].numpy(),
        "next_observations": after["observation"].numpy(),
        "rewards": after["reward"].squeeze(-1).numpy(),
        "masks": 1.0 - after["terminated"].squeeze(-1).double().numpy(),
    }


def wrap(agent: Any, params: Any) -> GTPActor:
    """Builds our policy around the published network with given weights."""

    def predict(observation: np.ndarray, noisy: np.ndarray, index: np.ndarray) -> Any:
        return agent.score_model.apply_fn({"params": params}, observation, noisy, index)

    backbone = NoisePrediction(FlaxNetwork(predict), SCHEDULE)
    return make_actor(backbone, AncestralSampler(SCHEDULE, clip=False), SCHEDULE.num_levels)


def _copy_qvalues(params: Mapping[str, Any]) -> list[ValueOperator]:
    import jax

    (ensemble,) = params.values()
    networks = []
    for member in range(2):
        body = jax.tree_util.tree_map(lambda leaf, member=member: leaf[member], ensemble)
        networks.append(make_qvalue(OBSERVATION_DIM, ACTION_DIM, **_HIDDEN))
        copy_layers(networks[-1], [*body["MLP_0"].values(), body["Dense_0"]])
    return networks


def make_loss(agent: Any, expectile: float) -> GTPLoss:
    """Builds our loss with all weights of the agent."""
    value = make_value(OBSERVATION_DIM, **_HIDDEN)
    params = agent.value.params
    copy_layers(value, [*params["MLP_0"].values(), params["OutputVDense"]])
    loss = GTPLoss(
        wrap(agent, agent.score_model.params),
        _copy_qvalues(agent.critic.params),
        value,
        objective=family("ddpm").objective,
        weighting="none",
        expectile=expectile,
    )
    loss.make_value_estimator(gamma=GAMMA)
    TargetUpdate(loss, {"actor_network": 0.001, "qvalue_network": 0.005})
    set_targets(loss, "qvalue_network", _copy_qvalues(agent.target_critic.params))
    return loss
