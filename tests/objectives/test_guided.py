"""A critic inside the loss and the loss stay one thing."""

from __future__ import annotations

import copy

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.data import Bounded
from torchrl.modules import ValueOperator
from torchrl.objectives import CQLLoss, IQLLoss, TD3BCLoss, TD3Loss

from tests.objectives.gtp_cases import SIZES, Encoded, EncodedBackbone, make_batch, with_dropout
from torchrl_gtp import (
    FlowMap,
    GTPActor,
    GTPLoss,
    TargetUpdate,
    make_gtp_actor,
    make_qvalue,
    make_value,
)
from torchrl_gtp.objectives import (
    ClippedDoubleQLoss,
    ConservativeQLoss,
    LossCritic,
    PrecomputedAdvantage,
    TruncatedQuantileLoss,
    make_critic,
)

SPEC = Bounded(-1, 1, (2,))


def make_actor():
    return make_gtp_actor(3, SPEC, num_steps=2, **SIZES)


def q(**options):
    return make_qvalue(3, 2, **options, **SIZES)


def iql(actor):
    return LossCritic(IQLLoss(actor, q(), value_network=make_value(3, **SIZES)))


CRITICS = {
    "double_q": lambda actor: ClippedDoubleQLoss(actor, q()),
    "conservative": lambda actor: ConservativeQLoss(actor, q(), num_conservative_samples=2),
    "quantiles": lambda actor: TruncatedQuantileLoss(actor, q(num_quantiles=5)),
    "iql": iql,
    "td3": lambda actor: LossCritic(TD3Loss(actor, q(), action_spec=SPEC)),
    "td3_bc": lambda actor: LossCritic(TD3BCLoss(actor, q(), action_spec=SPEC)),
    "cql": lambda actor: make_critic("cql", actor, 3, networks=SIZES),
}
OWN = ["double_q", "conservative", "quantiles"]


def make(name, **options):
    torch.manual_seed(0)
    actor = make_actor()
    loss = GTPLoss(actor, critic=CRITICS[name](actor), **options)
    return loss, TargetUpdate(loss, 0.1)


def train(loss, updater, steps=3):
    optimizer = torch.optim.SGD(loss.parameters(), 1e-2)
    for _ in range(steps):
        out = loss(make_batch())
        sum(value for key, value in out.items() if key.startswith("loss_")).backward()
        optimizer.step()
        optimizer.zero_grad()
        updater.step()
    return out.detach()


def policies(loss):
    """All tensors of the policy and its targets, wherever a loss holds them."""
    found = {}
    for name, value in loss.state_dict().items():
        _, mark, rest = name.rpartition("actor_network_params.")
        if mark and torch.is_tensor(value) and "log_alpha" not in name:
            found.setdefault(("target" in name, rest), []).append(value)
    return {key: values for key, values in found.items() if len(values) > 1}


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize(
    "change",
    [copy.deepcopy, lambda loss: loss.double().float(), lambda loss: loss],
    ids=["deepcopy", "casts", "as built"],
)
def test_there_is_one_policy(name, change):
    loss, _ = make(name)
    count = len(list(loss.parameters()))
    other = change(loss)
    assert len(list(other.parameters())) == count
    train(other, TargetUpdate(other, 0.1))
    shared = policies(other)
    if name not in ("cql", "iql"):
        assert {target for target, _ in shared} == {False, True}
    for key, (first, *others) in shared.items():
        if name == "cql" and "module" in key[1]:
            continue  # its Gaussian actor
        assert all(torch.equal(first, value) for value in others), key
    source, target = loss.actor_network_params, loss.target_actor_network_params
    if other is loss:
        assert not torch.equal(source["low"] * 0 + 1, target["low"] * 0)  # both are there


@pytest.mark.parametrize("name", ["double_q", "td3"])
def test_the_targets_of_the_policy_move_once(name):
    loss, updater = make(name)
    with torch.no_grad():
        for parameter in loss.actor_network_params.parameters():
            parameter.add_(1.0)
    before = loss.target_actor_network_params.data.clone()
    updater.step()
    for key, source in loss.actor_network_params.items(True, True):
        if isinstance(source, nn.Parameter):
            expected = 0.9 * before[key] + 0.1 * source.data
            torch.testing.assert_close(loss.target_actor_network_params[key].data, expected)


