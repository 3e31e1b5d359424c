from __future__ import annotations

import pytest

from recipes.common.options import check_options


class Base:
    def __init__(self, width: int = 1, *, depth: int = 2) -> None: ...


class Derived(Base):
    def __init__(self, *, rate: float = 0.1, **base_options: int) -> None:
        super().__init__(**base_options)


def test_options_of_base_classes_are_known() -> None:
    options = {"rate": 0.2, "depth": 3}
    assert check_options("model", options, Derived) == options


def test_unknown_option_names_the_close_one_and_all_others() -> None:
    with pytest.raises(
        ValueError, match=r"model\.dept: .*Did you mean model\.depth\?.*depth, rate, width"
    ):
        check_options("model", {"dept": 3}, Derived)


def test_reserved_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Unknown option model\.width"):
        check_options("model", {"width": 3}, Derived, reserved=("width",))


def test_base_options_without_handing_on_are_unknown() -> None:
    class Closed(Base):
        def __init__(self, rate: float = 0.1) -> None: ...

    with pytest.raises(ValueError, match=r"Unknown option model\.depth"):
        check_options("model", {"depth": 3}, Closed)
