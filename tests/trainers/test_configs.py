from __future__ import annotations

import dataclasses
import functools
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate
from tensordict import TensorDict
from torchrl.objectives import SoftUpdate

from recipes.common.options import keyword_defaults
from torchrl_gtp import (
    CandidateActor,
    GTPActor,
    GTPLoss,
    NoiseLevels,
    TargetUpdate,
    make_gtp_actor,
    make_qvalue,
    make_value,
)
from torchrl_gtp.objectives import LossCritic, QGradientLoss, make_critic
from torchrl_gtp.trainers import (
    CandidateActorConfig,
    CriticConfig,
    GTPActorConfig,
    GTPLossConfig,
    NoiseLevelsConfig,
    QGradientLossConfig,
    QValueConfig,
    TargetUpdateConfig,
    ValueConfig,
    register_configs,
)

SPEC = {"_target_": "torchrl.data.Bounded", "low": -1, "high": 1, "shape": [2]}
# Of the config alone.
HYDRA = {"_target_", "_partial_"}


def batch(size: int = 8) -> TensorDict:
    flag = torch.zeros(size, 1, dtype=torch.bool)
    following = {
        "observation": torch.randn(size, 4),
        "reward": torch.randn(size, 1),
        "done": flag,
        "terminated": flag,
    }
    return TensorDict(
        {
            "observation": torch.randn(size, 4),
            "action": torch.rand(size, 2) * 2 - 1,
            "next": following,
        },
        batch_size=[size],
    )


def plain(value: Any) -> Any:
    """What a default means, wherever it is written down."""
    if isinstance(value, functools.partial):
        value = value.func
    return tuple(value) if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("config", "target", "config_only", "required"),
    [
        (GTPLossConfig, GTPLoss, {"gamma"}, {"actor_network"}),
        (QGradientLossConfig, QGradientLoss, {"gamma"}, {"actor_network"}),
        (GTPActorConfig, make_gtp_actor, set(), {"observation_dim", "action_spec"}),
        (QValueConfig, make_qvalue, set(), {"observation_dim", "action_dim"}),
        (ValueConfig, make_value, set(), {"observation_dim"}),
        (CandidateActorConfig, CandidateActor, set(), {"actor", "qvalue_networks"}),
        (NoiseLevelsConfig, NoiseLevels, set(), set()),
        (CriticConfig, make_critic, {"options"}, {"kind", "actor_network", "observation_dim"}),
        (TargetUpdateConfig, TargetUpdate, set(), {"loss_module", "tau"}),
    ],
)
def test_config_has_every_argument_with_its_default(
    config: type, target: Callable, config_only: set[str], required: set[str]
) -> None:
    fields = {field.name: field for field in dataclasses.fields(config)}
    defaults = keyword_defaults(target)
    # The loss gives its critic the actor.
    given = {"actor_network"} if config is CriticConfig else set()
    assert set(fields) - HYDRA - config_only == set(defaults) - given
    assert {n for n, v in defaults.items() if v is inspect.Parameter.empty} == required
    # As Hydra instantiates them: an activation is a factory of modules.
    values = instantiate({name: getattr(config(), name) for name in set(defaults) - required})
    for name, value in values.items():
        assert plain(value) == defaults[name], name


def test_critic_and_rates_from_configs() -> None:
    actor = GTPActorConfig(observation_dim=4, action_spec=SPEC, hidden_sizes=[16])
    critic = CriticConfig(
        kind="iql",
        observation_dim=4,
        networks={"hidden_sizes": [16]},
        gamma=0.9,
        options={"expectile": 0.7},
    )
    loss = instantiate(GTPLossConfig(actor_network=actor, critic=critic))
    assert isinstance(loss.critic, LossCritic) and loss.critic.loss_module.expectile == 0.7
    rates = TargetUpdateConfig(tau={"actor_network": 0.1, "qvalue_network": 0.2})
    updater = instantiate(rates)(loss)
    assert loss(batch())["loss_value"].isfinite()
    assert round(updater.tau["critic.loss_module.qvalue_network"].item(), 3) == 0.2


def test_q_gradient_loss_from_its_config() -> None:
    actor = GTPActorConfig(observation_dim=4, action_spec=SPEC, hidden_sizes=[16])
    qvalue = QValueConfig(observation_dim=4, action_dim=2, hidden_sizes=[16])
    config = QGradientLossConfig(actor_network=actor, qvalue_network=qvalue, q_weight=0.5)
    loss = instantiate(config)
    assert type(loss) is QGradientLoss and loss.q_weight == 0.5
    assert ConfigStore.instance().load("loss/q_gradient.yaml").node.weighting == "none"


