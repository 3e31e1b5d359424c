"""DIPO: the policy clones actions of the buffer that move uphill in Q, again and again."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from recipes.gtp.learner import Learner, make_loss
from recipes.online.learner import IMPROVED, DipoLearner, make_action_gradient
from torchrl_gtp import ActionGradient, GTPLoss
from torchrl_gtp.data import MinariReplayBuffer, copy_entry


class OfflineDipoLearner(DipoLearner):
    """A learner whose improved actions are part of its state: a checkpoint holds no dataset.

    Args:
        loss: a loss whose policy is fitted to the entry ``"improved_action"``.
        cfg: the ``optim`` group of the config.
        improve: moves the actions.
        buffer: the dataset, with that entry; the critics read the actions of the data.
        compilation: the ``compile`` group of the config.
    """

    def __init__(
        self,
        loss: GTPLoss,
        cfg: DictConfig,
        improve: ActionGradient,
        buffer: MinariReplayBuffer,
        compilation: DictConfig,
    ) -> None:
        super().__init__(loss, cfg, improve, buffer, compilation)
        self.buffer = buffer

    def state_dict(self) -> dict[str, Any]:
        """The state of all that an update changes, the improved actions among it."""
        return {**super().state_dict(), IMPROVED: self.buffer[:][IMPROVED].clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to the state of :meth:`state_dict`."""
        super().load_state_dict(state)
        stored = self.buffer[:][IMPROVED]
        stored.copy_(state[IMPROVED])


def dipo_learner(
    cfg: DictConfig,
    buffer: MinariReplayBuffer,
    device: torch.device,
    *,
    action_gradient: DictConfig,
) -> Learner:
    """The policy of the groups ``actor`` and ``loss``, fitted to improved actions.

    Args:
        cfg: the cell's config.
        buffer: the dataset, which gets an entry more.
        device: where the networks go.
        action_gradient: arguments of ``ActionGradient``; ``max_grad_norm`` for each dimension of
            the action, as published.

    Raises:
        ValueError: for an option that it does not take.
    """
    copy_entry(buffer, "action", IMPROVED)
    loss = make_loss(cfg, buffer, bc=False).to(device)
    loss.set_keys(policy_action=IMPROVED)
    options: dict[str, Any] = OmegaConf.to_container(action_gradient)  # type: ignore[assignment]
    improve = make_action_gradient(
        loss,
        "method.learner.action_gradient",
        options,
        buffer.metadata.action_spec.shape[-1],
    )
    return OfflineDipoLearner(loss, cfg.optim, improve, buffer, cfg.compile)
