"""TensorDict modules: actors, and the constructors of actors and critics."""

from torchrl_gtp.modules.actor import GTPActor
from torchrl_gtp.modules.candidates import CandidateActor
from torchrl_gtp.modules.factories import (
    make_actor_critic,
    make_gtp_actor,
    make_qvalue,
    make_value,
)

__all__ = [
    "CandidateActor",
    "GTPActor",
    "make_actor_critic",
    "make_gtp_actor",
    "make_qvalue",
    "make_value",
]
