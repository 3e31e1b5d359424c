"""Hydra configs in the style of ``torchrl.trainers.algorithms.configs``.

Importing this package registers them in Hydra's ``ConfigStore``.
"""

from torchrl_gtp.trainers.configs import (
    CandidateActorConfig,
    CriticConfig,
    GTPActorConfig,
    GTPLossConfig,
    NoiseLevelsConfig,
    QGradientLossConfig,
    QValueConfig,
    TargetUpdateConfig,
    ValueConfig,
    register_configs,
)

__all__ = [
    "CandidateActorConfig",
    "CriticConfig",
    "GTPActorConfig",
    "GTPLossConfig",
    "NoiseLevelsConfig",
    "QGradientLossConfig",
    "QValueConfig",
    "TargetUpdateConfig",
    "ValueConfig",
    "register_configs",
]

register_configs()
