"""What every run begins with."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig


def refuse_used_folder(cfg: DictConfig, folder: Path) -> None:
    """Keep a new run from writing into the folder of another.

    Raises:
        FileExistsError: if the folder holds a run, and ``cfg.resume`` is not set.
    """
    if cfg.resume is None and list(folder.glob("*/last.pt")):
        raise FileExistsError(
            f"{folder} holds a run already. Go on with it by resume={folder}, or choose another "
            "hydra.run.dir."
        )


def set_up_torch(cfg: DictConfig) -> torch.device:
    """Set the number of threads to ``cfg.num_threads``, if given; return ``cfg.device``."""
    if cfg.num_threads is not None:
        torch.set_num_threads(cfg.num_threads)
    return torch.device(cfg.device or ("cuda" if torch.cuda.is_available() else "cpu"))
