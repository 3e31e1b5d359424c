"""Flow maps as pure tensor mathematics: no tensordict, no reinforcement learning."""

from torchrl_gtp.flow_map.adaptive_sampler import AdaptiveSampler
from torchrl_gtp.flow_map.backbone import MLPBackbone, TimeEmbedding
from torchrl_gtp.flow_map.errors import consistency_error, flow_error, robust_weight
from torchrl_gtp.flow_map.family import FamilyMember, family
from torchrl_gtp.flow_map.fit_times import energy_score, fit_times
from torchrl_gtp.flow_map.flow_map import FlowMap
from torchrl_gtp.flow_map.jump_error import jump_error
from torchrl_gtp.flow_map.linear_path import (
    DyadicTimes,
    LinearPathTimes,
    linear_path_times,
    noise_level,
    path_time,
)
from torchrl_gtp.flow_map.ln_resnet import LNResNetBackbone
from torchrl_gtp.flow_map.matched_start import MatchedStart
from torchrl_gtp.flow_map.noise_levels import (
    NoiseLevels,
    doubling_curriculum,
    square_root_curriculum,
)
from torchrl_gtp.flow_map.objectives import (
    Consistency,
    Denoising,
    MeanFlow,
    Objective,
    Shortcut,
    SomeRows,
    Teacher,
    Term,
    TermInputs,
    gtp_objective,
)
from torchrl_gtp.flow_map.paired_times import PairedLogNormalTimes
from torchrl_gtp.flow_map.preconditioning import (
    Preconditioning,
    edm_preconditioning,
    edm_time_weight,
)
from torchrl_gtp.flow_map.restarted_times import RestartedTimes
from torchrl_gtp.flow_map.samplers import JumpSampler, OdeSampler, Sampler
from torchrl_gtp.flow_map.sampling import (
    ancestral_sample,
    consistency_sample,
    few_step_sample,
    ode_sample,
    solve_ode,
)
from torchrl_gtp.flow_map.statistics import action_scale
from torchrl_gtp.flow_map.stochastic_samplers import AncestralSampler, ConsistencySampler
from torchrl_gtp.flow_map.time_sampling import (
    FlowMapTimes,
    KarrasGridTimes,
    LogNormalTimes,
    StartSampler,
    TimeSampler,
)
from torchrl_gtp.flow_map.vp_schedule import VPSchedule
from torchrl_gtp.flow_map.weights import (
    advantage_weight,
    exponential_weight,
    masked_mean,
    masked_std,
)

__all__ = [
    "AdaptiveSampler",
    "AncestralSampler",
    "Consistency",
    "ConsistencySampler",
    "Denoising",
    "DyadicTimes",
    "FamilyMember",
    "FlowMap",
    "FlowMapTimes",
    "JumpSampler",
    "KarrasGridTimes",
    "LNResNetBackbone",
    "LinearPathTimes",
    "LogNormalTimes",
    "MLPBackbone",
    "MatchedStart",
    "MeanFlow",
    "NoiseLevels",
    "Objective",
    "OdeSampler",
    "PairedLogNormalTimes",
    "Preconditioning",
    "RestartedTimes",
    "Sampler",
    "Shortcut",
    "SomeRows",
    "StartSampler",
    "Teacher",
    "Term",
    "TermInputs",
    "TimeEmbedding",
    "TimeSampler",
    "VPSchedule",
    "action_scale",
    "advantage_weight",
    "ancestral_sample",
    "consistency_error",
    "consistency_sample",
    "doubling_curriculum",
    "edm_preconditioning",
    "edm_time_weight",
    "energy_score",
    "exponential_weight",
    "family",
    "few_step_sample",
    "fit_times",
    "flow_error",
    "gtp_objective",
    "jump_error",
    "linear_path_times",
    "masked_mean",
    "masked_std",
    "noise_level",
    "ode_sample",
    "path_time",
    "robust_weight",
    "solve_ode",
    "square_root_curriculum",
]
