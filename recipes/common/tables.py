"""Result tables in Markdown that also read well in a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table: the first column to the left, the others to the right.

    Args:
        headers: one title a column.
        rows: one sequence of cells a row, as many as there are titles.

    Raises:
        ValueError: if a row has another number of cells.

    Example:
        >>> print(markdown_table(["policy", "return"], [["GTP", "47.0"], ["GTP-BC", "12.0"]]))
        | policy | return |
        | :----- | -----: |
        | GTP    |   47.0 |
        | GTP-BC |   12.0 |
    """
    for row in rows:
        if len(row) != len(headers):
            raise ValueError(f"A row has {len(row)} cells, the header {len(headers)}: {row}.")
    widths = [max(3, *map(len, column)) for column in zip(headers, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return "| " + " | ".join(aligned) + " |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(headers), line(rule), *map(line, rows)])


def number(value: float | None, digits: int = 1) -> str:
    """Format a number, or a dash where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"
