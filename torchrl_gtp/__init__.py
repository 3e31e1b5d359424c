"""Generative trajectory policies as TorchRL-native components (arXiv 2510.11499)."""

from torchrl_gtp.flow_map import FlowMap, NoiseLevels
from torchrl_gtp.modules import (
    ActionGradient,
    CandidateActor,
    CapturedPolicy,
    GTPActor,
    WarmStartActor,
    make_actor_critic,
    make_gtp_actor,
    make_qvalue,
    make_value,
)
from torchrl_gtp.objectives import GTPLoss, QGradientLoss, TargetUpdate, paper_options

__all__ = [
    "ActionGradient",
    "CandidateActor",
    "CapturedPolicy",
    "FlowMap",
    "GTPActor",
    "GTPLoss",
    "NoiseLevels",
    "QGradientLoss",
    "TargetUpdate",
    "WarmStartActor",
    "make_actor_critic",
    "make_gtp_actor",
    "make_qvalue",
    "make_value",
    "paper_options",
]

__version__ = "0.1.0"
