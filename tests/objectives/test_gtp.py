"""GTPLoss: TorchRL's loss contract, the equations, and bad input."""

from __future__ import annotations

import copy
import pickle
import warnings

import gymnasium as gym
import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import Bounded
from torchrl.envs import GymWrapper
from torchrl.modules import MLP, ValueOperator
from torchrl.objectives import SoftUpdate, ValueEstimators
from torchrl.objectives.value import TD0Estimator

from torchrl_gtp import (
    FlowMap,
    GTPActor,
    GTPLoss,
    make_gtp_actor,
    make_qvalue,
    make_value,
    paper_options,
)
from torchrl_gtp.envs import point_maze_spec
from torchrl_gtp.flow_map import KarrasGridTimes, LogNormalTimes

MODES = ["bc", "critic", "value"]
SIZES = {"hidden_sizes": (16, 16)}


def make_loss(mode: str = "critic", *, dropout: float = 0.0, keys: dict | None = None, **options):
    torch.manual_seed(0)
    keys = keys or {}
    observation, action = keys.get("observation", "observation"), keys.get("action", "action")
    actor = make_gtp_actor(
        3,
        Bounded(-1, 1, (2,)),
        observation_keys=(observation,),
        action_key=action,
        num_steps=2,
        **SIZES,
    )
    qvalue = value = None
    if mode != "bc":
        qvalue = make_qvalue(3, 2, observation_keys=(observation,), action_key=action, **SIZES)
        if dropout:
            net = nn.Sequential(
                MLP(5, 16, depth=0), nn.Dropout(dropout), nn.Mish(), MLP(16, 1, depth=0)
            )
            qvalue = ValueOperator(_Cat(net), in_keys=[observation, action])
    if mode == "value":
        value = make_value(3, observation_keys=(observation,), **SIZES)
    return GTPLoss(actor, qvalue, value, **options)


class _Cat(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, *inputs):
        return self.net(torch.cat(inputs, -1))


def make_batch(*batch: int, keys: dict | None = None, mode: str = "critic") -> TensorDict:
    batch = batch or (8,)
    keys = {"observation": "observation", "action": "action", **(keys or {})}
    names = {name: keys.get(name, name) for name in ("reward", "done", "terminated")}
    torch.manual_seed(1)
    td = TensorDict(batch_size=batch)
    td[keys["observation"]] = torch.randn(*batch, 3)
    td[keys["action"]] = torch.rand(*batch, 2) * 2 - 1
    if mode != "bc":
        following = TensorDict(batch_size=batch)
        following[keys["observation"]] = torch.randn(*batch, 3)
        following[names["reward"]] = torch.randn(*batch, 1)
        following[names["done"]] = torch.rand(*batch, 1) < 0.3
        following[names["terminated"]] = following[names["done"]] & (torch.rand(*batch, 1) < 0.5)
        td["next"] = following
    return td


def call(loss, td, seed=3):
    torch.manual_seed(seed)
    return loss(td)


def losses_of(out):
    return {key: out[key] for key in out.keys() if key.startswith("loss_")}


EXPECTED_LOSSES = {
    "bc": {"loss_consistency", "loss_flow"},
    "critic": {"loss_consistency", "loss_flow", "loss_qvalue"},
    "value": {"loss_consistency", "loss_flow", "loss_qvalue", "loss_value"},
}


# The contract ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_outputs_and_input_steady(mode):
    loss, td = make_loss(mode), make_batch(mode=mode)
    SoftUpdate(loss, tau=0.005)
    before = td.clone()
    out = call(loss, td)
    assert list(out.keys()) == loss.out_keys
    assert set(losses_of(out)) == EXPECTED_LOSSES[mode]
    assert all(value.shape == () and value.isfinite() for value in out.values())
    assert all(out[key].requires_grad == key.startswith("loss_") for key in out.keys())
    assert (td.select(*before.keys(True, True)) == before).all()
    assert set(td.keys()) - set(before.keys()) == (set() if mode == "bc" else {"td_error"})
    if mode != "bc":
        assert td["td_error"].shape == (8,)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("teacher", ["current", "ema"])
