"""One update as one function, for eager, compiled and captured training."""

from torchrl_gtp.training.finite import check_finite
from torchrl_gtp.training.muon import AdamWithMuon
from torchrl_gtp.training.optimizer import make_optimizer
from torchrl_gtp.training.schedules import constant, cosine, linear
from torchrl_gtp.training.update import Update

__all__ = [
    "AdamWithMuon",
    "Update",
    "check_finite",
    "constant",
    "cosine",
    "linear",
    "make_optimizer",
]
