"""TorchRL's loss contract, kept by every loss of the package."""

from __future__ import annotations

import pytest

from tests.objectives.contract import LossCase, LossContract
from tests.objectives.contract.execution import ExecutionTests
from tests.objectives.contract.gradients import GradientTests
from tests.objectives.contract.reduction import ReductionTests
from tests.objectives.contract.reset import ResetTests
from tests.objectives.contract.state import StateTests
from tests.objectives.critic_cases import CRITICS, make_critic_case
from tests.objectives.family_cases import NAMES, OBJECTIVES, make_family_case, make_member_case
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


class TestContractOfTheFamily:
    """What of the contract depends on the terms, for every member; the rest is the loss's own."""

    @pytest.fixture(params=map(make_member_case, NAMES), ids=lambda case: case.name)
    def case(self, request) -> LossCase:
        return request.param

    test_dtypes = StateTests.test_dtypes
    test_devices = StateTests.test_devices
    test_state_dict = StateTests.test_state_dict
    test_duplicates = StateTests.test_duplicates
    test_reset_draws_everything_anew = ResetTests.test_reset_draws_everything_anew
    test_input_and_outputs = GradientTests.test_input_and_outputs
    test_masked_samples_do_not_count = ReductionTests.test_masked_samples_do_not_count
    test_layouts = ExecutionTests.test_layouts
    test_batch_size_is_that_of_the_actions = ExecutionTests.test_batch_size_is_that_of_the_actions
    test_reads_no_tensor_on_the_host = ExecutionTests.test_reads_no_tensor_on_the_host
