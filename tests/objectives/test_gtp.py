"""GTPLoss: the equations of its terms, critics and weights."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded
from torchrl.objectives import SoftUpdate, ValueEstimators

from tests.objectives.contract.case import call
from tests.objectives.gtp_cases import MODES, SIZES, make_batch, make_loss
from torchrl_gtp import GTPLoss, make_gtp_actor, make_qvalue, paper_options
from torchrl_gtp.flow_map import (
    Consistency,
    Denoising,
    KarrasGridTimes,
    LogNormalTimes,
    Objective,
    SomeRows,
)


def test_cloning_reads_observations_and_actions_only():
    assert make_loss("bc").in_keys == ["observation", "action"]


def test_td_lambda_on_sequences():
    """With lambda = 1 and no end, the target is the discounted sum up to the last next value."""
    loss, td = make_loss(), make_batch(2, 3)
    SoftUpdate(loss, tau=0.005)
    td["next", "done"].zero_()
    td["next", "terminated"].zero_()
    loss.make_value_estimator(ValueEstimators.TDLambda, gamma=0.5, lmbda=1.0)
    torch.manual_seed(3)
    loss_qvalue, _ = loss.qvalue_loss(td)
    torch.manual_seed(3)
    last = loss._next_value(td).squeeze(-1)[:, -1]
    reward = td["next", "reward"].squeeze(-1)
    target = torch.empty(2, 3)
    for step in (2, 1, 0):
        last = reward[:, step] + 0.5 * last
        target[:, step] = last
    qvalues = loss._data_qvalues(td, loss.qvalue_network_params)
    torch.testing.assert_close(loss_qvalue, (qvalues - target).square().sum(0).mean())


def test_cloning_has_no_value_estimator():
    with pytest.raises(ValueError, match="no qvalue_network"):
        make_loss("bc").make_value_estimator(gamma=0.9)


@pytest.mark.parametrize("mode", ["critic", "value"])
def test_placeholders_beyond_a_true_end_are_not_read(mode):
    td = make_batch(mode=mode)
    terminated = td["next", "terminated"].squeeze(-1)
    assert terminated.any()
    loss = make_loss(mode)
    SoftUpdate(loss, tau=0.005)
    expected = call(loss, td.clone())
    td["next", "observation"][terminated] = float("nan")
    torch.testing.assert_close(call(loss, td).detach(), expected.detach())


@pytest.mark.parametrize("num_qvalue_nets", [1, 3])
@pytest.mark.parametrize("as_list", [False, True])
def test_number_of_critics(num_qvalue_nets, as_list):
    torch.manual_seed(0)
    qvalue = make_qvalue(3, 2, **SIZES)
    if as_list:
        qvalue = [make_qvalue(3, 2, **SIZES) for _ in range(num_qvalue_nets)]
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), **SIZES)
    loss = GTPLoss(actor, qvalue, num_qvalue_nets=num_qvalue_nets)
    SoftUpdate(loss, tau=0.005)
    td = make_batch()
    assert loss._data_qvalues(td, loss.qvalue_network_params).shape == (num_qvalue_nets, 8)
    if as_list:
        for net, value in zip(
            qvalue, loss._data_qvalues(td, loss.qvalue_network_params), strict=True
        ):
            expected = net(td.clone())["state_action_value"].squeeze(-1)
            torch.testing.assert_close(value, expected)
    assert call(loss, td)["loss_qvalue"].isfinite()


def test_td_target_of_equation_11():
    """Terminated steps do not bootstrap, truncated ones do; the minimum of both delayed nets."""
    loss = make_loss()
    loss.make_value_estimator(gamma=0.9)
    SoftUpdate(loss, tau=0.005)
    with torch.no_grad():
        for parameter in loss.qvalue_network_params.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    td = make_batch(6)
    td["next", "done"] = torch.tensor([0, 1, 1, 0, 0, 1], dtype=torch.bool).unsqueeze(-1)
    td["next", "terminated"] = torch.tensor([0, 1, 0, 0, 0, 0], dtype=torch.bool).unsqueeze(-1)
    torch.manual_seed(5)
    loss_qvalue, metadata = loss.qvalue_loss(td)

    torch.manual_seed(5)
    noise = torch.randn(1, 6, 2)[0]
    action = loss.target_actor().sample(td["next", "observation"], noise)

    def qvalues(params, observation, action):
        inputs = TensorDict({"observation": observation, "action": action}, [6])
        out = []
        for index in range(2):
            with params[index].to_module(loss.qvalue_network):
                out.append(loss.qvalue_network(inputs.clone())["state_action_value"].squeeze(-1))
        return torch.stack(out)

    following = qvalues(loss.target_qvalue_network_params, td["next", "observation"], action)
    alive = 1 - td["next", "terminated"].float().squeeze(-1)
    target = td["next", "reward"].squeeze(-1) + 0.9 * alive * following.min(0).values
    current = qvalues(loss.qvalue_network_params, td["observation"], td["action"])
    torch.testing.assert_close(loss_qvalue, (current - target).square().sum(0).mean())
    torch.testing.assert_close(metadata["td_error"], (current - target).abs().max(0).values)
    torch.testing.assert_close(metadata["qvalue"], current.min(0).values)


def test_advantage_with_samples_and_with_a_value_network():
    td = make_batch()
    loss = make_loss(num_value_samples=3)
    SoftUpdate(loss, tau=0.005)
    torch.manual_seed(5)
    advantage = loss.advantage(td)
    torch.manual_seed(5)
    noise = torch.randn(8, 3, 2).movedim(1, 0)
    actor = loss.target_actor()
    values = torch.stack(
        [
            loss._qvalues(
                td.clone().set("action", actor.sample(td["observation"], sample)),
                loss.qvalue_network_params,
            )
            .min(0)
            .values
            for sample in noise
        ]
    )
    qvalue = loss._qvalues(td, loss.qvalue_network_params).min(0).values
    torch.testing.assert_close(advantage, (qvalue - values.mean(0)).detach())
    assert not advantage.requires_grad

    loss = make_loss("value")
    SoftUpdate(loss, tau=0.005)
    value = loss.get_stateful_net("value_network")(td.clone())["state_value"].squeeze(-1)
    qvalue = loss._qvalues(td, loss.target_qvalue_network_params).min(0).values
    torch.testing.assert_close(loss.advantage(td), (qvalue - value).detach())


def test_expectile_regression():
    loss, td = make_loss("value", expectile=0.8), make_batch()
    SoftUpdate(loss, tau=0.005)
    difference = loss.advantage(td)
    weight = torch.where(difference > 0, 0.8, 0.2)
    loss_value, _ = loss.value_loss(td)
    torch.testing.assert_close(loss_value, (weight * difference.square()).mean())


def test_diagnostics_describe_the_weights():
    loss, td = make_loss(eta=3.0, max_weight=5.0), make_batch(64)
    SoftUpdate(loss, tau=0.005)
    out = call(loss, td)
    torch.manual_seed(3)
    loss.qvalue_loss(td)  # the same draws as in forward
    advantage = loss.advantage(td)
    weight = (3.0 * advantage.clamp_min(0) / (advantage.std(correction=0) + 1e-6)).exp()
    torch.testing.assert_close(out["advantage"], advantage.mean())
    torch.testing.assert_close(out["positive_share"], (advantage > 0).float().mean())
    torch.testing.assert_close(out["weight_mean"], weight.clamp_max(5.0).mean())
    torch.testing.assert_close(out["weight_max"], torch.tensor(5.0))
    torch.testing.assert_close(out["clipped_share"], (weight >= 5.0).float().mean())
    assert 0 < out["clipped_share"] < 1


def test_cloning_is_eta_zero():
    td = make_batch()
    critic, cloning = make_loss(eta=0.0), make_loss("bc")
    SoftUpdate(critic, tau=0.005), SoftUpdate(cloning, tau=0.005)
    assert torch.equal(critic.weight(td)[0], torch.ones(8))
    assert cloning.weight(td) == (None, {})
    weight, _ = critic.weight(td)
    for name in ("consistency_loss", "flow_loss"):
        torch.manual_seed(6)
        expected, _ = getattr(cloning, name)(td)
        torch.manual_seed(6)
        value, _ = getattr(critic, name)(td, weight)
        torch.testing.assert_close(value, expected)


def test_lambda_flow_scales_the_flow_term_only():
    td = make_batch(mode="bc")
    outs = []
    for factor in (1.0, 0.25):
        loss = make_loss("bc", lambda_flow=factor)
        SoftUpdate(loss, tau=0.005)
        outs.append(call(loss, td))
    torch.testing.assert_close(outs[1]["loss_flow"], 0.25 * outs[0]["loss_flow"])
    torch.testing.assert_close(outs[1]["loss_consistency"], outs[0]["loss_consistency"])


def test_teacher_choice():
    td = make_batch(mode="bc")
    values = {}
    for teacher in ("current", "ema"):
        loss = make_loss("bc", teacher=teacher, robust_power=0.0)
        SoftUpdate(loss, tau=0.005)
        same = call(loss, td)["loss_consistency"]
        with torch.no_grad():
            for target in loss.target_actor_network_params.values(True, True):
                if target.is_floating_point() and target.ndim == 2:
                    target.data.add_(1.0)
        values[teacher] = same, call(loss, td)["loss_consistency"]
    torch.testing.assert_close(values["current"][0], values["ema"][0])
    torch.testing.assert_close(*values["current"])
    assert not torch.isclose(*values["ema"])


def test_actor_loss_follows_algorithm_1():
    loss, td = make_loss(), make_batch()
    SoftUpdate(loss, tau=0.005)
    total, metadata = loss.actor_loss(td)
    torch.testing.assert_close(total, metadata["loss_consistency"] + metadata["loss_flow"])
    assert {"advantage", "weight_mean"} <= set(metadata)


def test_more_backup_samples_never_lower_the_target():
    td = make_batch()
    values = []
    for samples in (1, 16):
        loss = make_loss(num_backup_samples=samples)
        SoftUpdate(loss, tau=0.005)
        torch.manual_seed(0)
        values.append(torch.stack([loss._next_value(td) for _ in range(20)]).mean())
    assert values[1] > values[0]


def test_policy_samples_use_their_own_number_of_jumps():
    td = make_batch()
    calls = []
    for num_steps, expected in ((None, 2), (4, 4)):
        loss = make_loss(policy_num_steps=num_steps)
        SoftUpdate(loss, tau=0.005)
        loss.actor_network.flow_map.register_forward_hook(lambda *_: calls.append(1))
        calls.clear()
        loss.qvalue_loss(td)
        assert len(calls) == expected


def test_the_options_of_a_term_on_some_rows_are_those_of_the_loss():
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)))
    terms = {"consistency": SomeRows(Consistency(), 4), "flow": Denoising()}
    loss = GTPLoss(actor, objective=Objective(terms))
    assert loss.time_weight == "edm" and loss.robust_power == 1.0
    loss.time_sampler = times = LogNormalTimes(mean=-2.0)
    assert loss.time_sampler == times
    assert loss.objective.terms["consistency"] == SomeRows(Consistency(times), 4)
    assert loss.objective.terms["flow"] == Denoising(times)


def test_schedule_is_read_from_tensors():
    loss, seen = make_loss("bc"), []

    class Recorder(LogNormalTimes):
        def __call__(self, reference, progress, noise_levels):
            seen.append(progress)
            return super().__call__(reference, progress, noise_levels)

    loss.time_sampler = Recorder()
    SoftUpdate(loss, tau=0.005)
    buffer = loss.progress
    loss.progress = 0.75
    loss(make_batch(mode="bc"))
    assert loss.progress is buffer and seen[0] is buffer and buffer == 0.75


def test_paper_options_are_the_papers():
    loss = GTPLoss(make_gtp_actor(3, Bounded(-1, 1, (2,)), **SIZES), **paper_options())
    assert isinstance(loss.time_sampler, KarrasGridTimes)
    assert (loss.time_weight, loss.robust_power, loss.teacher) == ("none", 0.0, "ema")
    assert loss.objective.terms["consistency"].semigroup_every is None
    assert loss.max_weight == torch.inf and loss.eta == 1.0 and loss.lambda_flow == 1.0


def test_bound_of_the_weight_can_be_set_later():
    td = make_batch(64)
    loss = make_loss(eta=3.0, max_weight=None)
    SoftUpdate(loss, tau=0.005)
    torch.manual_seed(0)
    assert loss.weight(td)[0].max() > 5.0
    loss.max_weight = 5.0
    weight, metadata = loss.weight(td)
    assert weight.max() == 5.0 and metadata["clipped_share"].sum() > 0
    other = make_loss()
    other.load_state_dict(loss.state_dict())
    assert other.max_weight == 5.0


@pytest.mark.parametrize("mode", MODES)
def test_masked_steps_enter_neither_statistics_nor_input(mode):
    td = make_batch(4, 5, mode=mode)
    mask = torch.ones(4, 5, 1, dtype=torch.bool)
    mask[:, 3:] = False
    poisoned = td.clone()
    poisoned["collector", "mask"] = mask
    poisoned.apply_(lambda x: x.masked_fill_(~mask, float("nan")) if x.is_floating_point() else x)
    poisoned["priority_weight"] = torch.ones(4, 5).masked_fill(~mask.squeeze(-1), float("nan"))
    loss = make_loss(mode)
    SoftUpdate(loss, tau=0.005)
    out = call(loss, poisoned)
    assert all(value.isfinite() for value in out.values())
    assert (poisoned["action"].isnan().any(-1, keepdim=True) == ~mask).all()
    if mode != "bc":
        # The draws differ in number, so compare what no draw enters.
        torch.testing.assert_close(out["qvalue"], call(loss, td[:, :3].clone())["qvalue"])


@pytest.mark.parametrize("mode", MODES)
def test_delayed_teacher_gets_no_gradient(mode):
    loss = make_loss(mode, teacher="ema")
    SoftUpdate(loss, tau=0.005)
    call(loss, make_batch(mode=mode))["loss_consistency"].backward()
    trained = {name for name, p in loss.named_parameters() if p.grad is not None and p.grad.any()}
    actor = {
        f"actor_network_params.{name}" for name, _ in loss.actor_network_params.named_parameters()
    }
    assert trained == actor
    assert all(buffer.grad is None for buffer in loss.buffers())
