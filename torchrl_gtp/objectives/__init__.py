"""Losses as TorchRL ``LossModule`` classes."""

from torchrl_gtp.objectives.base import PolicyLoss
from torchrl_gtp.objectives.conservative_q import ConservativeQLoss
from torchrl_gtp.objectives.critic_protocol import Critic
from torchrl_gtp.objectives.double_q import ClippedDoubleQLoss
from torchrl_gtp.objectives.gtp import GTPLoss
from torchrl_gtp.objectives.loss_critic import LossCritic
from torchrl_gtp.objectives.make_critic import make_critic
from torchrl_gtp.objectives.precomputed_advantage import PrecomputedAdvantage
from torchrl_gtp.objectives.presets import paper_options
from torchrl_gtp.objectives.q_gradient import QGradientLoss
from torchrl_gtp.objectives.target_update import TargetUpdate
from torchrl_gtp.objectives.truncated_quantile import TruncatedQuantileLoss

__all__ = [
    "ClippedDoubleQLoss",
    "ConservativeQLoss",
    "Critic",
    "GTPLoss",
    "LossCritic",
    "PolicyLoss",
    "PrecomputedAdvantage",
    "QGradientLoss",
    "TargetUpdate",
    "TruncatedQuantileLoss",
    "make_critic",
    "paper_options",
]
