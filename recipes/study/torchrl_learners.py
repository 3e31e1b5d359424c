"""TorchRL's own offline losses, with TorchRL's actors, trained and evaluated as all others are."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torchrl.objectives
from hydra.utils import instantiate
from omegaconf import DictConfig
from tensordict import TensorDictBase, TensorDictParams
from tensordict.nn import (
    AddStateIndependentNormalScale,
    TensorDictModule,
    TensorDictModuleBase,
    TensorDictSequential,
)
from torch import Tensor, nn
from torchrl.data import Bounded
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import (
    MLP,
    IndependentNormal,
    NormalParamExtractor,
    ProbabilisticActor,
    TanhModule,
    TanhNormal,
)
from torchrl.objectives.common import LossModule

from recipes.common.options import check_options
from recipes.gtp.learner import Learner
from torchrl_gtp import make_qvalue, make_value
from torchrl_gtp.data import MinariReplayBuffer
from torchrl_gtp.modules.candidates import Selection

LossName = Literal["BCLoss", "IQLLoss", "TD3BCLoss", "CQLLoss"]
ActorKind = Literal["deterministic", "normal", "tanh_normal"]


class TorchRLLearner(Learner):
    """A TorchRL loss, and its actor without exploration as the policy to evaluate.

    Args:
        loss: the loss, on its device.
        cfg: the ``optim`` group of the config.
        model: what computes the losses of an update instead of ``loss``.
    """

    takes_num_steps = False

    def __init__(
        self, loss: LossModule, cfg: DictConfig, model: Callable[[TensorDictBase], TensorDictBase]
    ) -> None:
        super().__init__(loss, cfg, model=model)

    def policy(
        self,
        num_steps: int,
        *,
        num_candidates: int = 1,
        temperature: float = 1.0,
        selection: Selection = "softmax",
    ) -> TensorDictModuleBase:
        """The actor with its present parameters; it has no steps, so their number is not used.

        Raises:
            ValueError: for more than one candidate.
        """
        if num_candidates > 1:
            raise ValueError(
                f"env.num_candidates={num_candidates}: the actor of {type(self.loss).__name__} is "
                "evaluated without drawing. Set env.num_candidates=1 for this method."
            )
        return WithoutExploration(self.loss.actor_network, self.loss.actor_network_params)


class WithoutExploration(TensorDictModuleBase):
    """A policy that takes the deterministic action under any exploration type.

    Args:
        network: the actor as a loss holds it.
        params: its parameters, which it shares with the loss.
    """

    def __init__(self, network: TensorDictModuleBase, params: TensorDictParams) -> None:
        super().__init__()
        self.network, self.params = network, params
        self.in_keys, self.out_keys = network.in_keys, ["action"]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the action."""
        inputs = tensordict.select(*self.in_keys)
        with (
            set_exploration_type(ExplorationType.DETERMINISTIC),
            self.params.to_module(self.network),
        ):
            action = self.network(inputs)["action"]
        return tensordict.set("action", action)


class SelectedTerms:
    """A loss of which some terms count, and of which one may count in every n-th update only.

    Args:
        loss: the loss.
        terms: names of the terms that are minimised; ``None`` for all.
        actor_interval: ``loss_actor`` counts in updates whose number is a multiple of this.
        learner_step: tells the number of updates so far.
    """

    def __init__(
        self,
        loss: LossModule,
        terms: Sequence[str] | None,
        actor_interval: int,
        learner_step: Callable[[], int],
    ) -> None:
        self.loss, self.terms = loss, terms
        self.actor_interval, self.learner_step = actor_interval, learner_step

    def __call__(self, batch: TensorDictBase) -> TensorDictBase:
        """Compute the losses."""
        losses = self.loss(batch)
        names = [name for name in losses.keys() if name.startswith("loss_")]
        dropped = [name for name in names if self.terms is not None and name not in self.terms]
        if self.learner_step() % self.actor_interval:
            dropped.append("loss_actor")
        losses = losses.exclude(*dropped)
        if "loss_alpha_prime" in losses.keys():
            losses["loss_alpha_prime"] = _for_one(
                losses["loss_alpha_prime"], self.loss.log_alpha_prime
            )
        return losses


