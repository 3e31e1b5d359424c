"""Every critic trains, alone by its losses and together with the policy that it weights."""

from __future__ import annotations

import copy
from typing import get_args

import pytest
import torch
from tensordict import TensorDict, TensorDictParams
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.data import Bounded
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal
from torchrl.objectives import CQLLoss, IQLLoss, REDQLoss, SACLoss, TD3BCLoss, TD3Loss, TQCLoss
from torchrl.objectives.common import LossModule
from torchrl.objectives.value import GAE, TD0Estimator, TDLambdaEstimator

from torchrl_gtp import GTPLoss, TargetUpdate, make_gtp_actor, make_qvalue, make_value
from torchrl_gtp.objectives import (
    ClippedDoubleQLoss,
    ConservativeQLoss,
    Critic,
    LossCritic,
    PrecomputedAdvantage,
    TruncatedQuantileLoss,
    make_critic,
)
from torchrl_gtp.objectives.make_critic import CriticKind

SIZES = {"hidden_sizes": (32, 32), "activation": nn.SiLU}
SPEC = Bounded(-1, 1, (1,))


def bandit(size: int = 4096) -> TensorDict:
    """Steps of a bandit: uniform actions, and the reward is highest at the observation."""
    observation, action = torch.rand(size, 1) * 1.6 - 0.8, torch.rand(size, 1) * 2 - 1
    ends = torch.ones(size, 1, dtype=torch.bool)
    following = {"observation": observation, "reward": reward_of(observation, action)}
    following |= {"done": ends, "terminated": ends}
    return TensorDict(
        {"observation": observation, "action": action, "next": following}, batch_size=[size]
    )


def reward_of(observation, action):
    return -4 * (action - observation).square()


def make_actor():
    return make_gtp_actor(1, SPEC, num_steps=2, sigma_data=0.58, **SIZES)


