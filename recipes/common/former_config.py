"""The config of a run that an earlier version of a recipe wrote."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

# What a field stood for before it was there, where that is not its default.
BEFORE: dict[str, Any] = {"actor.sampler": "jumps", "loss.semigroup_every": None}


def recipe_config(*files: Path) -> dict[str, Any]:
    """Read the fields of a recipe and their defaults.

    Args:
        files: its config files, later ones over earlier ones; what Hydra reads of them is left out.
    """
    config: Any = OmegaConf.merge(*(OmegaConf.load(file) for file in files))
    fields = [name for name in config if name not in ("defaults", "hydra")]
    return OmegaConf.to_container(OmegaConf.masked_copy(config, fields))  # type: ignore[return-value]


def completed(
    former: Mapping[str, Any], present: Mapping[str, Any], accepted: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give a config the fields that have been added since it was written.

    They get their defaults, or what they stood for before (``BEFORE``).

    Args:
        former: the config.
        present: the fields of the recipe now, with their defaults. A group with ``_target_``, or
            with nothing in it, is a value: what it holds may differ.
        accepted: names of further fields that may be there, as ``"replay_buffer.prefetch"``.

    Returns:
        the config with all fields, and by name those that were added.

    Raises:
        ValueError: if the config has fields that there are no more.

    Example:
        >>> completed({"seed": 1}, {"seed": 0, "env": {"num_envs": 2}})
        ({'seed': 1, 'env': {'num_envs': 2}}, {'env': {'num_envs': 2}})
    """
    config, added, gone = _completed(former, present, accepted, "")
    if gone:
        fields = ", ".join(f"{name}={value}" for name, value in gone.items())
        raise ValueError(
            f"The run has fields in its config that this version does not know: {fields}. Go on "
            "with it by the version that wrote it, or start another run."
        )
    return config, added


def _completed(
    former: Mapping[str, Any], present: Mapping[str, Any], accepted: Collection[str], prefix: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    config = dict(former)
    added: dict[str, Any] = {}
    gone = {
        f"{prefix}{name}": value
        for name, value in former.items()
        if name not in present and f"{prefix}{name}" not in accepted
    }
    for name, default in present.items():
        place = f"{prefix}{name}"
        if name not in former:
            config[name] = added[place] = BEFORE.get(place, default)
        elif _is_group(default) and _is_group(former[name]):
            config[name], *parts = _completed(former[name], default, accepted, f"{place}.")
            added, gone = added | parts[0], gone | parts[1]
    return config, added, gone


def _is_group(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and "_target_" not in value
