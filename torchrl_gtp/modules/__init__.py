"""TensorDict modules: actors, and the constructors of actors and critics."""

from torchrl_gtp.modules.action_gradient import ActionGradient
from torchrl_gtp.modules.actor import GTPActor
from torchrl_gtp.modules.candidates import CandidateActor
from torchrl_gtp.modules.captured import CapturedPolicy
from torchrl_gtp.modules.factories import (
    make_actor_critic,
    make_gtp_actor,
    make_qvalue,
    make_value,
)
from torchrl_gtp.modules.warm_start import WarmStartActor

__all__ = [
    "ActionGradient",
    "CandidateActor",
    "CapturedPolicy",
    "GTPActor",
    "WarmStartActor",
    "make_actor_critic",
    "make_gtp_actor",
    "make_qvalue",
    "make_value",
]