def test_each_loss_trains_its_own_network_only(mode, teacher):
    loss, td = make_loss(mode, teacher=teacher), make_batch(mode=mode)
    SoftUpdate(loss, tau=0.005)
    out = call(loss, td)
    owners = {
        "loss_consistency": "actor_network_params",
        "loss_flow": "actor_network_params",
        "loss_qvalue": "qvalue_network_params",
        "loss_value": "value_network_params",
    }
    parameters = dict(loss.named_parameters())
    assert not any(name.startswith("target") for name in parameters)
    for key, value in losses_of(out).items():
        loss.zero_grad()
        value.backward(retain_graph=True)
        for name, parameter in parameters.items():
            touched = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
            assert touched == name.startswith(owners[key]), (key, name)
    assert len({id(p) for p in parameters.values()}) == len(parameters)


@pytest.mark.parametrize("mode", MODES)
def test_target_updater_warning_and_soft_update(mode):
    loss, td = make_loss(mode), make_batch(mode=mode)
    with pytest.warns(UserWarning, match="No target network updater"):
        loss(td)
    updater = SoftUpdate(loss, tau=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(td)
    names = ["actor_network"] + ["qvalue_network"] * (mode != "bc")
    for name in names:
        for source in getattr(loss, f"{name}_params").parameters():
            source.data.add_(1.0)
    before = {n: getattr(loss, f"target_{n}_params").data.clone() for n in names}
    updater.step()
    for name in names:
        source, target = getattr(loss, f"{name}_params"), getattr(loss, f"target_{name}_params")
        for key in source.keys(True, True):
            if not isinstance(source[key], nn.Parameter):
                continue
            expected = 0.9 * before[name][key] + 0.1 * source[key].data
            torch.testing.assert_close(target[key].data, expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reduction", [None, "none", "mean", "sum"])
@pytest.mark.parametrize("batch", [(8,), (2, 3), (1,)])
def test_reduction(mode, reduction, batch):
    loss, td = make_loss(mode, reduction=reduction), make_batch(*batch, mode=mode)
    SoftUpdate(loss, tau=0.005)
    out = call(loss, td)
    shape = batch if reduction == "none" else ()
    assert out.batch_size == shape
    assert all(value.shape == shape and value.isfinite().all() for value in out.values())
    elementwise = make_loss(mode, reduction="none")
    SoftUpdate(elementwise, tau=0.005)
    reference = call(elementwise, td)
    for key, value in losses_of(out).items():
        expected = reference[key].sum() if reduction == "sum" else reference[key].mean()
        if reduction != "none":
            torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"observation": "state", "action": "act"},
        {"observation": ("agent", "state"), "action": ("agent", "act")},
        {"reward": "gain", "done": "over", "terminated": "dead"},
    ],
)
def test_dispatch_without_tensordicts_and_renamed_keys(mode, keys):
    loss, td = make_loss(mode, keys=keys), make_batch(keys=keys, mode=mode)
    loss.set_keys(**{name: key for name, key in keys.items() if name != "observation"})
    SoftUpdate(loss, tau=0.005)
    expected = call(loss, td.clone())
    flat = {"_".join(key) if isinstance(key, tuple) else key: td[key] for key in loss.in_keys}
    torch.manual_seed(3)
    values = loss(**flat)
    assert len(values) == len(loss.out_keys)
    for key, value in zip(loss.out_keys, values, strict=True):
        torch.testing.assert_close(value, expected[key])
    loss.select_out_keys("loss_flow", "loss_consistency")
    torch.manual_seed(3)
    flow, consistency = loss(**flat)
    torch.testing.assert_close(flow, expected["loss_flow"])
    torch.testing.assert_close(consistency, expected["loss_consistency"])


def test_accepted_keys():
    loss = make_loss()
    assert loss.tensor_keys.priority == "td_error"
    with pytest.raises(ValueError, match="is not an accepted tensordict key"):
        copy.deepcopy(loss).set_keys(unknown="x")
    _ = loss.in_keys
    loss.set_keys(reward="gain", priority="error")
    assert ("next", "gain") in loss.in_keys and ("next", "reward") not in loss.in_keys
    assert loss.value_estimator.tensor_keys.reward == "gain"
    loss.set_keys(reward=None)
    assert ("next", "reward") in loss.in_keys
    assert make_loss().tensor_keys.priority == "td_error"  # instances share nothing