def _for_one(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """The same value, whose gradient reaches one parameter only.

    CQL's multiplier is trained against its critics: in a sum of all terms these would follow both.
    """
    (gradient,) = torch.autograd.grad(value, parameter, retain_graph=True)
    linear = (gradient * parameter).sum()
    return value.detach() + linear - linear.detach()


def torchrl_learner(
    cfg: DictConfig,
    buffer: MinariReplayBuffer,
    device: torch.device,
    *,
    loss: LossName,
    actor: ActorKind,
    options: DictConfig | None = None,
    terms: Sequence[str] | None = None,
    actor_interval: int = 1,
) -> Learner:
    """One of TorchRL's losses with networks of the sizes of the groups ``actor`` and ``critic``.

    Args:
        cfg: the cell's config.
        buffer: the dataset.
        device: where the networks go.
        loss: name of the class in ``torchrl.objectives``.
        actor: ``"deterministic"``; ``"normal"``, a Gaussian with its mean inside the bounds and
            one standard deviation for all states; or ``"tanh_normal"``, a squashed Gaussian.
        options: further arguments of that class.
        terms: the outputs ``loss_...`` that are minimised; ``None`` for all.
        actor_interval: the actor is trained in every update whose number is a multiple of this.

    Raises:
        ImportError: if the installed torchrl has no such loss.
        ValueError: for an option that the loss does not take.
    """
    loss_class = getattr(torchrl.objectives, loss, None)
    if loss_class is None:
        raise ImportError(
            f"torchrl {importlib.metadata.version('torchrl')} has no {loss}: install a version "
            "that has it, or take this method out of the study."
        )
    metadata = buffer.metadata
    dims = metadata.observation_dim, metadata.action_spec.shape[-1]
    networks: dict[str, Any] = instantiate(cfg.critic, _convert_="all")
    networks = {name: networks[name] for name in ("hidden_sizes", "activation")}
    arguments: list[Any] = [_make_actor(cfg, metadata.observation_dim, metadata.action_spec, actor)]
    if loss != "BCLoss":
        arguments.append(make_qvalue(*dims, **networks))
    if loss == "IQLLoss":
        arguments.append(make_value(metadata.observation_dim, **networks))
    reserved = ("actor_network", "qvalue_network", "value_network", "action_spec", "reduction")
    given = check_options("method.learner.options", options or {}, loss_class, reserved=reserved)
    if loss in ("TD3BCLoss", "CQLLoss"):
        given["action_spec"] = metadata.action_spec
    module: LossModule = loss_class(*arguments, **given)
    if loss != "BCLoss":
        module.make_value_estimator(gamma=cfg.loss.gamma)
    selection = SelectedTerms(module.to(device), terms, actor_interval, lambda: learner.step)
    learner = TorchRLLearner(module, cfg.optim, selection)
    return learner


def _make_actor(
    cfg: DictConfig, observation_dim: int, spec: Bounded, kind: ActorKind
) -> TensorDictModuleBase:
    action_dim = spec.shape[-1]
    group = instantiate(cfg.actor, _convert_="all")
    outputs = 2 * action_dim if kind == "tanh_normal" else action_dim
    net: nn.Module = MLP(
        observation_dim,
        outputs,
        num_cells=group["hidden_sizes"],
        activation_class=group["activation"],
    )
    bounds: dict[str, Any] = {"low": spec.space.low, "high": spec.space.high}
    probabilistic: dict[str, Any] = {"in_keys": ["loc", "scale"], "spec": spec}
    if kind == "tanh_normal":
        module = TensorDictModule(
            nn.Sequential(net, NormalParamExtractor()), ["observation"], ["loc", "scale"]
        )
        return ProbabilisticActor(
            module,
            distribution_class=TanhNormal,
            distribution_kwargs=bounds,
            return_log_prob=True,
            **probabilistic,
        )
    key = "action" if kind == "deterministic" else "loc"
    mean = [TensorDictModule(net, ["observation"], [key]), TanhModule(in_keys=[key], **bounds)]
    if kind == "deterministic":
        return TensorDictSequential(*mean)
    scale = TensorDictModule(AddStateIndependentNormalScale(action_dim), ["loc"], ["loc", "scale"])
    return ProbabilisticActor(
        TensorDictSequential(*mean, scale), distribution_class=IndependentNormal, **probabilistic
    )
