"""What one update is: losses, optimiser, moving averages, and their state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from tensordict import TensorDictBase
from tensordict.nn import CudaGraphModule
from torch import distributed
from torchrl.objectives.common import LossModule
from torchrl.objectives.utils import TargetNetUpdater

from recipes.common.options import check_options
from recipes.common.processes import Processes
from torchrl_gtp import (
    CandidateActor,
    GTPActor,
    GTPLoss,
    TargetUpdate,
    make_gtp_actor,
    make_qvalue,
    make_value,
)
from torchrl_gtp.data import MinariReplayBuffer
from torchrl_gtp.flow_map import MatchedStart, action_scale
from torchrl_gtp.modules.candidates import Selection
from torchrl_gtp.objectives import make_critic
from torchrl_gtp.training import Update, cosine, make_optimizer
from torchrl_gtp.training.schedules import Schedule


def make_loss(
    cfg: DictConfig,
    buffer: MinariReplayBuffer,
    *,
    bc: bool,
    loss_class: type[GTPLoss] = GTPLoss,
) -> GTPLoss:
    """Build actor, critics and loss for a dataset.

    Args:
        cfg: the recipe's config, groups ``actor``, ``critic`` and ``loss``.
        buffer: the dataset.
        bc: whether to clone the behaviour (GTP-BC), without critics.
        loss_class: a loss derived from ``GTPLoss``, which takes the group ``loss`` instead.

    Raises:
        ValueError: if a group has an option that the library does not know, or the actor starts
            from a denoiser that the loss does not train.
    """
    metadata = buffer.metadata
    actor_options: dict[str, Any] = instantiate(cfg.actor, _convert_="all")
    actor_options["num_steps"] = actor_options.pop("num_steps_train")
    actor_options.pop("num_steps_eval")
    if actor_options.get("sigma_data") is None:
        # One number for all dimensions: see docs/few_step_log.md.
        scale = action_scale(buffer[:]["action"])
        actor_options["sigma_data"] = scale.square().mean().sqrt().item()
    data = {"observation_dim": metadata.observation_dim, "action_spec": metadata.action_spec}
    # The recipe acts and evaluates action by action, so that it makes no chunks.
    reserved = (*data, "observation_keys", "action_key", "noise_key", "chunk_length")
    actor = make_gtp_actor(
        **data, **check_options("actor", actor_options, make_gtp_actor, reserved=reserved)
    )

    loss_options: dict[str, Any] = instantiate(cfg.loss, _convert_="all")
    gamma, with_value = loss_options.pop("gamma"), loss_options.pop("value_network")
    # The recipe sums scalar losses, keeps the progress up to date and knows of other processes.
    reserved = ("actor_network", "qvalue_network", "value_network", "critic", "progress")
    reserved = (*reserved, "denoiser_network", "reduction", "sync_advantage")
    check_options("loss", loss_options, loss_class, reserved=reserved)
    _check_start(actor, loss_options)
    loss_options["sync_advantage"] = distributed.is_initialized()
    if bc:
        return loss_class(actor, **loss_options)

    networks = dict(instantiate(cfg.critic, _convert_="all"))
    kind, critic_options = networks.pop("kind"), networks.pop("options")
    check_options("critic", networks, make_value, reserved=("observation_dim", "observation_keys"))
    if kind == "precomputed":
        raise ValueError(
            "critic.kind=precomputed needs an advantage in the data, which Minari's datasets do "
            "not hold: write one with a value estimator, in a script (docs/critics.md)."
        )
    if kind is None:
        if critic_options:
            raise ValueError(
                f"critic.options={critic_options} is for the critics of critic.kind; those of the "
                "loss itself are in the group loss."
            )
        dims = metadata.observation_dim, metadata.action_spec.shape[-1]
        qvalue = make_qvalue(*dims, **networks)
        value = make_value(metadata.observation_dim, **networks) if with_value else None
        loss = loss_class(actor, qvalue, value_network=value, **loss_options)
        return loss.make_value_estimator(gamma=gamma)
    critic = make_critic(
        kind, actor, metadata.observation_dim, networks=networks, gamma=gamma, **critic_options
    )
    return loss_class(actor, critic=critic, **loss_options)


def _check_start(actor: GTPActor, loss_options: Mapping[str, Any]) -> None:
    if not isinstance(actor.sampler, MatchedStart):
        return
    objective = loss_options.get("objective")
    has_flow = objective is None or "flow" in objective.terms
    if not has_flow or loss_options.get("lambda_flow") == 0:
        raise ValueError(
            "A matched start asks the denoiser, which this loss does not train: its objective has "
            "no term 'flow', or loss.lambda_flow=0. Set actor.sampler=jumps, or the objective's "
            "own sampler (docs/family.md)."
        )


# Cloning has none of them, but a config for both may name them.
_CRITICS = {"qvalue_network", "value_network"}


class Learner:
    """Losses, optimiser, learning-rate schedule and moving averages, stepped together.

    Args:
        loss: the loss, on its device.
        cfg: the ``optim`` group of the recipe's config.
        processes: those among which each batch is split. Defaults to this one alone.
        compilation: the ``compile`` group of the recipe's config. Defaults to running eagerly.
        model: what computes the losses instead of ``loss``, with its parameters. Defaults to
            ``loss`` itself.

    Attributes:
        step: updates made so far.
        num_updates: updates in the whole run.
        takes_num_steps: whether the number of jumps K means something to the policy.
        compiled: whether updates run compiled.
    """

    takes_num_steps = True

    def __init__(
        self,
        loss: LossModule,
        cfg: DictConfig,
        processes: Processes | None = None,
        compilation: Mapping[str, Any] | None = None,
        model: Callable[[TensorDictBase], TensorDictBase] | None = None,
    ) -> None:
        self.loss: Any = loss
        self.step = 0
        self.num_updates: int = cfg.steps
        # Before the moving averages start, which begin at the weights that all processes get.
        if model is None and processes is not None:
            model = processes.parallel(loss)
        trained = {name.rpartition("_params.")[0] or name for name, _ in loss.named_parameters()}
        trained |= {name.rpartition(".")[2] for name in trained}
        self._update = Update(
            loss,
            make_optimizer(
                loss,
                _by_network("lr", cfg, trained),
                muon_lr=_by_network("muon_lr", cfg, trained),
            ),
            _target_update(loss, cfg, trained),
            num_updates=max(1, cfg.steps),
            schedules=_lr_schedules(_by_network("lr_schedule", cfg, trained)),
            model=model,
            grad_clip=_by_network("grad_clip", cfg, trained),
        )
        self.compiled = bool((compilation or {}).get("compile"))
        self._call = _compiled(self._update, compilation or {})

    def update(self, batch: TensorDictBase) -> TensorDictBase:
        """Take one step of gradient descent; return the losses and diagnostics, detached."""
        torch.compiler.cudagraph_mark_step_begin()
        losses = self._call(batch)
        self.step += 1
        return losses

    def policy(
        self,
        num_steps: int,
        *,
        num_candidates: int = 1,
        temperature: float = 1.0,
        selection: Selection = "softmax",
    ) -> GTPActor | CandidateActor:
        """The actor with averaged parameters: the one to evaluate.

        Args:
            num_steps: number of jumps K.
            num_candidates: actions drawn, of which one is kept by its Q-value; without a critic
                there is nothing to choose by, and one is drawn.
            temperature: temperature of that choice.
            selection: how it is made, see ``CandidateActor``.

        Raises:
            ValueError: if the critic has no Q-networks that candidates could be chosen by.
        """
        if num_candidates > 1 and self.loss.has_critic:
            try:
                policy = self.loss.candidate_actor(num_candidates, temperature, selection)
            except ValueError as error:
                raise ValueError(
                    f"env.num_candidates={num_candidates}: {error} Or set env.num_candidates=1."
                ) from error
            policy.actor.num_steps = num_steps
            return policy
        actor = self.loss.target_actor()
        actor.num_steps = num_steps
        return actor

    def state_dict(self) -> dict[str, Any]:
        """The state of all that an update changes."""
        update = self._update.state_dict()
        return {"step": self.step, "loss": update.pop("loss_module"), "update": update}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to the state of :meth:`state_dict`; the number of updates of the run stays."""
        self.step = state["step"]
        self._update.load_state_dict({"loss_module": state["loss"], **state["update"]})