def test_cloning_reads_observations_and_actions_only():
    assert make_loss("bc").in_keys == ["observation", "action"]


@pytest.mark.parametrize("estimator", [*ValueEstimators, None, "td0", TD0Estimator])
def test_value_estimators(estimator):
    loss, td = make_loss(), make_batch(4, 5)
    SoftUpdate(loss, tau=0.005)
    supported = (*GTPLoss.SUPPORTED_VALUE_ESTIMATORS, None, "td0", TD0Estimator)
    if estimator not in supported:
        with pytest.raises(NotImplementedError):
            loss.make_value_estimator(estimator)
        return
    hyperparams = {"gamma": 0.5}
    if estimator is TD0Estimator:
        hyperparams["value_network"] = None
    assert loss.make_value_estimator(estimator, **hyperparams) is loss
    assert call(loss, td)["loss_qvalue"].isfinite()


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


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("forward_first", [False, True])
def test_state_dict_round_trip(mode, forward_first):
    loss, td = make_loss(mode), make_batch(mode=mode)
    SoftUpdate(loss, tau=0.005)
    if forward_first:
        loss(td)
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    loss.progress = 0.25
    loss.eta = 2.0
    other = make_loss(mode)
    SoftUpdate(other, tau=0.005)
    other.load_state_dict(loss.state_dict())
    assert other.progress == 0.25 and other.eta == 2.0
    expected, got = call(loss, td), call(other, td)
    for key in loss.out_keys:
        torch.testing.assert_close(got[key], expected[key])


@pytest.mark.parametrize("mode", MODES)
def test_deepcopy_and_double(mode):
    loss, td = make_loss(mode), make_batch(mode=mode)
    SoftUpdate(loss, tau=0.005)
    clone = copy.deepcopy(loss)
    expected = call(loss, td.clone())
    torch.testing.assert_close(call(clone, td.clone()).detach(), expected.detach())
    double = loss.double()
    assert all(p.dtype == torch.float64 for p in double.parameters())
    out = call(double, td.apply(lambda x: x.double() if x.is_floating_point() else x))
    assert all(value.dtype == torch.float64 for value in losses_of(out).values())


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_vmap_agrees_with_the_loop(dropout):
    td = make_batch()
    outs = []
    for deactivate in (False, True):
        loss = make_loss(dropout=dropout, deactivate_vmap=deactivate)
        SoftUpdate(loss, tau=0.005)
        outs.append(call(loss, td.clone()).detach())
    if dropout:  # other draws, so only that both run can be compared
        assert all(out["loss_qvalue"].isfinite() for out in outs)
    else:
        torch.testing.assert_close(*outs)


@pytest.mark.parametrize("mode", MODES)
def test_importance_weights_of_prioritised_replay(mode):
    td = make_batch(32, mode=mode)
    importance = torch.rand(32) + 0.1
    elementwise = make_loss(mode, reduction="none")
    SoftUpdate(elementwise, tau=0.005)
    plain = losses_of(call(elementwise, td.clone()))
    td["priority_weight"] = importance
    for use in ("auto", False):
        loss = make_loss(mode, use_prioritized_weights=use)
        SoftUpdate(loss, tau=0.005)
        for key, value in losses_of(call(loss, td.clone())).items():
            weight = importance if use else torch.ones(32)
            torch.testing.assert_close(value, (weight * plain[key]).sum() / weight.sum())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_masked_steps_do_not_count(mode, reduction):
    """Steps beyond the mask hold NaN; the losses must be those of the steps within it."""
    td = make_batch(4, 5, mode=mode)
    mask = torch.ones(4, 5, 1, dtype=torch.bool)
    mask[:, 3:] = False
    poisoned = td.clone()
    poisoned["collector", "mask"] = mask
    poisoned.apply_(lambda x: x.masked_fill_(~mask, float("nan")) if x.is_floating_point() else x)
    poisoned["priority_weight"] = torch.ones(4, 5).masked_fill(~mask.squeeze(-1), float("nan"))
    loss = make_loss(mode, reduction=reduction)
    SoftUpdate(loss, tau=0.005)
    out = call(loss, poisoned)
    sum(value.sum() for value in losses_of(out).values()).backward()
    assert all(p.grad.isfinite().all() for p in loss.parameters() if p.grad is not None)
    assert (poisoned["action"].isnan().any(-1, keepdim=True) == ~mask).all()  # left as it was
    for key, value in out.items():
        if reduction != "none":
            assert value.isfinite(), key
        elif key.startswith("loss_"):
            assert value.shape == (4, 5) and (value[:, 3:] == 0).all() and value.isfinite().all()
    if mode != "bc" and reduction == "mean":
        # The draws differ in number, so compare what no draw enters.
        alone = call(loss, td[:, :3].clone())
        torch.testing.assert_close(out["qvalue"], alone["qvalue"])


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