@pytest.mark.parametrize("name", OWN)
def test_keys_reach_the_critic(name):
    plain, _ = make(name)
    batch = make_batch()
    batch["loss_noise"] = plain.draw_noise(batch)
    batch["sampling_weight"] = torch.linspace(0.5, 2.0, 8)
    expected = plain(batch.clone())
    loss, _ = make(name)
    loss.set_keys(noise="n", sampling_weight="sw", reward="gain", done="over")
    renamed = batch.rename_key_("loss_noise", "n").rename_key_("sampling_weight", "sw")
    renamed["next"].rename_key_("reward", "gain").rename_key_("done", "over")
    assert ("next", "gain") in loss.in_keys and ("next", "reward") not in loss.in_keys
    torch.testing.assert_close(loss(renamed).detach(), expected.detach())
    loss.set_keys(reward=None)
    assert ("next", "reward") in loss.in_keys


def test_keys_of_a_critic_of_another_kind_are_set_there():
    loss, _ = make("iql")
    with pytest.raises(ValueError, match=r"\['reward'\] are read by the critic alone"):
        loss.set_keys(reward="gain")
    loss.set_keys(noise="n")  # the policy's own


@pytest.mark.parametrize("name", OWN)
def test_masks_reach_the_critic(name):
    loss, _ = make(name)
    loss.loss_mask_key = "valid"
    assert loss.loss_mask_key == "valid"
    batch = make_batch(8)
    batch["valid"] = torch.arange(8) < 5
    batch["loss_noise"] = loss.draw_noise(batch)
    masked = loss(batch.clone())
    loss.loss_mask_key = None
    alone = loss(batch[:5].clone())
    torch.testing.assert_close(masked["loss_qvalue"], alone["loss_qvalue"])


def test_masks_reach_a_critic_of_another_kind():
    loss, _ = make("td3")
    loss.loss_mask_key = "valid"
    assert loss.critic.loss_module.loss_mask_key == "valid"


def test_masks_that_iql_would_not_see():
    loss, _ = make("iql")
    with pytest.raises(ValueError, match=r"TorchRL's IQLLoss ignores masks.*\['shifted_valid'\]"):
        loss(make_batch().set("shifted_valid", torch.arange(8) < 5))


def test_a_shared_encoder_stays_shared_through_casts_and_copies():
    torch.manual_seed(0)
    encoder = nn.Linear(3, 8)
    actor = GTPActor(FlowMap(EncodedBackbone(encoder, 8 + 2 + 2, 2)), SPEC, num_steps=2)
    qvalue = ValueOperator(Encoded(encoder, 8 + 2, 1), in_keys=["observation", "action"])
    loss = GTPLoss(actor, critic=ClippedDoubleQLoss(actor, qvalue, separate_losses=True))
    for changed in (loss, copy.deepcopy(loss), loss.double(), copy.deepcopy(loss).float()):
        own = changed.actor_network_params["flow_map", "backbone", "encoder", "weight"]
        seen = changed.critic.qvalue_network_params["module", "encoder", "weight"]
        with torch.no_grad():
            own.add_(1.0)
        torch.testing.assert_close(seen.data, own.data.expand_as(seen))


@pytest.mark.parametrize("name", CRITICS)
def test_states_of_a_used_loss_load_into_a_fresh_one(name):
    used, updater = make(name)
    train(used, updater)
    fresh, _ = make(name)
    fresh.load_state_dict(used.state_dict())
    for key, value in used.state_dict().items():
        if torch.is_tensor(value):
            torch.testing.assert_close(fresh.state_dict()[key], value)


@pytest.mark.parametrize("name", CRITICS)
def test_priorities_have_the_shape_of_the_batch(name):
    loss, _ = make(name)
    td = make_batch()
    following = TensorDict({**td["next"]}, batch_size=[])
    loose = TensorDict({**td.exclude("next"), "next": following}, batch_size=[])
    loose["td_error"] = torch.full((8,), 42.0)
    loose.batch_size = loose["next"].batch_size = []
    loss(loose)
    assert loose["td_error"].shape == (8,) and (loose["td_error"] != 42).all()


@pytest.mark.parametrize("name", OWN)
def test_what_is_asked_of_the_loss_is_answered_by_the_critic(name):
    loss, _ = make(name)
    policy = loss.candidate_actor(4, temperature=0.0)
    assert policy(TensorDict({"observation": torch.zeros(5, 3)}, [5]))["action"].shape == (5, 2)
    assert loss.make_value_estimator(gamma=0.5) is loss
    assert loss.critic.value_estimator.gamma == 0.5


def test_what_a_critic_of_another_kind_cannot_answer():
    loss, _ = make("iql")
    with pytest.raises(ValueError, match="a LossCritic, has no Q-networks of this library"):
        loss.candidate_actor()
    with pytest.raises(ValueError, match="an estimator of its own"):
        loss.make_value_estimator(gamma=0.5)


