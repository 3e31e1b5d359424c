"""Ending a run cleanly on Ctrl-C."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class Interrupt:
    """Turns Ctrl-C (SIGINT) and SIGTERM into a flag that the training loop reads between updates.

    So a checkpoint never holds half an update. A second Ctrl-C raises ``KeyboardInterrupt``, and
    then there is none. A SIGTERM never does, however often it comes: one stop often sends several,
    to the process group, from a runner, and again when that runner ends. The former handlers come
    back when the context ends. Only the main thread may enter it.

    Example:
        >>> import os, signal
        >>> with Interrupt() as interrupt:
        ...     os.kill(os.getpid(), signal.SIGINT)
        ...     print(bool(interrupt), interrupt.exit_code)
        True 130
    """

    _signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._had_ctrl_c = False

    def __bool__(self) -> bool:
        return self.signal_number is not None

    @property
    def exit_code(self) -> int:
        """The shell's convention for a process that a signal ended: 128 plus its number."""
        return 0 if self.signal_number is None else 128 + self.signal_number

    def _handle(self, signal_number: int, frame: FrameType | None) -> None:
        if signal_number == signal.SIGINT:
            if self._had_ctrl_c:
                raise KeyboardInterrupt
            self._had_ctrl_c = True
        if self.signal_number is None:
            self.signal_number = signal_number

    def __enter__(self) -> Interrupt:
        self._former = [signal.signal(number, self._handle) for number in self._signals]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in zip(self._signals, self._former, strict=True):
            signal.signal(number, handler)
