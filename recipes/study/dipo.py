"""DIPO: the policy clones actions of the buffer that move uphill in Q, again and again."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig
from tensordict import TensorDictBase

from recipes.common.options import check_options
from recipes.gtp.learner import Learner, make_loss
from torchrl_gtp import ActionGradient, GTPLoss
from torchrl_gtp.data import MinariReplayBuffer, copy_entry, write_entry

IMPROVED = "improved_action"
# Arguments of ActionGradient that follow from the loss.
_FILLED = (
    "qvalue_networks",
    "action_spec",
    "low",
    "high",
    "action_key",
    "improved_key",
    "qvalue_action_key",
    "state_action_value_key",
)


class DipoLearner(Learner):
    """A learner that improves the actions of each batch first, and keeps them in the buffer.

    Args:
        loss: a loss whose policy is fitted to the entry ``"improved_action"``.
        cfg: the ``optim`` group of the config.
        buffer: the dataset, with that entry; the critics read the actions of the data.
        improve: moves the actions.
        compilation: the ``compile`` group of the config.
    """

    def __init__(
        self,
        loss: GTPLoss,
        cfg: DictConfig,
        buffer: MinariReplayBuffer,
        improve: ActionGradient,
        compilation: DictConfig,
    ) -> None:
        super().__init__(loss, cfg, compilation=compilation)
        self.buffer, self.improve = buffer, improve

    def update(self, batch: TensorDictBase) -> TensorDictBase:
        """Improve the actions of the batch, then take one step of gradient descent."""
        batch = self.improve(batch)
        write_entry(self.buffer, batch, IMPROVED)
        return super().update(batch)

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
    options = check_options(
        "method.learner.action_gradient", action_gradient, ActionGradient, reserved=_FILLED
    )
    if options.get("max_grad_norm") is not None:
        options["max_grad_norm"] *= buffer.metadata.action_spec.shape[-1]
    copy_entry(buffer, "action", IMPROVED)
    loss = make_loss(cfg, buffer, bc=False).to(device)
    loss.set_keys(policy_action=IMPROVED)
    improve = loss.action_gradient(action_key=IMPROVED, **options)
    return DipoLearner(loss, cfg.optim, buffer, improve, cfg.compile)
