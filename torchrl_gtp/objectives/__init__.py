"""Losses as TorchRL ``LossModule`` classes."""

from torchrl_gtp.objectives.base import PolicyLoss
from torchrl_gtp.objectives.critic_protocol import Critic
from torchrl_gtp.objectives.double_q import ClippedDoubleQLoss
from torchrl_gtp.objectives.gtp import GTPLoss
from torchrl_gtp.objectives.presets import paper_options
from torchrl_gtp.objectives.target_update import TargetUpdate

__all__ = [
    "ClippedDoubleQLoss",
    "Critic",
    "GTPLoss",
    "PolicyLoss",
    "TargetUpdate",
    "paper_options",
]
