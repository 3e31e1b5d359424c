"""The grid of a study: which cells there are, in which order, and the config of each."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import OverrideParseException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recipes.study.composition import HERE, cell_defaults, load_choice

# Groups whose options the functions that receive them check, with messages of their own.
_OPEN = (
    "loss.",
    "actor.noise_levels.",
    "actor.sampler.",
    "critic.options.",
    "env.kwargs.",
    "method.learner.",
    "study.source.",
    "optim.grad_clip.",
    "optim.lr.",
    "optim.lr_schedule.",
    "optim.tau.",
    "optim.tau_interval.",
    "optim.tau_start.",
)


_QUOTES = (
    "a value with other characters than letters without accents, digits and -_./*? needs quotes of "
    "its own: \"folder='a,b'\""
)


@dataclass
class Grid:
    """Every method on every task with every seed.

    Attributes:
        tasks: names of files in ``task/``.
        methods: names of files in ``method/``.
        seeds: seeds of networks, batches and noise.
        overrides: of the config of these cells.
    """

    tasks: list[str] = MISSING
    methods: list[str] = MISSING
    seeds: list[int] = MISSING
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass
class Study:
    """What ``studies/*.yaml`` hold.

    Attributes:
        name: title of the study.
        folder: where its cells go; ``None`` for ``outputs/study/<name>``.
        workers: cells that run at the same time; ``None`` for one on each GPU, or without GPU one
            on each core.
        only: patterns of cells, as ``"*/gtp/*"``, to which this run is restricted; none: all.
        overrides: of the config of all cells.
        grids: the cells, in the order in which they run: those of the first grid first, in each
            the first seed first, then the first task.
    """

    name: str = MISSING
    folder: str | None = None
    workers: int | None = None
    only: list[str] = field(default_factory=list)
    overrides: dict[str, Any] = field(default_factory=dict)
    grids: list[Grid] = MISSING


@dataclass(frozen=True)
class Cell:
    """A method on a task with a seed.

    Attributes:
        task: name of the task's file.
        method: name of the method's file.
        seed: the seed.
        settings: the whole config as plain dictionaries, which cells share in part.
    """

    task: str
    method: str
    seed: int
    settings: dict[str, Any]

    @cached_property
    def config(self) -> DictConfig:
        """The whole config, resolved; a copy of its own."""
        config = OmegaConf.create(self.settings)
        OmegaConf.resolve(config)
        return config

    @property
    def name(self) -> str:
        """Its place in the grid and in the study's folder."""
        return cell_name(self.task, self.method, self.seed)

    @property
    def updates(self) -> int:
        """Updates that it takes."""
        return self.settings["optim"]["steps"]


def cell_name(task: str, method: str, seed: int) -> str:
    """Name of a cell, which is also its path below the study's folder.

    Example:
        >>> cell_name("pointmaze_medium", "gtp", 0)
        'pointmaze_medium/gtp/seed_0'
    """
    return f"{task}/{method}/seed_{seed}"


def study_file(study: str) -> Path:
    """The file of a study, given by its name in ``studies/`` or by its path.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    path = Path(study)
    if path.suffix not in (".yaml", ".yml"):
        path = HERE / "studies" / f"{study}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in (HERE / "studies").glob("*.yaml")))
        raise FileNotFoundError(
            f"There is no study {study!r}. Give the path of a YAML file, or one of {known}."
        )
    return path


def read_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study and apply overrides of the form ``key=value``.

    Args:
        path: what :func:`study_file` returns.
        overrides: of the fields of :class:`Study`, as ``"workers=2"``.

    Raises:
        ValueError: for fields or values that :class:`Study` does not have, or no cell at all.
    """
    try:
        study = OmegaConf.structured(Study)
        study.merge_with(OmegaConf.load(path))
        # Hydra's grammar, in which a pattern may begin with a star: in YAML's that is an alias.
        for override in OverridesParser.create().parse_overrides(list(overrides)):
            plain = override.type is OverrideType.CHANGE and override.package is None
            if not plain or override.is_sweep_override():
                raise ValueError(
                    f"{override.input_line!r} is not of the form field=value; {_QUOTES}."
                )
            OmegaConf.update(study, override.key_or_group, override.value())
        read = OmegaConf.to_object(study)
    except OverrideParseException as error:
        raise ValueError(f"{error}\nOverrides are of the form field=value; {_QUOTES}.") from error
    except OmegaConfBaseException as error:
        fields = ", ".join(Study.__dataclass_fields__)
        raise ValueError(f"{path}: {error}\nA study has the fields {fields}.") from error
    assert isinstance(read, Study)
    if not any(grid.tasks and grid.methods and grid.seeds for grid in read.grids):
        raise ValueError(f"{path}: no grid has a task, a method and a seed, so there is no cell.")
    return read


def make_cells(study: Study, *, extra: Path | None = None) -> list[Cell]:
    """List the cells of a study in the order in which they run.

    Args:
        study: the study.
        extra: a folder whose ``task/`` and ``method/`` are searched beside those of this recipe.

    Raises:
        ValueError: if a cell is listed twice, a file does not exist or has the name of another,
            or one has a field that cells do not have.
    """
    folders = [HERE] if extra is None or extra.resolve() == HERE.resolve() else [HERE, extra]
    base = cell_defaults()
    parts: dict[tuple[str, str], dict[str, Any]] = {}
    cells: dict[str, Cell] = {}
    for grid in study.grids:
        merged: dict[tuple[str, str], dict[str, Any]] = {}
        for task, method in itertools.product(grid.tasks, grid.methods):
            for group, choice in (("task", task), ("method", method)):
                if (group, choice) not in parts:
                    parts[group, choice] = load_choice(group, choice, folders)
            of_task = parts["task", task]
            # The per-method settings of a task belong to one method each.
            study_group = dict(of_task.get("study", {}))
            of_methods = study_group.pop("methods", None) or {}
            layers = [{**of_task, "study": study_group}, parts["method", method]]
            layers += [of_methods.get(method) or {}, study.overrides, grid.overrides]
            merged[task, method] = _merged(base, layers, f"{task}/{method}")
        for seed, (task, method) in itertools.product(grid.seeds, merged):
            name = cell_name(task, method, seed)
            if name in cells:
                raise ValueError(f"The cell {name} is listed twice in the study {study.name}.")
            cells[name] = Cell(task, method, seed, {**merged[task, method], "seed": seed})
    return list(cells.values())


def _merged(base: dict[str, Any], layers: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    config = base
    for layer in layers:
        config = _over(config, layer, name, "")
    if config["env"]["reference_scores"] is None:
        scores = {"reference_scores": config["study"]["reference_scores"]}
        config = {**config, "env": {**config["env"], **scores}}
    missing = [f"{group}.{key}" for group in ("study", "method") for key in _missing(config[group])]
    if missing:
        raise ValueError(f"The config of {name} lacks {', '.join(missing)}.")
    return config


def _over(below: dict[str, Any], above: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    """Lay one config over another; groups are merged, all else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        place = f"{path}{key}"
        if key not in below and not place.startswith(_OPEN):
            close = difflib.get_close_matches(str(key), map(str, below), n=1)
            hint = f" Did you mean {path}{close[0]}?" if close else ""
            raise ValueError(
                f"The config of {name}: cells have no field {place}.{hint} There are "
                f"{', '.join(f'{path}{field}' for field in below)}."
            )
        former = below.get(key)
        both = isinstance(value, dict) and isinstance(former, dict)
        merged[key] = _over(former, value, name, f"{place}.") if both else value  # type: ignore[arg-type]
    return merged


def _missing(group: dict[str, Any]) -> list[str]:
    return [key for key, value in group.items() if value == MISSING]


def selected(cells: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    """The cells whose name matches one of the patterns; all of them if there is no pattern.

    Raises:
        ValueError: if none matches.
    """
    chosen = [c for c in cells if not patterns or any(fnmatch(c.name, p) for p in patterns)]
    if not chosen:
        raise ValueError(
            f"only={list(patterns)} matches none of the {len(cells)} cells, which are named like "
            f"{cells[0].name}."
        )
    return chosen