def test_dropout_in_the_networks_of_torchrls_losses():
    actor = make_actor()
    inner = IQLLoss(actor, with_dropout(q(), 0.1), value_network=make_value(3, **SIZES))
    loss = GTPLoss(actor, critic=LossCritic(inner))
    TargetUpdate(loss, 0.1)
    assert loss(make_batch())["loss_qvalue"].isfinite()


def test_loss_critic_without_tensordicts():
    critic = iql(make_actor())
    TargetUpdate(critic, 0.1)
    td = make_batch()
    flat = {"_".join(key) if isinstance(key, tuple) else key: td[key] for key in critic.in_keys}
    assert len(critic(**flat)) == len(critic.out_keys) == 2


# Bad input ---------------------------------------------------------------------------------


def test_a_critic_of_another_policy():
    actor, other = make_actor(), make_actor()
    for critic in (ClippedDoubleQLoss(other, q()), CRITICS["td3"](other)):
        with pytest.raises(ValueError, match="samples another actor_network"):
            GTPLoss(actor, critic=critic)
    with pytest.raises(ValueError, match="TD3Loss has another actor_network than the one given"):
        LossCritic(TD3Loss(other, q(), action_spec=SPEC), actor_network=actor)


@pytest.mark.parametrize(
    "option",
    [
        {"policy_num_steps": 1},
        {"delay_qvalue": False},
        {"separate_losses": True},
        {"deactivate_vmap": True},
        {"expectile": 0.7},
    ],
)
def test_options_of_the_losss_own_critic_beside_another(option):
    with pytest.raises(ValueError, match=f"{next(iter(option))}: these are about the loss's own"):
        make("double_q", **option)


def test_options_of_the_policy_hold_with_any_critic():
    loss, _ = make("double_q", delay_actor=True, use_prioritized_weights=False)
    assert loss.use_prioritized_weights is False


def test_a_multiplier_that_would_cancel_the_conservative_term():
    actor = make_actor()
    gaussian = make_critic("cql", actor, 3, networks=SIZES).loss_module
    inner = CQLLoss(
        gaussian.get_stateful_net("actor_network"), q(), action_spec=SPEC, with_lagrange=True
    )
    with pytest.raises(ValueError, match="fix the multiplier with with_lagrange=False"):
        LossCritic(inner, actor_network=actor)


@pytest.mark.parametrize("name", [*OWN, "own"])
def test_rewards_of_another_shape(name):
    if name == "own":
        loss = GTPLoss(make_actor(), q())
        TargetUpdate(loss, 0.1)
    else:
        loss, _ = make(name)
    batch = make_batch(15)
    batch["next"].batch_size = [15]
    batch["next", "reward"] = batch["next", "reward"].squeeze(-1)
    with pytest.raises(ValueError, match=r"\('next', 'reward'\) must have the shape \(15, 1\)"):
        loss(batch)


def test_rewards_in_double_precision_are_cast():
    loss = GTPLoss(make_actor(), q())
    TargetUpdate(loss, 0.1)
    batch = make_batch()
    batch["next", "reward"] = batch["next", "reward"].double()
    batch["priority_weight"] = torch.ones(8, dtype=torch.float64)
    out = loss(batch)
    assert {out[key].dtype for key in out.keys() if "loss" in key} == {torch.float32}


def test_uneven_draws_for_a_critic_that_does_not_know_them():
    loss, _ = make("iql")
    with pytest.raises(ValueError, match="IQLLoss knows nothing of the entry 'sampling_weight'"):
        loss(make_batch().set("sampling_weight", torch.ones(8)))
    precomputed = GTPLoss(make_actor(), critic=PrecomputedAdvantage())
    TargetUpdate(precomputed, 0.1)
    batch = make_batch().set("advantage", torch.randn(8)).set("sampling_weight", torch.ones(8))
    assert precomputed(batch)["loss_flow"].isfinite()


def test_chunks_for_a_critic_of_single_actions():
    actor = make_gtp_actor(3, SPEC, chunk_length=4, **SIZES)
    with pytest.raises(ValueError, match="Gaussian actor of single actions"):
        make_critic("cql", actor, 3)


def test_padding_that_is_not_a_number():
    actor = make_gtp_actor(3, SPEC, chunk_length=4, num_steps=2, **SIZES)
    loss = GTPLoss(actor)
    TargetUpdate(loss, 0.1)
    loss.set_keys(pad_mask="action_is_pad")
    td = make_batch(mode="bc").set("action", torch.rand(8, 4, 2))
    td["action_is_pad"] = torch.arange(4).expand(8, 4) > 2
    td["action"][:, 3] = torch.nan
    out = loss(td)
    (out["loss_flow"] + out["loss_consistency"]).backward()
    assert all(p.grad.isfinite().all() for p in loss.parameters())
