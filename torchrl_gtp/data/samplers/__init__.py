"""Samplers of replay buffers."""

from torchrl_gtp.data.samplers.advantage_weighted import AdvantageWeightedSampler
from torchrl_gtp.data.samplers.sum_tree import SumTree

__all__ = ["AdvantageWeightedSampler", "SumTree"]
