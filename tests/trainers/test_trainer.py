"""TorchRL's own trainers run GTPLoss: built by hand, and from a config alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from tensordict import TensorDict
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import GymEnv
from torchrl.objectives import SoftUpdate
from torchrl.trainers import ReplayBufferTrainer, TargetNetUpdaterHook, Trainer, UpdateWeights

import torchrl_gtp.trainers  # noqa: F401 (registers the configs)
from torchrl_gtp import GTPLoss, make_actor_critic

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '(optimizer|post_loss)' hook stage will be replaced:FutureWarning"
)


def test_trainer_with_a_replay_buffer() -> None:
    torch.manual_seed(0)
    env = GymEnv("Pendulum-v1")
    actor, qvalue = make_actor_critic(env.observation_spec, env.action_spec, hidden_sizes=(16,))
    loss = GTPLoss(actor, qvalue)
    updater = SoftUpdate(loss, tau=0.5)
    policy = loss.target_actor()
    start = [parameter.clone() for parameter in policy.parameters()]
    collector = Collector(
        env,
        policy,
        frames_per_batch=20,
        total_frames=60,
        auto_register_policy_transforms=False,
    )
    trainer = Trainer(
        collector=collector,
        total_frames=60,
        frame_skip=1,
        optim_steps_per_batch=2,
        loss_module=loss,
        optimizer=torch.optim.Adam(loss.parameters(), lr=1e-2),
        progress_bar=False,
    )
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(100), batch_size=16)
    ReplayBufferTrainer(buffer, flatten_tensordicts=True).register(trainer)
    trainer.register_op("post_optim", TargetNetUpdaterHook(updater))
    weights = partial(TensorDict.from_module, policy)
    trainer.register_op("post_steps", UpdateWeights(collector, 1, policy_weights_getter=weights))
    trainer.train()
    assert trainer.collected_frames == 60
    assert len(buffer) == 60
    changed = [
        not torch.equal(a, b) for a, b in zip(start, collector.policy.parameters(), strict=True)
    ]
    assert all(changed)


CONFIG = """
defaults:
  - trainer@trainer: iql
  - collector@trainer.collector: sync
  - env@trainer.collector.create_env_fn: gym
  - model@trainer.collector.policy: gtp_actor
  - loss@trainer.loss_module: gtp
  - model@trainer.actor_network: gtp_actor
  - model@trainer.qvalue_network: gtp_qvalue
  - model@trainer.value_network: gtp_value
  - replay_buffer@trainer.replay_buffer: tensordict
  - storage@trainer.replay_buffer.storage: lazy_tensor
  - optimizer@trainer.optimizer: adam
  - target_net_updater@trainer.target_net_updater: soft
  - _self_
trainer:
  total_frames: 60
  optim_steps_per_batch: 2
  logger: null
  save_trainer_file: null
  progress_bar: false
  enable_logging: false
  actor_network:
    _partial_: true
    observation_dim: 3
    action_spec: {_target_: torchrl.data.Bounded, low: -2, high: 2, shape: [1]}
    hidden_sizes: [16]
  qvalue_network: {_partial_: true, observation_dim: 3, action_dim: 1, hidden_sizes: [16]}
  value_network: {_partial_: true, observation_dim: 3, hidden_sizes: [16]}
  loss_module: {_partial_: true, eta: 3.0, gamma: 0.95}
  collector:
    create_env_fn: {env_name: Pendulum-v1}
    policy:
      observation_dim: 3
      action_spec: {_target_: torchrl.data.Bounded, low: -2, high: 2, shape: [1]}
      hidden_sizes: [16]
    auto_register_policy_transforms: false
    frames_per_batch: 20
    total_frames: 60
  replay_buffer: {batch_size: 16, storage: {max_size: 100}}
  optimizer: {_partial_: true, lr: 0.01}
  target_net_updater: {tau: 0.5, eps: null}
"""


@pytest.mark.filterwarnings("ignore:IQLTrainer is an experimental")
def test_trainer_from_a_config_alone(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        trainer = instantiate(compose("config").trainer)
    loss = trainer.loss_module
    assert isinstance(loss, GTPLoss)
    assert (loss.eta, loss.has_value_network) == (3, True)
    trainer.train()
    assert trainer.collected_frames == 60
    assert len(trainer.replay_buffer) == 60
    # The trainer sends the actor's parameters to the collector's policy, which is another one.
    acting = dict(trainer.collector.policy.named_parameters())
    learned = loss.actor_network_params.flatten_keys(".")
    for name, parameter in acting.items():
        torch.testing.assert_close(parameter.data, learned[name].data, msg=name)
