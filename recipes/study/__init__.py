"""Studies: every method on every task with several seeds, side by side, and one report."""

from __future__ import annotations

import importlib.util

_missing = [name for name in ("filelock", "scipy") if importlib.util.find_spec(name) is None]
if _missing:
    raise ImportError(
        f"Studies need {' and '.join(_missing)}. Install them with the extras of the recipes: "
        'pip install -e ".[sim,recipes]"'
    )
