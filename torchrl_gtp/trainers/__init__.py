"""Hydra configs in the style of ``torchrl.trainers.algorithms.configs``.

Importing this package registers them in Hydra's ``ConfigStore``.
"""

from torchrl_gtp.trainers.configs import (
    CandidateActorConfig,
    GTPActorConfig,
    GTPLossConfig,
    NoiseLevelsConfig,
    QValueConfig,
    ValueConfig,
    register_configs,
)

__all__ = [
    "CandidateActorConfig",
    "GTPActorConfig",
    "GTPLossConfig",
    "NoiseLevelsConfig",
    "QValueConfig",
    "ValueConfig",
    "register_configs",
]

register_configs()
