"""Critics by name, for configs and command lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, get_args

from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.data import Bounded
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal
from torchrl.objectives import CQLLoss, IQLLoss, TD3BCLoss, TD3Loss

from torchrl_gtp.modules import GTPActor, make_qvalue, make_value
from torchrl_gtp.objectives.conservative_q import ConservativeQLoss
from torchrl_gtp.objectives.critic_protocol import Critic
from torchrl_gtp.objectives.double_q import ClippedDoubleQLoss
from torchrl_gtp.objectives.loss_critic import LossCritic
from torchrl_gtp.objectives.precomputed_advantage import PrecomputedAdvantage
from torchrl_gtp.objectives.truncated_quantile import TruncatedQuantileLoss

__all__ = ["CriticKind", "make_critic"]

CriticKind = Literal[
    "double_q",
    "conservative",
    "truncated_quantiles",
    "iql",
    "td3",
    "td3_bc",
    "cql",
    "precomputed",
]


def make_critic(
    kind: CriticKind,
    actor_network: GTPActor,
    observation_dim: int,
    *,
    networks: Mapping[str, Any] | None = None,
    num_value_samples: int = 1,
    num_quantiles: int = 25,
    gamma: float = 0.99,
    **options: Any,
) -> Critic:
    """Builds a critic with its networks, which read what the actor reads.

    Args:
        kind (str): ``"double_q"`` (:class:`~torchrl_gtp.objectives.ClippedDoubleQLoss`),
            ``"conservative"``, ``"truncated_quantiles"``; TorchRL's ``"iql"``, ``"td3"`` and
            ``"td3_bc"`` on the flow map, or ``"cql"`` with a Gaussian actor of its own;
            ``"precomputed"`` for an advantage in the data.
        actor_network (GTPActor): the policy.
        observation_dim (int): summed size of the observation entries.
        networks (mapping, optional): arguments of the networks: ``hidden_sizes``,
            ``activation``. Defaults to those of :func:`~torchrl_gtp.make_qvalue`.
        num_value_samples (int): policy samples for V(o), where it comes from samples. Defaults
            to ``1``.
        num_quantiles (int): quantiles of each network of ``"truncated_quantiles"``. Defaults to
            ``25``.
        gamma (float): the discount. Defaults to ``0.99``.
        **options: arguments of the class of the critic.

    Returns:
        Critic: for ``GTPLoss(actor_network, critic=...)``.

    Raises:
        ValueError: for an unknown ``kind``.

    Examples:
        >>> from torchrl_gtp import GTPLoss, make_gtp_actor
        >>> actor = make_gtp_actor(observation_dim=4, action_spec=Bounded(-1, 1, (2,)))
        >>> critic = make_critic("iql", actor, 4, networks={"hidden_sizes": (64,)}, expectile=0.9)
        >>> GTPLoss(actor, critic=critic).out_keys[2:4]
        ['loss_qvalue', 'loss_value']
    """
    if kind not in get_args(CriticKind):
        raise ValueError(f"kind must be one of {get_args(CriticKind)}, got {kind!r}.")
    if kind == "cql" and actor_network.chunk_length is not None:
        raise ValueError(
            "kind='cql' has a Gaussian actor of single actions, but actor_network generates "
            "chunks: take 'conservative'."
        )
    if kind == "precomputed":
        return PrecomputedAdvantage(**options)
    read: dict[str, Any] = {
        "observation_dim": observation_dim,
        "observation_keys": actor_network.observation_keys,
        **(networks or {}),
    }
    acted = {"action_dim": actor_network.action_dim, "action_key": actor_network.action_key}
    qvalue = partial(make_qvalue, **read, **acted, chunk_length=actor_network.chunk_length)
    own: dict[str, Callable[..., ClippedDoubleQLoss]] = {
        "double_q": ClippedDoubleQLoss,
        "conservative": ConservativeQLoss,
        "truncated_quantiles": TruncatedQuantileLoss,
    }
    if kind in own:
        outputs = num_quantiles if kind == "truncated_quantiles" else 1
        critic = own[kind](
            actor_network,
            qvalue(num_quantiles=outputs),
            num_value_samples=num_value_samples,
            **options,
        )
        return critic.make_value_estimator(gamma=gamma)

    space = {"action_spec": Bounded(actor_network.low, actor_network.high)}
    if kind == "iql":
        loss = IQLLoss(actor_network, qvalue(), value_network=make_value(**read), **options)
    elif kind == "cql":
        loss = CQLLoss(_gaussian_actor(actor_network, read, space), qvalue(), **space, **options)
    else:
        theirs = {"td3": TD3Loss, "td3_bc": TD3BCLoss}
        loss = theirs[kind](actor_network, qvalue(), **space, **options)
    loss.set_keys(action=actor_network.action_key)
    loss.make_value_estimator(gamma=gamma)
    return LossCritic(loss, actor_network=actor_network, num_value_samples=num_value_samples)


def _gaussian_actor(
    actor: GTPActor, read: Mapping[str, Any], space: Mapping[str, Any]
) -> ProbabilisticActor:
    """A stochastic actor that reads what the flow map reads, for losses that need a density."""
    net = nn.Sequential(
        MLP(
            in_features=read["observation_dim"],
            out_features=2 * actor.action_dim,
            num_cells=list(read.get("hidden_sizes", (256, 256, 256))),
            activation_class=read.get("activation", nn.Mish),
        ),
        NormalParamExtractor(),
    )
    return ProbabilisticActor(
        TensorDictModule(net, actor.observation_keys, ["loc", "scale"]),
        in_keys=["loc", "scale"],
        out_keys=[actor.action_key],
        spec=space["action_spec"],
        distribution_class=TanhNormal,
        distribution_kwargs={"low": actor.low, "high": actor.high},
        return_log_prob=True,
    )