def _target_update(
    loss: LossModule, cfg: DictConfig, trained: Collection[str]
) -> TargetNetUpdater | None:
    """The moving averages; none for a loss that has no target, as for cloning by regression."""
    names = (name.rpartition(".")[2] for name, _ in loss.named_modules())
    if not any(name.startswith("target_") for name in names):
        return None
    return TargetUpdate(
        loss,
        _by_network("tau", cfg, trained),
        interval=_by_network("tau_interval", cfg, trained),
        start=_by_network("tau_start", cfg, trained),
    )


def _by_network(field: str, cfg: DictConfig, networks: Collection[str]) -> Any:
    """A value for all networks, or a mapping of the names of some of them to values."""
    value = cfg[field]
    if not isinstance(value, DictConfig):
        return value
    names = {str(name) for name in value}
    unknown = sorted(n for n in names - set(networks) if n.rpartition(".")[2] not in _CRITICS)
    if unknown:
        raise ValueError(f"optim.{field} names {unknown}, but the networks are {sorted(networks)}.")
    return {str(name): of_network for name, of_network in value.items() if name in networks}


def _lr_schedules(names: str | Mapping[str, str]) -> dict[str, Schedule]:
    """The schedules of :class:`Update` for one name, or for a name for each of some networks."""
    by_key: dict[str, str]
    if isinstance(names, Mapping):
        by_key = {f"lr.{network}": name for network, name in names.items()}
    else:
        by_key = {"lr": names}
    for name in by_key.values():
        if name not in ("constant", "cosine"):
            raise ValueError(f"optim.lr_schedule must be 'constant' or 'cosine', got {name!r}.")
    return {key: cosine(1.0) for key, name in by_key.items() if name == "cosine"}


def _compiled(
    update: Update, options: Mapping[str, Any]
) -> Callable[[TensorDictBase], TensorDictBase]:
    """Compiles and captures the update as the ``compile`` group says."""
    call: Callable[[TensorDictBase], TensorDictBase] = update
    if options.get("compile"):
        # Under a captured graph the compiler must not make graphs of its own.
        mode = options.get("compile_mode") or ("default" if options.get("cudagraphs") else None)
        call = torch.compile(call, mode=mode)
    if options.get("cudagraphs"):
        if update.step.device.type != "cuda":
            raise ValueError(
                "compile.cudagraphs=true needs device=cuda: a CPU has no graphs to capture."
            )
        call = CudaGraphModule(call, in_keys=[], out_keys=[], warmup=10)
    return call
