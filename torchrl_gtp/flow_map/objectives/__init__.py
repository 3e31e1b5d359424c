"""Training objectives of a flow map, each a few terms over the same map."""

from torchrl_gtp.flow_map.objectives.base import Draw, Objective, Teacher, Term, TermInputs
from torchrl_gtp.flow_map.objectives.consistency import Consistency
from torchrl_gtp.flow_map.objectives.denoising import Denoising
from torchrl_gtp.flow_map.objectives.gtp import gtp_objective
from torchrl_gtp.flow_map.objectives.mean_flow import MeanFlow
from torchrl_gtp.flow_map.objectives.shortcut import Shortcut
from torchrl_gtp.flow_map.objectives.some_rows import SomeRows

__all__ = [
    "Consistency",
    "Denoising",
    "Draw",
    "MeanFlow",
    "Objective",
    "Shortcut",
    "SomeRows",
    "Teacher",
    "Term",
    "TermInputs",
    "gtp_objective",
]
