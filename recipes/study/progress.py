"""What the person at the terminal sees of a study: cells done, updates done, time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from tqdm import tqdm

from recipes.study.grid import Cell

# Where no bar can be drawn.
LINE_SECONDS = 60.0


class Progress:
    """A bar over the updates of all cells, or plain lines where the output is no terminal.

    The time left is that of the updates left, at the mean speed so far of those made by this run;
    evaluations are in it, differences between methods are not.

    Args:
        cells: the cells of this run.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.updates = {cell.name: cell.updates for cell in cells}
        self.made = dict.fromkeys(self.updates, 0)
        self.found = dict.fromkeys(self.updates, 0)
        self.ended: set[str] = set()
        self.said: set[str] = set()
        self.start = time.monotonic()
        self.next_line = self.start + LINE_SECONDS
        self.bar = tqdm(
            total=sum(self.updates.values()),
            unit="update",
            dynamic_ncols=True,
            disable=None,
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} updates{postfix}",
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.close()

    def update(self, name: str, start: int, now: int) -> None:
        """Note how far a cell is.

        Args:
            name: the cell.
            start: updates that it had when its process began; -1: not known yet.
            now: updates by now.
        """
        if start < 0:
            return
        self.found[name], self.made[name] = start, now - start
        self._show()

    def finish(self, name: str, result: Mapping[str, Any], *, was_here: bool) -> None:
        """Note that a cell is finished, by this run or before."""
        self.ended.add(name)
        if was_here:
            self.found[name], self.made[name] = self.updates[name], 0
        else:
            self.made[name] = self.updates[name] - self.found[name]
            last = result["last"]
            self.say(
                f"[{len(self.ended)}/{len(self.updates)}] {name}: {result['score_kind']} "
                f"{last['score']:.1f}, {result['wall_seconds'] / 60:.1f} min, "
                f"left {self.time_left()}"
            )
        self._show()

    def fail(self, name: str, message: str) -> None:
        """Note that a cell failed."""
        self.ended.add(name)
        # Its updates are no longer to come.
        self.found[name] = self.updates[name] - self.made[name]
        self.say(f"[{len(self.ended)}/{len(self.updates)}] {name} FAILED: {message}")
        self._show()

    def time_left(self) -> str:
        """Hours and minutes until the last update, as ``"1:05"``; ``"?"`` before the first."""
        made = sum(self.made.values())
        if not made:
            return "?"
        left = sum(self.updates.values()) - sum(self.found.values()) - made
        minutes = round(left * (time.monotonic() - self.start) / made / 60)
        return f"{minutes // 60}:{minutes % 60:02d} h"

    def say(self, line: str) -> None:
        """Print a line, above the bar if there is one."""
        if self.bar.disable:
            print(line, flush=True)
        else:
            self.bar.write(line)

    def say_once(self, line: str) -> None:
        """Print a line that was not printed before."""
        if line not in self.said:
            self.said.add(line)
            self.say(line)

    def _show(self) -> None:
        done = sum(self.found.values()) + sum(self.made.values())
        cells = f"{len(self.ended)}/{len(self.updates)} cells, left {self.time_left()}"
        if not self.bar.disable:
            self.bar.n = done
            self.bar.set_postfix_str(cells)
        elif time.monotonic() > self.next_line:
            self.next_line = time.monotonic() + LINE_SECONDS
            print(f"{done}/{sum(self.updates.values())} updates, {cells}", file=sys.stdout)
