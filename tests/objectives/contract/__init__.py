"""What every loss of this package owes to TorchRL, as tests that any loss can be put through."""

from tests.objectives.contract.case import LossCase
from tests.objectives.contract.estimators import EstimatorTests
from tests.objectives.contract.execution import ExecutionTests
from tests.objectives.contract.gradients import GradientTests
from tests.objectives.contract.keys import KeyTests
from tests.objectives.contract.reduction import ReductionTests
from tests.objectives.contract.reset import ResetTests
from tests.objectives.contract.state import StateTests
from tests.objectives.contract.targets import TargetTests

__all__ = ["LossCase", "LossContract"]


class LossContract(
    KeyTests,
    ReductionTests,
    StateTests,
    ResetTests,
    GradientTests,
    TargetTests,
    EstimatorTests,
    ExecutionTests,
):
    """All tests of the contract; they take a fixture ``case``, a :class:`LossCase`."""
