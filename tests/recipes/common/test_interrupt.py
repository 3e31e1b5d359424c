from __future__ import annotations

import os
import signal

import pytest

from recipes.common.interrupt import Interrupt


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
)
def test_the_first_signal_sets_the_flag(number: int, exit_code: int) -> None:
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        assert not interrupt
        send(number)
        assert interrupt
        assert interrupt.exit_code == exit_code
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_at_once() -> None:
    with Interrupt() as interrupt:
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert interrupt.exit_code == 130


@pytest.mark.parametrize(
    ("first", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
)
def test_further_sigterms_change_nothing(first: int, exit_code: int) -> None:
    with Interrupt() as interrupt:
        for number in (first, signal.SIGTERM, signal.SIGTERM):
            send(number)
        assert interrupt.exit_code == exit_code
        if first == signal.SIGTERM:
            send(signal.SIGINT)  # the first of a person
            assert interrupt.exit_code == exit_code
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
