"""Forwarding a config group to a library function as keyword arguments."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any


def check_options(
    group: str,
    options: Mapping[str, Any],
    target: Callable[..., Any],
    *,
    reserved: Collection[str] = (),
) -> dict[str, Any]:
    """Check that every option of a config group is a keyword argument of ``target``.

    Args:
        group: name of the config group, for the message.
        options: the options given.
        target: function or class that will receive them.
        reserved: arguments of ``target`` that the recipe fills itself.

    Returns:
        The options as a plain dictionary.

    Raises:
        ValueError: if an option is unknown; the message lists those that exist.

    Example:
        >>> def make(width: int = 3, depth: int = 2) -> None: ...
        >>> check_options("model", {"width": 4}, make)
        {'width': 4}
    """
    accepted = [name for name in keyword_defaults(target) if name not in reserved]
    for name in options:
        if name not in accepted:
            close = difflib.get_close_matches(name, accepted, n=1)
            hint = f" Did you mean {group}.{close[0]}?" if close else ""
            raise ValueError(
                f"Unknown option {group}.{name}: {target.__name__} does not take it.{hint} "
                f"Options of {group}: {', '.join(sorted(accepted))}."
            )
    return dict(options)


def keyword_defaults(target: Callable[..., Any]) -> dict[str, Any]:
    """Names and defaults of the keyword arguments; ``inspect.Parameter.empty`` stands for none.

    Arguments that a class hands on to its base by ``**`` are included.

    Args:
        target: function or class.
    """
    functions: list[Callable[..., Any]] = [target]
    if inspect.isclass(target):
        functions = [vars(base)["__init__"] for base in target.__mro__ if "__init__" in vars(base)]
    defaults: dict[str, Any] = {}
    for function in functions:
        parameters = inspect.signature(function).parameters.values()
        for parameter in parameters:
            named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            if named and parameter.name != "self":
                defaults.setdefault(parameter.name, parameter.default)
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
            break
    return defaults
