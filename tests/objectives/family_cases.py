"""The family's losses in small, for all tests of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

from tests.objectives.contract import LossCase
from tests.objectives.gtp_cases import make_case, make_loss
from torchrl_gtp import GTPLoss
from torchrl_gtp.flow_map import MeanFlow, Objective, family, gtp_objective
from torchrl_gtp.flow_map.family import FamilyName

NAMES = get_args(FamilyName)
# CTM's teacher is the delayed actor, which the contract also takes away. The published weight
# of mean flow hides the error: its loss does not fall while it learns.
OBJECTIVES = {
    "ctm": dataclasses.replace(family("ctm").objective, teacher="current"),
    "mean_flow": Objective({"mean_flow": MeanFlow(robust_power=0.0)}),
    "semigroup": gtp_objective(semigroup_every=3),
}


def make_member(name: str, mode: str = "bc", **options: Any) -> GTPLoss:
    """A loss with the objective of that name; distilled from its own first weights."""
    member = family(name)
    options = {"objective": member.objective, **options}
    if options["objective"].needs_denoiser:
        trained = make_loss("bc", keys=options.get("keys"))
        options["denoiser_network"] = trained.get_stateful_net("actor_network")
    return make_loss(mode, **options)


def make_family_case(name: str) -> LossCase:
    """The contract's case of cloning with that objective."""
    return _case(name, OBJECTIVES[name], partial(make_loss, "bc", objective=OBJECTIVES[name]))


def make_member_case(name: str) -> LossCase:
    """The case of cloning with the member of that name, as published."""
    return _case(name, family(name).objective, partial(make_member, name))


def _case(name: str, objective: Objective, make: Callable[..., GTPLoss]) -> LossCase:
    owners = {f"loss_{term}": "actor_network" for term in objective.terms}
    return dataclasses.replace(make_case("bc"), name=f"{name}-bc", make_loss=make, owners=owners)
