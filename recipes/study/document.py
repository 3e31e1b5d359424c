"""A report as a list of blocks, written as one HTML page without links and as Markdown."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recipes.common.tables import markdown_table

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid #bbb; padding: .2em .6em; text-align: right; }
th:first-child, td:first-child { text-align: left; }
th { background: #eee; }
img { max-width: 100%; }
figcaption, .small { color: #444; font-size: 90%; }
code { background: #f2f2f2; padding: 0 .2em; }
"""


@dataclass(frozen=True)
class Heading:
    """A title, of level 1, 2 or 3."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table; the first column stands to the left."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A PNG with what it shows and the command that makes it."""

    name: str
    png: bytes
    caption: str
    command: str


Block = Heading | Text | Table | Picture


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """Lay out a page that needs no other file.

    Args:
        title: of the page.
        blocks: its content.
    """
    parts = [_html(block) for block in blocks]
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def to_markdown(blocks: Sequence[Block], pictures: Path) -> str:
    """Lay out Markdown, with pictures as files beside it.

    Args:
        blocks: the content.
        pictures: folder of the pictures, as a path relative to the Markdown file.
    """
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append("#" * block.level + " " + block.text)
        elif isinstance(block, Text):
            parts.append(block.text)
        elif isinstance(block, Table):
            cells = [[cell.replace("|", "\\|") for cell in row] for row in block.rows]
            parts.append(markdown_table(block.headers, cells))
        else:
            parts.append(
                f"![{block.caption}]({(pictures / block.name).as_posix()}.png)\n\n"
                f"*{block.caption} Made by:* `{block.command}`"
            )
    return "\n\n".join(parts) + "\n"


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, Text):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, Table):
        head = "".join(f"<th>{html.escape(title)}</th>" for title in block.headers)
        rows = (
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in block.rows
        )
        return f"<table>\n<tr>{head}</tr>\n" + "\n".join(rows) + "\n</table>"
    data = base64.b64encode(block.png).decode()
    caption = html.escape(block.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">\n<figcaption>{caption} '
        f"Made by: <code>{html.escape(block.command)}</code></figcaption></figure>"
    )
