"""Studies: every method on every task with several seeds, side by side, and one report."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("scipy") is None:
    raise ImportError(
        "Studies need scipy. Install it with the extras of the recipes: "
        'pip install -e ".[sim,recipes]"'
    )