def test_loss_from_composed_yaml_takes_a_step(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        """
defaults:
  - loss@loss: gtp
  - model@loss.actor_network: gtp_actor
  - noise_levels@loss.actor_network.noise_levels: karras
  - model@loss.qvalue_network: gtp_qvalue
  - model@loss.value_network: gtp_value
  - optimizer@optimizer: adam
  - target_net_updater@updater: soft
  - _self_
loss:
  eta: 3.0
  gamma: 0.95
  time_sampler: karras_grid
  actor_network:
    observation_dim: 4
    action_spec: {_target_: torchrl.data.Bounded, low: -1, high: 1, shape: [2]}
    hidden_sizes: [16]
    noise_levels: {sigma_max: 80.0}
    activation: {_target_: torch.nn.SiLU}
  qvalue_network: {observation_dim: 4, action_dim: 2, hidden_sizes: [16]}
  value_network: {observation_dim: 4, hidden_sizes: [16]}
optimizer: {_partial_: true, lr: 0.01}
updater: {loss_module: null, tau: 0.5, eps: null}
"""
    )
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        cfg = compose("config")
    torch.manual_seed(0)
    loss = instantiate(cfg.loss)
    assert isinstance(loss, GTPLoss)
    assert loss.eta == 3
    assert loss.value_estimator.gamma == pytest.approx(0.95)
    optimizer = instantiate(cfg.optimizer)(params=loss.parameters())
    updater = instantiate(cfg.updater)(loss_module=loss)
    assert isinstance(updater, SoftUpdate)
    actor = loss.target_actor()
    assert actor.flow_map.noise_levels == NoiseLevels(sigma_max=80.0)
    assert any(isinstance(module, torch.nn.SiLU) for module in actor.modules())

    data = batch()
    before = loss.actor_network_params.data.clone()
    losses = loss(data)
    sum(value for key, value in losses.items() if key.startswith("loss_")).backward()
    optimizer.step()
    updater.step()
    assert not (loss.actor_network_params.data == before).all()
    assert not (loss.target_actor_network_params.data == before).all()


def test_networks_may_come_later() -> None:
    factory = instantiate(GTPLossConfig(_partial_=True, lambda_flow=2.0))
    actor = instantiate(GTPActorConfig(observation_dim=4, action_spec=SPEC))
    loss = factory(actor_network=actor, qvalue_network=None, value_network=None)
    assert not loss.has_critic
    assert loss.lambda_flow == 2
    partials = GTPLossConfig(
        actor_network=GTPActorConfig(observation_dim=4, action_spec=SPEC, _partial_=True),
        qvalue_network=QValueConfig(observation_dim=4, action_dim=2, _partial_=True),
    )
    assert instantiate(partials).has_critic


def test_nested_keys_are_lists_in_a_config() -> None:
    config = GTPActorConfig(
        observation_dim=6,
        action_spec=SPEC,
        observation_keys=[["agent", "position"], "goal"],
        action_key=["agent", "action"],
    )
    actor = instantiate(config)
    assert isinstance(actor, GTPActor)
    assert actor.in_keys == [("agent", "position"), "goal"]
    assert actor.out_keys == [("agent", "action")]
    qvalue = instantiate(QValueConfig(observation_dim=4, action_dim=2, action_key=["a", "b"]))
    assert qvalue.in_keys == ["observation", ("a", "b")]


def test_candidate_actor() -> None:
    critic = QValueConfig(observation_dim=4, action_dim=2)
    config = CandidateActorConfig(
        actor=GTPActorConfig(observation_dim=4, action_spec=SPEC),
        qvalue_networks=[critic, critic],
        num_candidates=3,
        temperature=0.5,
    )
    policy = instantiate(config)
    assert isinstance(policy, CandidateActor)
    assert (policy.num_candidates, policy.temperature) == (3, 0.5)
    assert len(policy.qvalue_networks) == 2
    assert policy(observation=torch.randn(5, 4)).shape == (5, 2)


def test_bad_value_is_an_error_of_the_library() -> None:
    actor = GTPActorConfig(observation_dim=4, action_spec=SPEC)
    with pytest.raises(Exception, match="teacher must be 'current' or 'ema', got 'best'"):
        instantiate(GTPLossConfig(actor_network=actor, teacher="best"))


def test_registration_can_be_repeated() -> None:
    register_configs()
    assert "gtp.yaml" in ConfigStore.instance().list("loss")
    # TorchRL's own stay.
    assert "sac.yaml" in ConfigStore.instance().list("loss")


def test_core_library_does_not_import_hydra() -> None:
    code = (
        "import sys, torchrl_gtp; assert not {'hydra', 'torchrl_gtp.trainers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
