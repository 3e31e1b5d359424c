"""Losses as TorchRL ``LossModule`` classes."""

from torchrl_gtp.objectives.critic import ClippedDoubleQLoss
from torchrl_gtp.objectives.gtp import GTPLoss, paper_options

__all__ = ["ClippedDoubleQLoss", "GTPLoss", "paper_options"]
