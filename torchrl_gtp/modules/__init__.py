"""TensorDict modules: actors, the constructors of actors and critics, and the number of steps."""

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
from torchrl_gtp.modules.number_of_steps import fit_sampler, step_errors
from torchrl_gtp.modules.warm_start import WarmStartActor

__all__ = [
    "ActionGradient",
    "CandidateActor",
    "CapturedPolicy",
    "GTPActor",
    "WarmStartActor",
    "fit_sampler",
    "make_actor_critic",
    "make_gtp_actor",
    "make_qvalue",
    "make_value",
    "step_errors",
]
