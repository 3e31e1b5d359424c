"""What a cell ran with: versions of packages, the commit, the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path

PACKAGES = (
    "torch",
    "torchrl",
    "tensordict",
    "numpy",
    "minari",
    "gymnasium",
    "gymnasium-robotics",
    "mujoco",
    "torchrl_gtp",
)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def versions() -> dict[str, str | None]:
    """Versions of what decides a result; ``None`` for what is not there.

    Example:
        >>> versions()["python"] == platform.python_version()
        True
    """
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    found["commit"] = commit()
    found["host"] = platform.node()
    found["pid"] = str(os.getpid())
    return found


def commit() -> str | None:
    """The git commit of this code, with ``+`` for changed files; ``None`` without git."""
    folder = Path(__file__).parent
    try:
        run = {"cwd": folder, "capture_output": True, "text": True, "check": True, "timeout": 20}
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **run)  # type: ignore[call-overload]
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], **run)  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
