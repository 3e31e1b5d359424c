"""Instantiable dataclass configs of the loss, actors and critics."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING
from tensordict.nn import TensorDictModuleBase
from torch import nn
from torchrl.trainers.algorithms.configs.common import (
    ConfigBase,
    _normalize_hydra_key,
    _normalize_hydra_keys,
)
from torchrl.trainers.algorithms.configs.modules import ActivationConfig
from torchrl.trainers.algorithms.configs.objectives import LossConfig, TargetNetUpdaterConfig

from torchrl_gtp.modules import CandidateActor, GTPActor, make_gtp_actor, make_qvalue, make_value
from torchrl_gtp.objectives import Critic, GTPLoss, QGradientLoss, make_critic

__all__ = [
    "CandidateActorConfig",
    "CriticConfig",
    "GTPActorConfig",
    "GTPLossConfig",
    "NoiseLevelsConfig",
    "QGradientLossConfig",
    "QValueConfig",
    "TargetUpdateConfig",
    "ValueConfig",
    "register_configs",
]

_HERE = "torchrl_gtp.trainers.configs"


def _mish() -> ActivationConfig:
    return ActivationConfig(_target_="torch.nn.Mish", _partial_=True)


def _hidden_sizes() -> list[int]:
    return [256, 256, 256]


def _observation() -> list[Any]:
    return ["observation"]


@dataclass
class NoiseLevelsConfig(ConfigBase):
    """Config of :class:`~torchrl_gtp.NoiseLevels`, group ``noise_levels``, name ``karras``."""

    sigma_min: float = 0.002
    sigma_max: float = 3.0
    rho: float = 7.0
    _target_: str = "torchrl_gtp.flow_map.NoiseLevels"
    _partial_: bool = False

    def __post_init__(self) -> None:
        """Nothing to complete."""


@dataclass
class GTPActorConfig(ConfigBase):
    """Config of :func:`~torchrl_gtp.make_gtp_actor`, group ``model``, name ``gtp_actor``.

    Every argument of the function is a field. A nested key is a list, as in TorchRL's configs:
    ``observation_keys: [[agent, observation], goal]``.
    """

    observation_dim: int = MISSING
    action_spec: Any = MISSING
    observation_keys: Any = field(default_factory=_observation)
    action_key: Any = "action"
    noise_key: Any = "noise"
    num_steps: int = 5
    sampler: Any = "jumps"
    chunk_length: int | None = None
    sigma_data: Any = 0.5
    noise_levels: Any = None
    backbone: str = "mlp"
    hidden_sizes: Any = field(default_factory=_hidden_sizes)
    activation: Any = None
    dropout: float = 0.0
    time_embedding_dim: int = 16
    _target_: str = f"{_HERE}._make_actor"
    _partial_: bool = False

    def __post_init__(self) -> None:
        """Nothing to complete."""


@dataclass
class QValueConfig(ConfigBase):
    """Config of :func:`~torchrl_gtp.make_qvalue`, group ``model``, name ``gtp_qvalue``."""

    observation_dim: int = MISSING
    action_dim: int = MISSING
    chunk_length: int | None = None
    num_quantiles: int = 1
    observation_keys: Any = field(default_factory=_observation)
    action_key: Any = "action"
    hidden_sizes: Any = field(default_factory=_hidden_sizes)
    activation: Any = field(default_factory=_mish)
    _target_: str = f"{_HERE}._make_qvalue"
    _partial_: bool = False

    def __post_init__(self) -> None:
        """Nothing to complete."""


@dataclass
class ValueConfig(ConfigBase):
    """Config of :func:`~torchrl_gtp.make_value`, group ``model``, name ``gtp_value``."""

    observation_dim: int = MISSING
    observation_keys: Any = field(default_factory=_observation)
    hidden_sizes: Any = field(default_factory=_hidden_sizes)
    activation: Any = field(default_factory=_mish)
    _target_: str = f"{_HERE}._make_value"
    _partial_: bool = False

    def __post_init__(self) -> None:
        """Nothing to complete."""


@dataclass
class CandidateActorConfig(ConfigBase):
    """Config of :class:`~torchrl_gtp.CandidateActor`, group ``model``, name ``candidate_actor``.

    Every argument of the class is a field.
    """

    actor: Any = MISSING
    qvalue_networks: Any = MISSING
    num_candidates: int = 50
    temperature: float = 1.0
    selection: str = "softmax"
    value_network: Any = None
    expectile: float = 0.9
    state_action_value_key: Any = "state_action_value"
    state_value_key: Any = "state_value"
    qvalue_action_key: Any = None
    _target_: str = f"{_HERE}._make_candidate_actor"
    _partial_: bool = False

    def __post_init__(self) -> None:
        """Nothing to complete."""


@dataclass
class CriticConfig(ConfigBase):
    """Config of :func:`~torchrl_gtp.objectives.make_critic`, group ``critic``, name ``gtp_critic``.

    ``options`` are the arguments of the critic's class. The actor is that of the loss, which
    builds its critic.
    """

    kind: str = MISSING
    observation_dim: int = MISSING
    networks: Any = None
    num_value_samples: int = 1
    num_quantiles: int = 25
    gamma: float = 0.99
    options: dict[str, Any] = field(default_factory=dict)
    _target_: str = f"{_HERE}._make_critic"
    _partial_: bool = True

    def __post_init__(self) -> None:
        """Nothing to complete."""


@dataclass
class TargetUpdateConfig(TargetNetUpdaterConfig):
    """Config of :class:`~torchrl_gtp.TargetUpdate`, group ``target_net_updater``, name ``rates``.

    Each argument of the class is a field; the loss is given later. Numbers may be mappings of
    network names to numbers.
    """

    loss_module: Any = MISSING
    tau: Any = MISSING
    interval: Any = 1
    start: Any = 0
    _target_: str = "torchrl_gtp.TargetUpdate"
    _partial_: bool = True


@dataclass
class GTPLossConfig(LossConfig):
    """Config of :class:`~torchrl_gtp.GTPLoss`, group ``loss``, name ``gtp``.

    Every argument of the class is a field, with the default of the class; ``gamma``, if set, is
    the discount of the value estimator. With ``_partial_: true`` the networks may be given later,
    which is how TorchRL's trainer configs build their losses.

    Examples:
        >>> from hydra.utils import instantiate
        >>> spec = {"_target_": "torchrl.data.Bounded", "low": -1, "high": 1, "shape": [2]}
        >>> actor = GTPActorConfig(observation_dim=4, action_spec=spec)
        >>> critic = QValueConfig(observation_dim=4, action_dim=2)
        >>> loss = instantiate(
        ...     GTPLossConfig(actor_network=actor, qvalue_network=critic, eta=3.0, gamma=0.98)
        ... )
        >>> type(loss).__name__, loss.eta.item(), round(loss.value_estimator.gamma.item(), 2)
        ('GTPLoss', 3.0, 0.98)
    """

    actor_network: Any = None
    qvalue_network: Any = None
    value_network: Any = None
    critic: Any = None
    weighting: str = "truncated"
    eta: float = 1.0
    lambda_flow: float | None = None
    max_weight: float | None = 100.0
    advantage_eps: float = 1e-6
    time_sampler: Any = "log_normal"
    time_weight: str = "edm"
    robust_power: float = 1.0
    teacher: str = "current"
    semigroup_every: int | None = 8
    objective: Any = None
    denoiser_network: Any = None
    progress: float = 0.5
    sync_advantage: bool = False
    num_qvalue_nets: int = 2
    num_qvalue_subset: int | None = None
    loss_function: str = "l2"
    expectile: float = 0.9
    num_value_samples: int = 1
    num_backup_samples: int = 1
    policy_noise: float = 0.0
    noise_clip: float = 0.5
    policy_num_steps: int | None = None
    delay_actor: bool = True
    delay_qvalue: bool = True
    separate_losses: bool = False
    deactivate_vmap: bool = False
    use_prioritized_weights: Any = "auto"
    reduction: str | None = None
    gamma: float | None = None
    _target_: str = f"{_HERE}._make_gtp_loss"

    def __post_init__(self) -> None:
        """Nothing to complete."""
        super().__post_init__()


@dataclass
class QGradientLossConfig(GTPLossConfig):
    """Config of :class:`~torchrl_gtp.objectives.QGradientLoss`, ``loss/q_gradient``.

    As :class:`GTPLossConfig`, with two more fields.
    """

    q_weight: float = 1.0
    q_normalization: str = "other_critic"
    weighting: str = "none"
    _target_: str = f"{_HERE}._make_q_gradient_loss"


def register_configs() -> None:
    """Registers the configs in Hydra's ``ConfigStore``, under TorchRL's groups.

    Importing :mod:`torchrl_gtp.trainers` does it; call it again after the store was cleared.

    Examples:
        >>> register_configs()
        >>> ConfigStore.instance().load("loss/gtp.yaml").node.teacher
        'current'
    """
    store = ConfigStore.instance()
    store.store(group="loss", name="gtp", node=GTPLossConfig)
    store.store(group="loss", name="q_gradient", node=QGradientLossConfig)
    store.store(group="critic", name="gtp_critic", node=CriticConfig)
    store.store(group="target_net_updater", name="rates", node=TargetUpdateConfig)
    store.store(group="model", name="gtp_actor", node=GTPActorConfig)
    store.store(group="model", name="gtp_qvalue", node=QValueConfig)
    store.store(group="model", name="gtp_value", node=ValueConfig)
    store.store(group="model", name="candidate_actor", node=CandidateActorConfig)
    store.store(group="noise_levels", name="karras", node=NoiseLevelsConfig)


def _with_keys(options: dict[str, Any]) -> dict[str, Any]:
    """Turns lists of strings into nested keys, and config lists into lists."""
    names = ("action_key", "noise_key", "qvalue_action_key")
    for name in (*names, "state_action_value_key", "state_value_key"):
        if name in options:
            options[name] = _normalize_hydra_key(options[name])
    if "observation_keys" in options:
        options["observation_keys"] = _normalize_hydra_keys(options["observation_keys"])
    return options


def _make_actor(activation: Any = None, **options: Any) -> GTPActor:
    if isinstance(activation, nn.Module):
        # Of a YAML file without `_partial_`.
        activation = partial(copy.deepcopy, activation)
    return make_gtp_actor(activation=activation, **_with_keys(options))


def _make_qvalue(**options: Any) -> TensorDictModuleBase:
    return make_qvalue(**_with_keys(options))


def _make_value(**options: Any) -> TensorDictModuleBase:
    return make_value(**_with_keys(options))


def _make_candidate_actor(
    actor: GTPActor | Callable[[], GTPActor],
    qvalue_networks: Sequence[nn.Module | Callable[[], nn.Module]],
    **options: Any,
) -> CandidateActor:
    networks = [_built(network) for network in qvalue_networks]
    options["value_network"] = _built(options.get("value_network"))
    return CandidateActor(_built(actor), networks, **_with_keys(options))


def _make_q_gradient_loss(**options: Any) -> GTPLoss:
    return _make_gtp_loss(kind=QGradientLoss, **options)


def _make_gtp_loss(
    *, gamma: float | None = None, kind: type[GTPLoss] = GTPLoss, **options: Any
) -> GTPLoss:
    for name in ("actor_network", "qvalue_network", "value_network", "denoiser_network"):
        options[name] = _built(options.get(name))
    critic = options.get("critic")
    if isinstance(critic, partial):
        options["critic"] = critic(actor_network=options["actor_network"])
    loss = kind(**options)
    if gamma is not None:
        loss.make_value_estimator(gamma=gamma)
    return loss


def _make_critic(*, options: Mapping[str, Any], **arguments: Any) -> Critic:
    return make_critic(**arguments, **options)


def _built(network: Any) -> Any:
    """Calls a network's factory; a network, a list of networks and None are what they are."""
    return network() if isinstance(network, partial) else network
