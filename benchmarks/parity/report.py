"""The table of one system, as CSV and as Markdown."""

from __future__ import annotations

import csv
import importlib
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.parity.comparison import Row
from benchmarks.parity.peers import Peer
from recipes.common.tables import markdown_table

__all__ = ["write_csv", "write_markdown"]

_PACKAGES = ("torch", "torchrl", "tensordict", "numpy", "jax", "flax", "optax", "torchrl_gtp")


def write_csv(rows: Sequence[Row], path: Path, peer: Peer, commit: str) -> None:
    """Writes one line for each quantity, with all digits of the difference.

    Args:
        rows: the lines.
        path: the file; its folder is made.
        peer: the published program.
        commit: that of the checkout.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["system", "commit", "quantity", "ours", "relative_difference", "settings"])
        for row in rows:
            writer.writerow(
                [peer.title, commit, row.quantity, row.ours, row.difference, row.settings]
            )


def write_markdown(rows: Sequence[Row], path: Path, peer: Peer, commit: str, command: str) -> str:
    """Writes the table under a line that says of what it is and what made it.

    Args:
        rows: the lines.
        path: the file; its folder is made.
        peer: the published program.
        commit: that of the checkout.
        command: what made the table.

    Returns:
        What was written.
    """
    day = datetime.now(timezone.utc).date().isoformat()
    # Those alone that had a part in it.
    packages = [importlib.import_module(name) for name in _PACKAGES if name in sys.modules]
    versions = ", ".join(f"{package.__name__} {package.__version__}" for package in packages)
    head = f"{peer.title}, `{peer.repository}` {commit}: `{command}`, {day}; {versions}."
    table = markdown_table(
        ["quantity", "ours", "relative difference"],
        [[row.quantity, f"`{row.ours}`", _rounded(row.difference)] for row in rows],
    )
    text = f"{head}\n\n{table}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return text


def _rounded(difference: float) -> str:
    return f"{difference:.0e}" if difference else "0"
