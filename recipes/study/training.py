"""The training of a cell: a run that goes on where it stopped and keeps its curves."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from recipes.common.checkpoints import load_checkpoint
from recipes.gtp.training import Run
from recipes.study import files


class Stopped(Exception):
    """A signal ended the cell between two updates; its checkpoint is written."""


@dataclass
class CellRun(Run):
    """The training of a cell, which keeps ``curves.csv`` beside its checkpoints up to date.

    Args:
        on_update: called with the number of updates before each one.

    Attributes:
        wall_seconds: time spent on the cell before this start.
    """

    on_update: Callable[[int], None] = field(kw_only=True)
    wall_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds spent on the cell so far, evaluation and writing included."""
        return self.wall_seconds + time.perf_counter() - self._start

    def sample(self) -> Any:
        """Draw the batch of the next update."""
        self.on_update(self.learner.step)
        return super().sample()

    def save(self, name: str) -> None:
        """Write a checkpoint, and the curves up to it."""
        super().save(name)
        files.write_curves(self.folder / files.CURVES, self.history)

    def state_dict(self) -> dict[str, Any]:
        """The state of the run and its time."""
        return {**super().state_dict(), "wall_seconds": self.elapsed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state of :meth:`state_dict`; the clock goes on from it."""
        super().load_state_dict(state)
        self.wall_seconds = state["wall_seconds"]
        self._start = time.perf_counter()

    def go_on(self) -> None:
        """Go back to the last checkpoint that can be read; start anew if there is none."""
        for name in ("last", "best"):
            path = self.folder / f"{name}.pt"
            if not path.exists():
                continue
            state = read_checkpoint(path, self.device)
            if state is None:
                continue
            self.load_state_dict(state)
            print(f"Going on from {path} at update {self.learner.step}.")
            return
        print("Starting at update 0.")


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Read a checkpoint; one that cannot be read is named and kept as ``<name>.damaged``.

    Args:
        path: the file.
        device: where its tensors go.

    Returns:
        what it holds; ``None`` if it is damaged.
    """
    try:
        return load_checkpoint(path, device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # Whatever the zip reader and the unpickler raise at a damaged file. It is kept: the next
        # checkpoint would overwrite it.
        print(f"{path} cannot be read, so it is left out: {error}", file=sys.stderr)
        path.replace(path.with_suffix(".damaged"))
        return None
