"""Losses as TorchRL ``LossModule`` classes."""

from torchrl_gtp.objectives.base import PolicyLoss
from torchrl_gtp.objectives.critic import ClippedDoubleQLoss
from torchrl_gtp.objectives.gtp import GTPLoss
from torchrl_gtp.objectives.presets import paper_options

__all__ = ["ClippedDoubleQLoss", "GTPLoss", "PolicyLoss", "paper_options"]
