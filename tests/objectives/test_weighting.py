"""Ways to weight samples by their advantage, or not at all."""

from __future__ import annotations

import pytest
import torch
from torchrl.objectives import SoftUpdate

from tests.objectives.contract.case import call, total_of
from tests.objectives.gtp_cases import make_batch, make_loss
from torchrl_gtp.flow_map import exponential_weight


def make(mode="critic", **options):
    loss = make_loss(mode, **options)
    SoftUpdate(loss, tau=0.005)
    return loss


def test_exponential_weights_follow_the_advantage_itself():
    """exp(A / beta), bounded above alone: no truncation and no standard deviation."""
    loss, td = make(weighting="exponential", eta=20.0, max_weight=2.0), make_batch(64)
    torch.manual_seed(5)
    advantage = loss.advantage(td)
    assert (advantage < 0).any() and (advantage > 0).any()
    torch.manual_seed(5)
    weight, metadata = loss.weight(td)
    torch.testing.assert_close(weight, (20.0 * advantage).exp().clamp_max(2.0))
    assert ((weight < 1) == (advantage < 0)).all()
    assert not weight.requires_grad
    torch.testing.assert_close(metadata["clipped_share"], (weight == 2.0).to(weight.dtype))

    out = call(loss, td)
    assert out["weight_max"] <= 2.0 and td["advantage_weight"].min() < 1


def test_exponential_weights_of_masked_samples():
    weight = exponential_weight(
        torch.tensor([-1.0, float("nan")]), 2.0, mask=torch.tensor([True, False])
    )
    torch.testing.assert_close(weight, torch.tensor([-2.0, 0.0]).exp())

    loss, td = make(weighting="exponential", eta=5.0), make_batch(16)
    td["loss_noise"] = loss.draw_noise(td)
    best = loss.weight(td)[0].argmax()
    td["collector", "mask"] = torch.arange(16) != best
    out = call(loss, td)
    kept = td["advantage_weight"][td["collector", "mask"]]
    torch.testing.assert_close(out["weight_max"], kept.max())
    torch.testing.assert_close(out["weight_mean"], kept.mean())


@pytest.mark.parametrize("mode", ["critic", "value"])
def test_without_weights_the_policy_clones_beside_a_critic(mode, monkeypatch):
    loss, cloning = make(mode, weighting="none"), make("bc")
    td = make_batch()
    td["loss_noise"] = loss.draw_noise(td)
    monkeypatch.setattr(loss, "advantage", lambda _: pytest.fail("No advantage is needed."))
    out, expected = loss(td), cloning(td)
    for name in ("loss_consistency", "loss_flow"):
        torch.testing.assert_close(out[name], expected[name])
    assert {"loss_qvalue", "td_error"} <= set(out.keys())
    assert not {"advantage", "weight_mean", "weight_max"} & set(out.keys())
    assert "advantage_weight" not in td.keys() and "td_error" in td.keys()
    total_of(out).backward()
    assert all(parameter.grad is not None for parameter in loss.parameters())
