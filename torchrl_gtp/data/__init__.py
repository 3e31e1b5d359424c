"""Offline data: Minari datasets as replay buffers, their environments, rewards and scores."""

from __future__ import annotations

from torchrl.data.datasets.utils import register_dataset

from torchrl_gtp.data.chunks import ActionChunks, ChunkTransitions, action_chunks
from torchrl_gtp.data.entries import copy_entry, write_entry
from torchrl_gtp.data.environment import make_minari_env
from torchrl_gtp.data.metadata import MinariMetadata
from torchrl_gtp.data.minari import MinariReplayBuffer, load_minari
from torchrl_gtp.data.point_maze_dataset import make_point_maze_dataset
from torchrl_gtp.data.rewards import AffineReward, antmaze_reward, fit_reward_transform
from torchrl_gtp.data.samplers import AdvantageWeightedSampler, SumTree
from torchrl_gtp.data.scores import normalized_score, reference_scores

__all__ = [
    "ActionChunks",
    "AdvantageWeightedSampler",
    "AffineReward",
    "ChunkTransitions",
    "MinariMetadata",
    "MinariReplayBuffer",
    "SumTree",
    "action_chunks",
    "antmaze_reward",
    "copy_entry",
    "fit_reward_transform",
    "load_minari",
    "make_minari_env",
    "make_point_maze_dataset",
    "normalized_score",
    "reference_scores",
    "write_entry",
]

# torchrl.data.datasets.load_dataset("gtp_minari:namespace/name-v0") finds the loader.
register_dataset("gtp_minari", load_minari, replace=True)
