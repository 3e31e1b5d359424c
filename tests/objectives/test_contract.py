"""TorchRL's loss contract, kept by every loss of the package."""

from __future__ import annotations

import pytest

from tests.objectives.contract import LossCase, LossContract
from tests.objectives.gtp_cases import MODES, make_case

# A loss joins by a line here.
CASES = [make_case(mode) for mode in MODES]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request) -> LossCase:
    return request.param


class TestContract(LossContract):
    pass
