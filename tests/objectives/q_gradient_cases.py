"""QGradientLoss in small, for all tests of it."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from tests.objectives.contract import LossCase
from tests.objectives.gtp_cases import make_case, make_loss, make_shared_loss
from torchrl_gtp.objectives import QGradientLoss


def make_q_gradient_loss(mode: str = "critic", **options: Any) -> QGradientLoss:
    return make_loss(mode, kind=QGradientLoss, **options)


def make_q_gradient_case() -> LossCase:
    like = make_case("critic")
    return dataclasses.replace(
        like,
        name="q_gradient",
        make_loss=make_q_gradient_loss,
        owners={**like.owners, "loss_q_gradient": "actor_network"},
        schedules={**like.schedules, "q_weight": 0.5},
        written=("td_error",),
        make_shared=partial(make_shared_loss, "critic", kind=QGradientLoss),
    )
