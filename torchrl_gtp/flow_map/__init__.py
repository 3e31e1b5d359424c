"""Flow maps as pure tensor mathematics: no tensordict, no reinforcement learning."""

from torchrl_gtp.flow_map.backbone import MLPBackbone, TimeEmbedding
from torchrl_gtp.flow_map.errors import consistency_error, flow_error, robust_weight
from torchrl_gtp.flow_map.flow_map import FlowMap
from torchrl_gtp.flow_map.noise_levels import NoiseLevels, doubling_curriculum
from torchrl_gtp.flow_map.objectives import (
    Consistency,
    Denoising,
    Objective,
    Teacher,
    Term,
    TermInputs,
    gtp_objective,
)
from torchrl_gtp.flow_map.preconditioning import (
    Preconditioning,
    edm_preconditioning,
    edm_time_weight,
)
from torchrl_gtp.flow_map.sampling import few_step_sample, ode_sample, solve_ode
from torchrl_gtp.flow_map.time_sampling import (
    FlowMapTimes,
    KarrasGridTimes,
    LogNormalTimes,
    StartSampler,
    TimeSampler,
)
from torchrl_gtp.flow_map.weights import advantage_weight, masked_std

__all__ = [
    "Consistency",
    "Denoising",
    "FlowMap",
    "FlowMapTimes",
    "KarrasGridTimes",
    "LogNormalTimes",
    "MLPBackbone",
    "NoiseLevels",
    "Objective",
    "Preconditioning",
    "StartSampler",
    "Teacher",
    "Term",
    "TermInputs",
    "TimeEmbedding",
    "TimeSampler",
    "advantage_weight",
    "consistency_error",
    "doubling_curriculum",
    "edm_preconditioning",
    "edm_time_weight",
    "few_step_sample",
    "flow_error",
    "gtp_objective",
    "masked_std",
    "ode_sample",
    "robust_weight",
    "solve_ode",
]