def make_gaussian_actor():
    net = nn.Sequential(MLP(1, 2, num_cells=[32]), NormalParamExtractor())
    return ProbabilisticActor(
        TensorDictModule(net, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        spec=SPEC,
        return_log_prob=True,
    )


class ReturnLoss(LossModule):
    """A user's own loss: Q regresses on the reward."""

    qvalue_network: TensorDictModule
    qvalue_network_params: TensorDictParams
    target_qvalue_network_params: TensorDictParams
    out_keys = ["loss_qvalue"]  # noqa: RUF012
    in_keys = ["observation", "action", ("next", "reward")]  # noqa: RUF012

    def __init__(self, qvalue_network):
        super().__init__()
        self.convert_to_functional(qvalue_network, "qvalue_network")

    def qvalue(self, td):
        with self.qvalue_network_params.to_module(self.qvalue_network):
            return self.qvalue_network(td.copy())["state_action_value"]

    def forward(self, td):
        error = self.qvalue(td) - td["next", "reward"]
        return TensorDict({"loss_qvalue": error.square().mean()})


def _own(**options):
    actor = make_actor()
    return GTPLoss(actor, make_qvalue(1, 1, **SIZES), eta=3.0, **options)


def _with(make_critic):
    actor = make_actor()
    return GTPLoss(actor, critic=make_critic(actor, make_qvalue(1, 1, **SIZES)), eta=3.0)


CRITICS = {
    "clipped double Q, V from samples": lambda: _own(num_value_samples=4),
    "clipped double Q, value network": lambda: GTPLoss(
        make_actor(), make_qvalue(1, 1, **SIZES), make_value(1, **SIZES), eta=3.0, expectile=0.5
    ),
    "target policy smoothing": lambda: _own(num_value_samples=4, policy_noise=0.2),
    "REDQ ensemble": lambda: _own(num_value_samples=4, num_qvalue_nets=5, num_qvalue_subset=2),
    "clipped double Q as an object": lambda: _with(
        lambda actor, qvalue: ClippedDoubleQLoss(actor, qvalue, num_value_samples=4)
    ),
    "CQL": lambda: _with(
        lambda actor, qvalue: ConservativeQLoss(
            actor, qvalue, num_value_samples=4, conservative_weight=0.1
        )
    ),
    "truncated quantiles": lambda: _with(
        lambda actor, _: TruncatedQuantileLoss(
            actor, make_qvalue(1, 1, num_quantiles=8, **SIZES), num_qvalue_nets=2
        )
    ),
    "IQLLoss": lambda: _with(
        lambda actor, qvalue: LossCritic(
            IQLLoss(actor, qvalue, value_network=make_value(1, **SIZES), expectile=0.5)
        )
    ),
    "TD3Loss": lambda: _with(
        lambda actor, qvalue: LossCritic(
            TD3Loss(actor, qvalue, action_spec=SPEC), num_value_samples=4
        )
    ),
    "TD3BCLoss": lambda: _with(
        lambda actor, qvalue: LossCritic(
            TD3BCLoss(actor, qvalue, action_spec=SPEC), num_value_samples=4
        )
    ),
    "CQLLoss with a Gaussian actor": lambda: _with(
        lambda actor, qvalue: LossCritic(
            CQLLoss(make_gaussian_actor(), qvalue, action_spec=SPEC, min_q_weight=0.1),
            actor_network=actor,
            num_value_samples=4,
        )
    ),
    "advantage by TD(lambda)": lambda: _with(lambda *_: PrecomputedAdvantage()),
    "advantage by GAE": lambda: _with(lambda *_: PrecomputedAdvantage()),
    "a user's loss": lambda: _with(
        lambda actor, qvalue: LossCritic(ReturnLoss(qvalue), actor_network=actor)
    ),
}


ESTIMATORS = {"advantage by TD(lambda)": TDLambdaEstimator, "advantage by GAE": GAE}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.filterwarnings("ignore:.*The default behaviour of TD3Loss:UserWarning")
@pytest.mark.parametrize("name", CRITICS)
def test_trains_a_policy_that_prefers_good_actions(name):
    torch.manual_seed(0)
    data = bandit()
    if name in ESTIMATORS:
        value = make_value(1, **SIZES)
        nn.init.zeros_(value.module[-1].weight)  # a constant baseline will do
        nn.init.constant_(value.module[-1].bias, data["next", "reward"].mean().item())
        estimator = ESTIMATORS[name](gamma=0.99, lmbda=0.9, value_network=value)
        data = estimator(data.unsqueeze(-1)).squeeze(-1)
    loss = CRITICS[name]()
    if loss._modules.get("target_actor_network_params") is not None:
        updater = TargetUpdate(loss, 0.05)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
    history = []
    for update in range(200):
        loss.progress = update / 200
        out = loss(data[torch.randint(len(data), (256,))])
        losses = {key: value for key, value in out.items() if key.startswith("loss_")}
        assert set(losses) == {key for key in loss.out_keys if key.startswith("loss_")}
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        updater.step()
        history.append(out.detach())
    assert all(value.isfinite() for out in history for value in out.values())
    if "loss_qvalue" in loss.out_keys:
        first, last = (
            torch.stack([out["loss_qvalue"] for out in part]).mean()
            for part in (history[:10], history[-10:])
        )
        assert last < 0.7 * first

    test = bandit(512)
    if name in ESTIMATORS:
        test["advantage"] = reward_of(test["observation"], test["action"])
    both = torch.stack([loss.advantage(test), test["next", "reward"].squeeze(-1)])
    assert torch.corrcoef(both)[0, 1] > 0.8
    with torch.no_grad():
        action = loss.target_actor()(test.select("observation"))["action"]
    reward = reward_of(test["observation"], action).mean()
    assert reward > 0.6 * test["next", "reward"].mean(), "hardly better than the behaviour"


@pytest.mark.parametrize("name", CRITICS)
def test_copies_and_state_dicts_carry_the_critic(name):
    torch.manual_seed(0)
    data = bandit(16)
    data["advantage"] = data["next", "reward"]
    loss = CRITICS[name]()
    TargetUpdate(loss, 0.05)
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    other = CRITICS[name]()
    TargetUpdate(other, 0.05)
    other.load_state_dict(loss.state_dict())
    outs = []
    for module in (loss, other, copy.deepcopy(loss)):
        torch.manual_seed(1)
        outs.append(module(data.clone()).detach())
    torch.testing.assert_close(outs[0], outs[1])
    torch.testing.assert_close(outs[0], outs[2])
    names = [key for key, _ in loss.named_parameters()]
    assert len(names) == len(set(names)) == len({id(p) for p in loss.parameters()})


@pytest.mark.parametrize("name", CRITICS)
def test_reset_reaches_the_critic_and_leaves_targets_as_copies(name):
    loss = CRITICS[name]()
    TargetUpdate(loss, 0.05)
    before = {key: parameter.clone() for key, parameter in loss.named_parameters()}
    loss.reset_parameters_recursive()
    constant = ("log_alpha",)  # coefficients of TorchRL's losses
    for key, parameter in loss.named_parameters():
        assert torch.equal(parameter, before[key]) == key.endswith(constant), key
    state = loss.state_dict()
    for key in state:
        if "target_" in key and key.replace("target_", "") in state and torch.is_tensor(state[key]):
            torch.testing.assert_close(state[key], state[key.replace("target_", "")])


@pytest.mark.parametrize("kind", [kind for kind in get_args(CriticKind) if kind != "precomputed"])
def test_critics_by_name(kind):
    """On named entries, with bounds of their own, and gradients for every critic's network."""
    torch.manual_seed(0)
    actor = make_gtp_actor(
        1,
        Bounded(-2, 3, (1,)),
        observation_keys=("state",),
        action_key="act",
        num_steps=2,
        **SIZES,
    )
    options = {"value_network": None} if kind == "double_q" else {}
    critic = make_critic(kind, actor, 1, networks=SIZES, gamma=0.5, num_quantiles=8, **options)
    loss = GTPLoss(actor, critic=critic)
    TargetUpdate(loss, 0.05)
    data = bandit(16).rename_key_("observation", "state").rename_key_("action", "act")
    data["next"].rename_key_("observation", "state")
    out = loss(data)
    sum(value for key, value in out.items() if key.startswith("loss_")).backward()
    assert all(p.grad is not None for n, p in loss.named_parameters() if "log_alpha" not in n)
    estimators = [m for m in loss.modules() if isinstance(m, TD0Estimator)]
    assert [estimator.gamma.item() for estimator in estimators] == [0.5]


def test_unknown_kinds_of_critics():
    with pytest.raises(ValueError, match="kind must be one of .*'iql'.*got 'sarsa'"):
        make_critic("sarsa", make_actor(), 1)


def test_critics_fulfil_the_protocol():
    for name, make in CRITICS.items():
        loss = make()
        assert isinstance(loss if loss.critic is None else loss.critic, Critic), name


def test_missing_target_updater_of_a_critic_is_warned_of():
    loss = CRITICS["CQL"]()
    with pytest.warns(UserWarning, match="No target network updater"):
        loss(bandit(8))


@pytest.mark.parametrize("kind", [SACLoss, REDQLoss, TQCLoss])
def test_losses_with_a_stochastic_actor_of_their_own_run_whole(kind):
    torch.manual_seed(0)
    actor, gaussian = make_actor(), make_gaussian_actor()
    qvalue = make_qvalue(1, 1, num_quantiles=8 if kind is TQCLoss else 1, **SIZES)
    inner = kind(gaussian, qvalue_network=qvalue, action_spec=SPEC)
    loss = GTPLoss(actor, critic=LossCritic(inner, actor_network=actor))
    TargetUpdate(loss, 0.05)
    data = bandit(8)
    data["action_log_prob"] = torch.zeros(8)  # REDQLoss lists it among its in_keys
    out = loss(data)
    assert {"loss_qvalue", "loss_actor", "loss_consistency", "loss_flow"} <= set(out.keys())
    sum(value for key, value in out.items() if key.startswith("loss_")).backward()
    assert all(p.grad is not None for p in inner.actor_network_params.parameters())
    assert data["td_error"].shape[0] == 8


# Bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [CQLLoss, REDQLoss])
def test_a_flow_map_has_no_log_probability(kind):
    actor, qvalue = make_actor(), make_qvalue(1, 1, **SIZES)
    inner = kind(actor, qvalue_network=qvalue, action_spec=SPEC)
    with pytest.raises(TypeError, match="log-probabilities, which a GTPActor does not have"):
        LossCritic(inner)


def test_methods_that_ask_for_a_log_probability():
    actor, qvalue = make_actor(), make_qvalue(1, 1, **SIZES)
    inner = IQLLoss(actor, qvalue, value_network=make_value(1, **SIZES))
    loss = GTPLoss(actor, critic=LossCritic(inner, losses=["qvalue_loss", "actor_loss"]))
    TargetUpdate(loss, 0.05)
    with pytest.raises(TypeError, match="IQLLoss asks its policy for log-probabilities"):
        loss(bandit(8))


def test_bad_critics():
    actor, qvalue = make_actor(), make_qvalue(1, 1, **SIZES)
    with pytest.raises(TypeError, match="no losses, advantage. Wrap the loss in LossCritic"):
        GTPLoss(actor, critic=ReturnLoss(qvalue))
    with pytest.raises(TypeError, match="has no in_keys, out_keys, losses, advantage"):
        GTPLoss(actor, critic=object())
    critic = ClippedDoubleQLoss(actor, qvalue, reduction="none")
    with pytest.raises(ValueError, match="reduction='mean' of the loss and reduction='none'"):
        GTPLoss(actor, critic=critic)
    other = ClippedDoubleQLoss(make_actor(), qvalue)
    with pytest.raises(ValueError, match="ClippedDoubleQLoss samples another actor_network"):
        GTPLoss(actor, critic=other)
    critic = ClippedDoubleQLoss(actor, qvalue)
    with pytest.raises(ValueError, match="qvalue_network, num_value_samples: these are about"):
        GTPLoss(actor, qvalue, critic=critic, num_value_samples=4)
    cloning = ClippedDoubleQLoss(actor)
    TargetUpdate(cloning, 0.05)
    with pytest.raises(ValueError, match="no qvalue_network"):
        cloning(bandit(8))
    with pytest.raises(TypeError, match="must be a LossModule, got Linear"):
        LossCritic(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="no value_network, so V.o. comes from samples"):
        LossCritic(ReturnLoss(qvalue))
    with pytest.raises(ValueError, match="ReturnLoss has no methods .*'q_loss'"):
        LossCritic(ReturnLoss(qvalue), losses=["q_loss"], actor_network=actor)


def test_a_critic_without_its_entries_says_which():
    loss = _with(lambda *_: PrecomputedAdvantage(("critic", "advantage")))
    TargetUpdate(loss, 0.05)
    with pytest.raises(
        KeyError, match="needs the entries .*critic.*advantage.*which the input lacks"
    ):
        loss(bandit(8))


def test_an_advantage_of_another_shape():
    loss = _with(
        lambda actor, qvalue: LossCritic(ReturnLoss(qvalue), advantage=lambda *_: torch.zeros(3))
    )
    TargetUpdate(loss, 0.05)
    with pytest.raises(ValueError, match=r"advantage must have the shape \(8,\)"):
        loss(bandit(8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_qvalue_subset": 3}, "num_qvalue_subset must be at most num_qvalue_nets=2"),
        ({"policy_noise": -0.1}, "policy_noise must be finite"),
        ({"noise_clip": float("inf")}, "noise_clip must be finite"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        _own(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"num_value_samples": 2},
        {"num_backup_samples": 2},
        {"num_qvalue_subset": 1},
        {"policy_noise": 0.1},
    ],
)
def test_options_that_a_value_network_makes_idle(options):
    with pytest.raises(ValueError, match="has no effect with a value_network"):
        GTPLoss(make_actor(), make_qvalue(1, 1), make_value(1), **options)


def test_bad_options_of_single_critics():
    actor, qvalue = make_actor(), make_qvalue(1, 1, **SIZES)
    for options in ({"conservative_weight": -1.0}, {"conservative_temperature": 0.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            ConservativeQLoss(actor, qvalue, **options)
    with pytest.raises(ValueError, match="num_conservative_samples must be at least 1"):
        ConservativeQLoss(actor, qvalue, num_conservative_samples=0)
    free = make_gtp_actor(1, Bounded(-torch.inf, torch.inf, (1,)), **SIZES)
    with pytest.raises(ValueError, match="need finite bounds"):
        ConservativeQLoss(free, qvalue)
    with pytest.raises(ValueError, match="num_dropped_quantiles must be at least 0"):
        TruncatedQuantileLoss(actor, qvalue, num_dropped_quantiles=-1)
    with pytest.raises(ValueError, match="not for truncated quantile critics"):
        TruncatedQuantileLoss(actor, qvalue, expectile=0.7)
    critic = TruncatedQuantileLoss(actor, qvalue)
    TargetUpdate(critic, 0.05)
    with pytest.raises(ValueError, match="leaves none of the 1 quantiles"):
        critic(bandit(8))
