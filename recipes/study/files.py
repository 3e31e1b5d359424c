"""What the folder of a cell holds, and how it is read when part of it is missing or damaged."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from recipes.common.former_config import BEFORE
from recipes.study.grid import cell_defaults

CONFIG, CURVES, RESULT, FAILURE, OWNER = (
    "config.yaml",
    "curves.csv",
    "result.json",
    "failure.json",
    "owner.json",
)
STARTS, LOCK, LOG, STUDY = "starts.json", ".lock", "log.txt", "study.yaml"
# Beginnings of the fields that change neither what is trained nor how it is evaluated.
FREE = (
    *("device", "num_threads", "compile", "resume", "logger", "checkpoint"),
    *("study.note", "study.source", "method.note"),
)
# Leaves the group compile aside.
EAGER_LEARNER = "recipes.study.torchrl_learners.torchrl_learner"
# A result without these was not written by this recipe.
REQUIRED = ("task", "method", "seed", "updates", "last")


class DamagedFileError(ValueError):
    """A file of a cell that was cut short or overwritten."""


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; ``None`` if the file is missing or cut short."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a cell; ``None`` if it is not finished, also where the file is damaged."""
    result = read_json(folder / RESULT)
    whole = isinstance(result, dict) and all(key in result for key in REQUIRED)
    return result if whole else None


def read_compiled(folder: Path) -> bool | None:
    """Whether a cell's last start was compiled; ``None`` if its config does not tell.

    For results that do not say so themselves, because an earlier version wrote them.
    """
    try:
        config = _read_config(folder / CONFIG)
    except (FileNotFoundError, DamagedFileError):
        return None
    learner = config.get("method", {}).get("learner", {}).get("_target_")
    if learner == EAGER_LEARNER:
        return False
    compiled: bool | None = config.get("compile", {}).get("compile")
    return compiled


def write_curves(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write the logged values as CSV: a row an entry, a column a quantity, empty where not logged.

    Args:
        path: the file.
        history: rows with ``"step"`` and any quantities.
    """
    names = sorted({name for row in history for name in row} - {"step"})
    lines = [",".join(["step", *names])]
    lines += [
        ",".join(str(row[name]) if name in row else "" for name in ("step", *names))
        for row in history
    ]
    write_text(path, "\n".join(lines) + "\n")


def read_curves(path: Path) -> list[dict[str, float]]:
    """Read what :func:`write_curves` wrote; no rows if there is no such file.

    Raises:
        DamagedFileError: if it was cut short or is no such table.
    """
    if not path.exists():
        return []
    try:
        text = path.read_text()
        if not text.endswith("\n"):
            # The last number may have lost digits and still be one.
            raise ValueError("it was cut short")
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
        read = [{name: float(value) for name, value in row.items() if value} for row in rows]
        return [{**row, "step": int(row["step"])} for row in read]
    except (ValueError, KeyError, TypeError, OverflowError, csv.Error) as error:
        raise DamagedFileError(f"{path} is damaged ({type(error).__name__}: {error}).") from error


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Fields in which two configs would train or evaluate something else.

    Args:
        first: a config as plain dictionaries.
        second: the other.

    Returns:
        lines of the form ``"optim.steps: 10 and 20"``.

    Example:
        >>> differences({"seed": 0, "env": {"num_envs": 2}}, {"seed": 1, "env": {"num_envs": 2}})
        ['seed: 0 and 1']
    """
    left, right = _flat(first), _flat(second)
    names = [name for name in {**left, **right} if not name.startswith(FREE)]
    missing = "nothing"
    return [
        f"{name}: {left.get(name, missing)} and {right.get(name, missing)}"
        for name in names
        if left.get(name, missing) != right.get(name, missing)
    ]


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            fields |= _flat(value, f"{prefix}{key}.")
        else:
            fields[f"{prefix}{key}"] = value
    return fields


def check_config(folder: Path, config: DictConfig) -> list[str]:
    """Check that the folder of a cell is new or was made with the same settings.

    A field that the folder's config lacks, because it was written before there was that field,
    counts as the same where the cell has its default, or what it stood for before.

    Args:
        folder: the cell's folder.
        config: the cell's config.

    Returns:
        such fields, in the form ``"env.num_envs=10"``.

    Raises:
        DamagedFileError: if the folder's config was cut short or cannot be read.
        ValueError: if it was made with other settings; the message names the fields that differ.
    """
    path = folder / CONFIG
    if not path.exists():
        return []
    former = _read_config(path)
    now: Any = OmegaConf.to_container(config)
    if not differences(former, now):
        return []
    there, here, defaults = _flat(former), _flat(now), _flat(cell_defaults())
    added = {
        name: value
        for name, value in here.items()
        if name not in there and name in defaults and value == BEFORE.get(name, defaults[name])
    }
    different = differences({**there, **added}, here)
    # Cut between two lines it can be read, and would seem to be made with other settings.
    if different and OmegaConf.to_yaml(config).startswith(path.read_text()):
        raise _damaged_config(path, "it was cut short")
    if different:
        raise ValueError(
            f"{folder} was made with other settings (there and now):\n  "
            + "\n  ".join(different)
            + "\nChoose another folder=... for the new settings, or remove this one."
        )
    return [f"{name}={value}" for name, value in added.items() if not name.startswith(FREE)]


def _read_config(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
        former: Any = OmegaConf.to_container(OmegaConf.create(text))
        if not text.endswith("\n"):
            raise ValueError("it was cut short")
        if not (isinstance(former, dict) and former.keys() & cell_defaults().keys()):
            raise ValueError("it has no field of a cell")
    except (ValueError, YAMLError, OmegaConfBaseException) as error:
        raise _damaged_config(path, " ".join(str(error).split())) from error
    return former


def _damaged_config(path: Path, reason: str) -> DamagedFileError:
    return DamagedFileError(
        f"{path} is damaged ({reason}), so nothing tells which settings the cell was made with. "
        f"Restore the file, or delete the folder {path.parent} to start the cell anew."
    )


def write_config(folder: Path, config: DictConfig) -> None:
    """Write the config of a cell."""
    write_text(folder / CONFIG, OmegaConf.to_yaml(config))
