"""What DIPO trains: a diffusion policy, fitted to actions that move uphill in Q."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from tensordict import TensorDictBase
from torchrl.data import ReplayBuffer, TensorSpec

from recipes.common.options import check_options
from recipes.gtp.learner import Learner
from torchrl_gtp import ActionGradient, GTPActor, GTPLoss, make_gtp_actor, make_qvalue
from torchrl_gtp.data import write_entry
from torchrl_gtp.flow_map import AncestralSampler, Denoising, Objective, VPSchedule

# The entry of a transition that the policy is fitted to; the critics read "action".
IMPROVED = "improved_action"
# Arguments that follow from the environment, actor.num_levels or the algorithm.
_OF_ACTOR = ("observation_dim", "action_spec", "sampler", "num_steps", "chunk_length")
_OF_KEYS = ("observation_keys", "action_key", "noise_key")
_OF_CRITIC = ("observation_dim", "action_dim", "chunk_length", "num_quantiles", *_OF_KEYS)
_OF_LOSS = (
    *("actor_network", "qvalue_network", "value_network", "denoiser_network", "critic"),
    *("objective", "time_sampler", "time_weight", "robust_power", "teacher"),
    *("semigroup_every", "progress"),
    *("weighting", "eta", "max_weight", "advantage_eps", "sync_advantage", "reduction"),
)
_OF_GRADIENT = (
    "qvalue_networks",
    "action_spec",
    "low",
    "high",
    "action_key",
    "improved_key",
    "qvalue_action_key",
    "state_action_value_key",
)


def make_networks(
    cfg: DictConfig, observation_dim: int, action_spec: TensorSpec, device: torch.device
) -> tuple[GTPActor, GTPLoss]:
    """Build the policy, the critics and their loss.

    Args:
        cfg: the recipe's config, groups ``actor``, ``critic`` and ``loss``.
        observation_dim: size of the observation.
        action_spec: spec of one action.
        device: where the networks go.

    Returns:
        the policy with the current parameters, which acts, and the loss that trains it.

    Raises:
        ValueError: if a group has an option that the library does not know.
    """
    options: dict[str, Any] = instantiate(cfg.actor, _convert_="all")
    num_levels = options.pop("num_levels")
    options = check_options(
        "actor", options, make_gtp_actor, reserved=(*_OF_ACTOR, *_OF_KEYS, "noise_levels")
    )
    schedule = VPSchedule(num_levels)
    actor = make_gtp_actor(
        observation_dim,
        action_spec,
        sampler=AncestralSampler(schedule),
        num_steps=num_levels,
        **options,
    ).to(device)
    options = instantiate(cfg.critic, _convert_="all")
    options = check_options("critic", options, make_qvalue, reserved=_OF_CRITIC)
    qvalue = make_qvalue(observation_dim, action_spec.shape[-1], **options).to(device)
    options = instantiate(cfg.loss, _convert_="all")
    gamma = options.pop("gamma")
    options = check_options("loss", options, GTPLoss, reserved=_OF_LOSS)
    objective = Objective({"flow": Denoising(schedule, "noise")})
    loss = GTPLoss(actor, qvalue, objective=objective, weighting="none", **options)
    loss.set_keys(policy_action=IMPROVED)
    return actor, loss.make_value_estimator(gamma=gamma)


def make_action_gradient(
    loss: GTPLoss,
    group: str,
    options: Mapping[str, Any],
    action_dim: int,
    *,
    from_improved: bool = True,
) -> ActionGradient:
    """Build what moves actions uphill in Q.

    Args:
        loss: the loss with the critics.
        group: name of the config group with the options, for messages.
        options: arguments of ``ActionGradient``; ``max_grad_norm`` for each dimension of the
            action, as published.
        action_dim: size of one action.
        from_improved: whether to go on from the improved action of each transition, or to start
            from the action that was taken.

    Raises:
        ValueError: for an option that ``ActionGradient`` does not take.
    """
    options = check_options(group, options, ActionGradient, reserved=_OF_GRADIENT)
    if options.get("max_grad_norm") is not None:
        options["max_grad_norm"] *= action_dim
    start = IMPROVED if from_improved else "action"
    return loss.action_gradient(action_key=start, improved_key=IMPROVED, **options)


class DipoLearner(Learner):
    """A learner that improves the actions of each batch before it learns from it.

    Args:
        loss: a loss whose policy is fitted to the entry ``"improved_action"``.
        cfg: the ``optim`` group of the config.
        improve: moves the actions.
        store: where batches come from, for the improved actions to go back there; ``None`` drops
            them after the update.
        compilation: the ``compile`` group of the config. Defaults to running eagerly.
    """

    def __init__(
        self,
        loss: GTPLoss,
        cfg: DictConfig,
        improve: ActionGradient,
        store: ReplayBuffer | None,
        compilation: DictConfig | None = None,
    ) -> None:
        super().__init__(loss, cfg, compilation=compilation)
        self.improve, self.store = improve, store

    def update(self, batch: TensorDictBase) -> TensorDictBase:
        """Improve the actions of the batch, then take one step of gradient descent."""
        batch = self.improve(batch)
        if self.store is not None:
            write_entry(self.store, batch, IMPROVED)
        return super().update(batch)
