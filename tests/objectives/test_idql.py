"""The losses of IDQL (arXiv 2304.10573), written out from its published code."""

from __future__ import annotations

import pytest
import torch

from tests.objectives.gtp_cases import make_batch, make_loss
from torchrl_gtp import TargetUpdate
from torchrl_gtp.flow_map import VPSchedule, family


def prepared(td, **options):
    loss = make_loss("value", objective=family("ddpm").objective, weighting="none", **options)
    TargetUpdate(loss, 0.005)
    with torch.no_grad():
        for params in (loss.qvalue_network_params, loss.target_qvalue_network_params):
            for parameter in params.values(True, True):
                parameter.data.add_(0.2 * torch.randn_like(parameter))
    td["loss_noise"] = loss.draw_noise(td)
    return loss


def values(loss, td):
    network = loss.get_stateful_net("value_network", copy=True)
    return network(td.clone())["state_value"].squeeze(-1)


def qvalues(loss, td, params):
    out = []
    for member in params.unbind(0):
        with member.data.to_module(loss.qvalue_network):
            inputs = td.select("observation", "action")
            out.append(loss.qvalue_network(inputs)["state_action_value"].squeeze(-1))
    return torch.stack(out)


@pytest.mark.parametrize("expectile", [0.7, 0.9])
def test_value_loss(expectile):
    """mean |tau - 1(Q < V)| (Q - V)^2 with the smaller of the delayed Q."""
    td = make_batch(16)
    loss = prepared(td, expectile=expectile)
    difference = qvalues(loss, td, loss.target_qvalue_network_params).min(0).values
    difference = difference - values(loss, td)
    weight = (expectile - (difference <= 0).float()).abs()
    got, _ = loss.value_loss(td)
    torch.testing.assert_close(got, (weight * difference.square()).mean())
    got.backward()
    assert all(p.grad is None for p in loss.qvalue_network_params.parameters())


def test_critic_loss():
    """Target r + gamma (1 - terminated) V(o'), V without delay; no sample of the policy."""
    td = make_batch(16)
    loss = prepared(td).make_value_estimator(gamma=0.9)
    alive = 1 - td["next", "terminated"].float().squeeze(-1)
    target = td["next", "reward"].squeeze(-1) + 0.9 * alive * values(loss, td["next"]).detach()
    error = (qvalues(loss, td, loss.qvalue_network_params) - target).square()
    got, _ = loss.qvalue_loss(td)
    torch.testing.assert_close(got, error.mean(1).sum())
    got.backward()
    assert all(p.grad is None for p in loss.value_network_params.parameters())


def test_actor_loss():
    """The error of the noise at one of five levels, summed over the action, without weights."""
    td = make_batch(32)
    loss = prepared(td)
    betas = VPSchedule(5).betas()
    kept = torch.cumprod(1 - betas, 0)
    uniform, noise = td["loss_noise", "flow_time"], td["loss_noise", "flow_noise"]
    index = (5 * uniform).floor().long()
    signal, spread = kept[index].sqrt(), (1 - kept[index]).sqrt()
    noisy = signal * td["action"] + spread * noise
    flow_map = loss.get_stateful_net("actor_network", copy=True).flow_map
    # The flow map works on a_t = x_t / sqrt(abar) at t = sqrt(1 - abar) / sqrt(abar).
    denoised = flow_map.denoise(noisy / signal, spread / signal, td["observation"])
    predicted = (noisy - signal * denoised) / spread
    expected = (predicted - noise).square().sum(-1).mean()
    torch.testing.assert_close(loss.flow_loss(td)[0], expected, rtol=1e-4, atol=1e-5)
    out = loss(td)
    torch.testing.assert_close(out["loss_flow"], expected, rtol=1e-4, atol=1e-5)
    assert {"loss_qvalue", "loss_value"} <= set(out.keys()) and "weight_mean" not in out.keys()
