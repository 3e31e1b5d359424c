"""The files of tasks and methods, composed with the defaults that they name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf import OmegaConf

HERE = Path(__file__).parent


@cache
def cell_defaults() -> dict[str, Any]:
    """The fields of a cell, with their defaults, before task, method and study are laid over."""
    return _load("cell", [HERE])


def load_choice(group: str, choice: str, folders: Sequence[Path]) -> dict[str, Any]:
    """The fields of a task or a method.

    Args:
        group: ``"task"`` or ``"method"``.
        choice: name of a file of the group.
        folders: where the folders of the groups are: this recipe's and that of the study.

    Raises:
        ValueError: if no folder has the file, or both do, or it cannot be composed.
    """
    try:
        config = _load(f"{group}/{choice}", folders)
    except (MissingConfigException, ConfigCompositionException) as error:
        known = sorted({f.stem for folder in folders for f in (folder / group).glob("*.yaml")})
        raise ValueError(
            f"{group} {choice!r}: {error}\nThere are: "
            f"{', '.join(name for name in known if not name.startswith('_'))}."
        ) from error
    if set(config) != {group}:
        raise ValueError(f"{group} {choice!r}: its file must have no line '# @package'.")
    return config[group]


def _load(name: str, folders: Sequence[Path]) -> dict[str, Any]:
    """Compose the config ``name`` of the folder that has it, with its defaults.

    Raises:
        ValueError: if two folders have it.
    """
    holders = [folder for folder in folders if (folder / f"{name}.yaml").is_file()]
    if len(holders) > 1:
        there, yours = (holder / f"{name}.yaml" for holder in holders)
        raise ValueError(
            f"{yours} has the name of a file of this project, {there}: which of them a study means "
            "would not be clear. Rename yours."
        )
    holder = holders[0] if holders else HERE
    # The defaults of a user's file may be files of this recipe.
    search = [] if holder == HERE else ["hydra.searchpath=[pkg://recipes.study]"]
    with initialize_config_dir(str(holder.resolve()), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose(name, overrides=search))
    return config
