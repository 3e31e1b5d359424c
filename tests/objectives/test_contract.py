"""TorchRL's loss contract, kept by every loss of the package."""

from __future__ import annotations

import pytest

from tests.objectives.contract import LossCase, LossContract
from tests.objectives.critic_cases import CRITICS, make_critic_case
from tests.objectives.family_cases import OBJECTIVES, make_family_case
from tests.objectives.gtp_cases import MODES, make_case
from tests.objectives.q_gradient_cases import make_q_gradient_case

# A loss joins by a line here.
CASES = [
    *map(make_case, MODES),
    *map(make_family_case, OBJECTIVES),
    *map(make_critic_case, CRITICS),
    make_q_gradient_case(),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request) -> LossCase:
    return request.param


class TestContract(LossContract):
    pass
