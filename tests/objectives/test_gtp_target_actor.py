"""The policies that GTPLoss gives out: they share the moving average with it."""

from __future__ import annotations

import copy
import pickle

import gymnasium as gym
import torch
from torchrl.collectors import Collector
from torchrl.data import Bounded
from torchrl.envs import GymWrapper
from torchrl.objectives import SoftUpdate

from tests.objectives.gtp_cases import SIZES, make_batch, make_loss
from torchrl_gtp import GTPLoss, make_gtp_actor
from torchrl_gtp.envs import point_maze_spec


def test_target_actor_follows_the_updater():
    loss, td = make_loss(), make_batch()
    updater = SoftUpdate(loss, eps=0.5)
    target = loss.target_actor()
    td["noise"] = torch.randn(8, 2)
    before = target(td.clone())["action"]
    with torch.no_grad():
        for parameter in loss.actor_network_params.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    assert torch.equal(target(td.clone())["action"], before)
    for _ in range(60):
        updater.step()
    current = loss.get_stateful_net("actor_network")
    torch.testing.assert_close(target(td.clone())["action"], current(td.clone())["action"])
    assert not torch.equal(current(td.clone())["action"], before)
    assert target.num_steps == 2


def test_target_actor_is_a_whole_module():
    loss = make_loss()
    SoftUpdate(loss, tau=0.005)
    target, td = loss.target_actor(), make_batch()
    td["noise"] = torch.randn(8, 2)
    expected = target(td.clone())["action"]
    fresh = make_gtp_actor(3, Bounded(-2, 2, (2,)), num_steps=2, **SIZES)
    fresh.load_state_dict(target.state_dict())
    for other in (fresh, copy.deepcopy(target), pickle.loads(pickle.dumps(target))):
        torch.testing.assert_close(other(td.clone())["action"], expected)
    double = copy.deepcopy(target).double()
    torch.testing.assert_close(double(td.clone())["action"].float(), expected)
    assert not any(p.requires_grad for p in target.parameters())
    names = {name for name, _ in fresh.named_parameters()}
    assert {name for name, _ in target.named_parameters()} == names


def test_target_actor_in_a_collector():
    loss = GTPLoss(make_gtp_actor(4, Bounded(-1, 1, (2,)), **SIZES))
    SoftUpdate(loss, tau=0.005)
    collector = Collector(
        lambda: GymWrapper(gym.make(point_maze_spec("umaze"))),
        loss.target_actor(),
        frames_per_batch=10,
        total_frames=10,
        auto_register_policy_transforms=False,
    )
    (batch,) = list(collector)
    collector.shutdown()
    assert batch["action"].shape == (10, 2) and batch["action"].abs().max() <= 1
