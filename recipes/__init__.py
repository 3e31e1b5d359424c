"""Training recipes: one folder an algorithm, shared helpers in ``recipes.common``."""

from __future__ import annotations

import importlib.util

_missing = [name for name in ("matplotlib", "tqdm") if importlib.util.find_spec(name) is None]
if _missing:
    raise ImportError(
        f"The recipes need {' and '.join(_missing)}. Install them with the extras of the recipes: "
        'pip install -e ".[sim,recipes]"'
    )
