"""What one update is: losses, optimiser, moving averages, and their state."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from tensordict import TensorDictBase
from torch import distributed, nn
from torchrl.objectives import SoftUpdate

from recipes.common.options import check_options
from recipes.common.processes import Processes
from torchrl_gtp import CandidateActor, GTPActor, GTPLoss, make_gtp_actor, make_qvalue, make_value
from torchrl_gtp.data import MinariReplayBuffer


def make_loss(cfg: DictConfig, buffer: MinariReplayBuffer, *, bc: bool) -> GTPLoss:
    """Build actor, critics and loss for a dataset.

    Args:
        cfg: the recipe's config, groups ``actor``, ``critic`` and ``loss``.
        buffer: the dataset.
        bc: whether to clone the behaviour (GTP-BC), without critics.

    Raises:
        ValueError: if a group has an option that the library does not know.
    """
    metadata = buffer.metadata
    actor_options: dict[str, Any] = instantiate(cfg.actor, _convert_="all")
    actor_options["num_steps"] = actor_options.pop("num_steps_train")
    actor_options.pop("num_steps_eval")
    if actor_options.get("sigma_data") is None:
        actor_options["sigma_data"] = buffer[:]["action"].std().item()
    data = {"observation_dim": metadata.observation_dim, "action_spec": metadata.action_spec}
    # The recipe acts and evaluates action by action, so that it makes no chunks.
    reserved = (*data, "observation_keys", "action_key", "noise_key", "chunk_length")
    actor = make_gtp_actor(
        **data, **check_options("actor", actor_options, make_gtp_actor, reserved=reserved)
    )

    loss_options: dict[str, Any] = instantiate(cfg.loss, _convert_="all")
    gamma, with_value = loss_options.pop("gamma"), loss_options.pop("value_network")
    # The recipe sums scalar losses, keeps the progress up to date and knows of other processes.
    reserved = ("actor_network", "qvalue_network", "value_network", "progress", "reduction")
    reserved = (*reserved, "sync_advantage")
    check_options("loss", loss_options, GTPLoss, reserved=reserved)
    loss_options["sync_advantage"] = distributed.is_initialized()
    if bc:
        return GTPLoss(actor, **loss_options)

    critic_options = check_options(
        "critic",
        instantiate(cfg.critic, _convert_="all"),
        make_value,
        reserved=("observation_dim", "observation_keys"),
    )
    qvalue = make_qvalue(metadata.observation_dim, metadata.action_spec.shape[-1], **critic_options)
    value = make_value(metadata.observation_dim, **critic_options) if with_value else None
    loss = GTPLoss(actor, qvalue, value_network=value, **loss_options)
    loss.make_value_estimator(gamma=gamma)
    return loss


def _lr_factor(schedule: str, num_updates: int, step: int) -> float:
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, step / num_updates)))


class Learner:
    """Losses, optimiser, learning-rate schedule and moving averages, stepped together.

    Args:
        loss: the loss, on its device.
        cfg: the ``optim`` group of the recipe's config.
        processes: those among which each batch is split. Defaults to this one alone.

    Attributes:
        step: updates made so far.
        num_updates: updates in the whole run.
    """

    def __init__(self, loss: GTPLoss, cfg: DictConfig, processes: Processes | None = None) -> None:
        if cfg.lr_schedule not in ("constant", "cosine"):
            raise ValueError(
                f"optim.lr_schedule must be 'constant' or 'cosine', got {cfg.lr_schedule!r}."
            )
        self.loss = loss
        self.step = 0
        self.num_updates: int = cfg.steps
        self._grad_clip: float | None = cfg.grad_clip
        # One parameter group a network, so that each has its own gradient norm to clip.
        networks = [loss.actor_network_params]
        if loss.has_critic:
            networks.append(loss.qvalue_network_params)
        if loss.has_value_network:
            networks.append(loss.value_network_params)
        self.optimizer = torch.optim.Adam(
            [{"params": list(network.parameters())} for network in networks], lr=cfg.lr
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, partial(_lr_factor, cfg.lr_schedule, cfg.steps)
        )
        # Before the moving averages start, which begin at the weights that all processes get.
        self._parallel_loss = loss if processes is None else processes.parallel(loss)
        self._target_update = SoftUpdate(loss, tau=cfg.tau)

    def update(self, batch: TensorDictBase) -> TensorDictBase:
        """Take one step of gradient descent; return the losses and diagnostics, detached."""
        self.loss.progress.fill_(self.step / self.num_updates)
        losses = self._parallel_loss(batch)
        total = sum(value for name, value in losses.items() if name.startswith("loss_"))
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        if self._grad_clip is not None:
            for group in self.optimizer.param_groups:
                nn.utils.clip_grad_norm_(group["params"], self._grad_clip)
        self.optimizer.step()
        self._schedule.step()
        self._target_update.step()
        self.step += 1
        return losses.detach()

    def policy(
        self, num_steps: int, *, num_candidates: int = 1, temperature: float = 1.0
    ) -> GTPActor | CandidateActor:
        """The actor with averaged parameters: the one to evaluate.

        Args:
            num_steps: number of jumps K.
            num_candidates: actions drawn, of which one is kept by its Q-value; without a critic
                there is nothing to choose by, and one is drawn.
            temperature: temperature of that choice.
        """
        if num_candidates > 1 and self.loss.has_critic:
            policy = self.loss.candidate_actor(num_candidates, temperature)
            policy.actor.num_steps = num_steps
            return policy
        actor = self.loss.target_actor()
        actor.num_steps = num_steps
        return actor

    def state_dict(self) -> dict[str, Any]:
        """The state of all that an update changes."""
        return {
            "step": self.step,
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to the state of :meth:`state_dict`; the number of updates of the run stays."""
        self.step = state["step"]
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
