from __future__ import annotations

import pytest

from recipes.common.tables import markdown_table, number


def test_columns_line_up() -> None:
    lines = markdown_table(["policy", "return"], [["a", "1,234.5"], ["longer one", "2"]]).split(
        "\n"
    )
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "| :--------- | ------: |"
    assert lines[3] == "| longer one |       2 |"


def test_ragged_row_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 cells, the header 1"):
        markdown_table(["policy"], [["a", "b"]])


def test_number() -> None:
    assert number(1234.56) == "1,234.6"
    assert number(0.125, 2) == "0.12"
    assert number(None) == "-"
