"""Settings of the objectives' tests."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.objectives.contract")
