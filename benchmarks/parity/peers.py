"""The published programs: where they are, and how their code is imported from a checkout."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["PEERS", "Peer", "check_checkout", "commit_of", "import_from"]


@dataclass(frozen=True)
class Peer:
    """A published program.

    Attributes:
        title: the name of the system.
        repository: its owner and name on GitHub.
        commit: the commit that docs/systems.md is about.
        files: what a checkout must have.
    """

    title: str
    repository: str
    commit: str
    files: tuple[str, ...]

    @property
    def how_to_get(self) -> str:
        """The commands that make a checkout."""
        return (
            f"git clone https://github.com/{self.repository} PATH && "
            f"git -C PATH checkout {self.commit}"
        )


PEERS = {
    "diffusion_ql": Peer(
        "Diffusion-QL",
        "Zhendong-Wang/Diffusion-Policies-for-Offline-RL",
        "d871f5c",
        ("agents/diffusion.py", "agents/ql_diffusion.py"),
    ),
    "consistency_ac": Peer(
        "Consistency-AC",
        "quantumiracle/Consistency_Model_For_Reinforcement_Learning",
        "cdeae87",
        ("agents/consistency.py", "agents/ql_consistency.py"),
    ),
    "dipo": Peer(
        "DIPO",
        "BellmanTimeHut/DIPO",
        "c6d8d1b",
        ("agent/DiPo.py", "agent/diffusion.py"),
    ),
    "idql": Peer(
        "IDQL",
        "philippe-eecs/IDQL",
        "7582571",
        ("jaxrl5/agents/ddpm_iql/ddpm_iql_learner.py", "jaxrl5/networks/diffusion.py"),
    ),
}


def check_checkout(peer: Peer, path: Path) -> None:
    """Raises a ``ValueError`` that says what to do unless ``path`` is a checkout of the peer."""
    if not path.is_dir():
        raise ValueError(
            f"{path} is no folder. It must be a checkout of {peer.title}: {peer.how_to_get}"
        )
    missing = [name for name in peer.files if not (path / name).is_file()]
    if missing:
        raise ValueError(
            f"{path} is no checkout of {peer.title}: it lacks {', '.join(missing)}. Make one: "
            f"{peer.how_to_get}"
        )


def commit_of(path: Path) -> str:
    """Returns the commit of a checkout, with "-dirty" where files of it were changed."""
    # Without this, git would go on in the folders above and name a commit of another repository.
    if not (path / ".git").exists():
        return "unknown commit"
    command = ["git", "-C", str(path), "describe", "--always", "--dirty", "--exclude=*"]
    result = subprocess.run([*command, "--abbrev=7"], capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown commit"


def import_from(
    path: Path, *names: str, stubs: Mapping[str, Mapping[str, Any]] | None = None
) -> list[ModuleType]:
    """Imports modules from a checkout, without leaving them under their names.

    The programs call their packages ``agents`` or ``utils``, as other ones do too: only while this
    runs do these names mean the checkout.

    Args:
        path: the checkout.
        *names: the modules.
        stubs: modules that stand in for others which the checkout imports and nothing here needs
            (loggers, environments), with their attributes. A ``__path__`` among these makes a
            package of it, whose own ``__init__.py`` does not run.

    Returns:
        The modules.
    """
    stubs = {} if stubs is None else stubs
    packages = {name.partition(".")[0] for name in (*names, *stubs)}

    def taken() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] in packages]

    before = {name: sys.modules.pop(name) for name in taken()}
    sys.path.insert(0, str(path.resolve()))
    try:
        for name, attributes in stubs.items():
            stub = ModuleType(name)
            vars(stub).update(attributes)
            sys.modules[name] = stub
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(path.resolve()))
        for name in taken():
            del sys.modules[name]
        sys.modules.update(before)
