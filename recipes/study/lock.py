"""Which process works on a cell: a lock that goes with its process."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import filelock

from recipes.study import files
from recipes.study.versions import now


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[bool]:
    """Hold the lock of a cell's folder, if no other process does.

    The kernel gives the lock back when the process ends, however it ends, so that none is left by a
    process that was killed. ``owner.json`` says who holds it.

    Args:
        folder: the cell's folder.

    Yields:
        whether the lock is held now.

    Example:
        >>> import tempfile
        >>> with owned(Path(tempfile.mkdtemp())) as held:
        ...     held
        True
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / files.LOCK)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        yield False
        return
    try:
        files.write_json(
            folder / files.OWNER, {"pid": os.getpid(), "host": socket.gethostname(), "since": now()}
        )
        yield True
    finally:
        (folder / files.OWNER).unlink(missing_ok=True)
        lock.release()


def is_taken(folder: Path) -> bool:
    """Whether another process works on the cell."""
    if not (folder / files.LOCK).exists():
        return False
    lock = filelock.FileLock(folder / files.LOCK)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return True
    except PermissionError:
        # A report is also made of folders that one may only read.
        return False
    lock.release()
    return False


def owner(folder: Path) -> str:
    """Who works on the cell, for messages."""
    holder = files.read_json(folder / files.OWNER) or {}
    return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