def test_shared_trunk_with_separate_losses():
    """The critics use the actor's observation encoder; separated, they do not train it."""

    class Encoded(nn.Module):
        def __init__(self, encoder):
            super().__init__()
            self.encoder, self.net = encoder, nn.Linear(8 + 2, 1)

        def forward(self, observation, action):
            return self.net(torch.cat([self.encoder(observation), action], -1))

    class Backbone(nn.Module):
        def __init__(self, encoder):
            super().__init__()
            self.encoder, self.net = encoder, nn.Linear(8 + 2 + 2, 2)

        def forward(self, action, log_t, log_s, condition):
            return self.net(torch.cat([self.encoder(condition), action, log_t, log_s], -1))

    for separate in (False, True):
        torch.manual_seed(0)
        encoder = nn.Linear(3, 8)
        qvalue = ValueOperator(Encoded(encoder), in_keys=["observation", "action"])
        actor = GTPActor(FlowMap(Backbone(encoder)), Bounded(-1, 1, (2,)))
        loss = GTPLoss(actor, qvalue, separate_losses=separate)
        SoftUpdate(loss, tau=0.005)
        out = call(loss, make_batch())
        weight = loss.actor_network_params["flow_map", "backbone", "encoder", "weight"]
        (out["loss_consistency"] + out["loss_flow"]).backward(retain_graph=True)
        assert weight.grad.abs().sum() > 0
        loss.zero_grad()
        out["loss_qvalue"].backward()
        shared = loss.qvalue_network_params["module", "encoder", "weight"]
        assert (shared.grad is None) == separate
        assert weight.grad is None or weight.grad.abs().sum() == 0


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


def test_reset_parameters_and_stateful_networks():
    loss = make_loss()
    SoftUpdate(loss, tau=0.005)
    before = {name: p.detach().clone() for name, p in loss.named_parameters()}
    torch.manual_seed(9)
    loss.reset_parameters_recursive()
    for name, parameter in loss.named_parameters():
        assert (parameter != before[name]).any(), name
    actor = loss.get_stateful_net("actor_network")
    td = make_batch()
    td["noise"] = torch.randn(8, 2)
    with loss.actor_network_params.to_module(loss.actor_network):
        expected = loss.actor_network(td.clone())["action"]
    torch.testing.assert_close(actor(td.clone())["action"], expected)


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


@pytest.mark.parametrize("mode", MODES)
def test_compiled_without_graph_breaks(mode):
    """The whole loss traces, and follows a schedule without being traced again."""
    loss, td = make_loss(mode), make_batch(mode=mode)
    SoftUpdate(loss, tau=0.005)
    # Without a code generator, which may reorder the draws: this is about the trace.
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    for progress in (0.1, 0.3, 0.5, 0.9):
        loss.progress = progress
        # TensorDict notes its classes during the first calls, which has them traced again.
        with torch.compiler.set_stance("default" if progress < 0.9 else "fail_on_recompile"):
            torch.testing.assert_close(
                call(compiled, td.clone()).detach(), call(loss, td.clone()).detach()
            )


# The equations -----------------------------------------------------------------------------


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
    assert loss.max_weight == torch.inf and loss.eta == 1.0 and loss.lambda_flow == 1.0


# Bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": -1.0}, "eta must lie in"),
        ({"eta": float("nan")}, "eta must lie in"),
        ({"lambda_flow": -0.1}, "lambda_flow must lie in"),
        ({"robust_power": 2.0}, "robust_power must lie in"),
        ({"progress": 1.5}, "progress must lie in"),
        ({"max_weight": 0.5}, "max_weight must be at least 1"),
        ({"time_sampler": "uniform"}, "time_sampler must be one of"),
        ({"time_weight": "snr"}, "time_weight must be"),
        ({"teacher": "frozen"}, "teacher must be"),
        ({"teacher": "ema", "delay_actor": False}, "needs delay_actor=True"),
        ({"reduction": "median"}, "reduction must be"),
        ({"expectile": 1.0}, "expectile must lie"),
        ({"num_value_samples": 0}, "num_value_samples must be at least 1"),
        ({"num_backup_samples": 0}, "num_backup_samples must be at least 1"),
        ({"num_qvalue_nets": 0}, "num_qvalue_nets must be at least 1"),
        ({"policy_num_steps": 0}, "policy_num_steps must be at least 1"),
        ({"loss_function": "huber"}, "loss_function must be"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_loss(**options)


def test_bad_networks():
    with pytest.raises(TypeError, match="must be a GTPActor"):
        GTPLoss(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="value_network needs a qvalue_network"):
        GTPLoss(make_gtp_actor(3, Bounded(-1, 1, (2,))), None, make_value(3))


@pytest.mark.parametrize("missing", ["observation", "action", ("next", "reward"), "next"])
def test_missing_entries_are_named(missing):
    loss = make_loss()
    SoftUpdate(loss, tau=0.005)
    with pytest.raises(KeyError, match="needs the entries.*" + str(missing[-1])):
        loss(make_batch().exclude(missing))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"action": torch.zeros(8, 3)},
            r"'action' has the shape \(8, 3\).*generates actions \(2,\)",
        ),
        ({"action": torch.zeros(8, 2, dtype=torch.int64)}, "of a floating-point type"),
        ({"observation": torch.zeros(8, 5)}, "have 5 dimensions, but the actor was built for 3"),
    ],
)
def test_entries_of_the_wrong_size(mode, entries, message):
    loss, td = make_loss(mode), make_batch(mode=mode)
    SoftUpdate(loss, tau=0.005)
    with pytest.raises(ValueError, match=message):
        loss(td.update(entries))


@pytest.mark.parametrize("mode", MODES)
def test_empty_batch(mode):
    loss = make_loss(mode)
    SoftUpdate(loss, tau=0.005)
    with pytest.raises(ValueError, match="batch is empty"):
        loss(make_batch(mode=mode)[:0])


@pytest.mark.parametrize("mode", MODES)
def test_double_precision_data_are_cast(mode):
    loss, td = make_loss(mode), make_batch(mode=mode)
    SoftUpdate(loss, tau=0.005)
    double = td.apply(lambda x: x.double() if x.is_floating_point() else x)
    for key, value in losses_of(call(loss, double)).items():
        torch.testing.assert_close(value.float(), call(loss, td)[key])


def test_mask_of_another_type():
    loss, td = make_loss("bc"), make_batch(mode="bc")
    SoftUpdate(loss, tau=0.005)
    td["shifted_valid"] = torch.ones(8)
    with pytest.raises(ValueError, match="'shifted_valid' must be boolean"):
        loss(td)


def test_weights_and_advantages_of_the_wrong_shape():
    loss, td = make_loss(), make_batch()
    SoftUpdate(loss, tau=0.005)
    with pytest.raises(ValueError, match="weight must have the shape"):
        loss.flow_loss(td, torch.ones(8, 1))
    with pytest.raises(ValueError, match="advantage must have the shape"):
        loss.actor_loss(td, torch.ones(8, 1))


def test_terms_check_their_input_too():
    loss = make_loss()
    SoftUpdate(loss, tau=0.005)
    for term in (loss.qvalue_loss, loss.flow_loss, loss.consistency_loss, loss.advantage):
        with pytest.raises(KeyError, match="needs the entries .*action"):
            term(make_batch().exclude("action"))


def test_q_network_that_writes_another_key():
    loss = make_loss()
    SoftUpdate(loss, tau=0.005)
    loss.set_keys(state_action_value="q")
    with pytest.raises(KeyError, match="must name what the network writes"):
        loss(make_batch())


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
