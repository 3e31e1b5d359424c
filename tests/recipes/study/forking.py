"""Runners in processes that start at once, as they do not import torch anew.

A file of its own, which these processes can import by its name.
"""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

from recipes.study import run as study_run
from recipes.study.runner import Runner


class ForkingRunner(Runner):
    """A runner whose workers are forks of it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.context = multiprocessing.get_context("fork")


def run_forking(arguments: list[str], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    study_run.Runner = ForkingRunner
    study_run.main(arguments)


def start_runner(*arguments: str) -> Any:
    """Starts a runner in a process that has torch already, but has never used it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["recipes.study.run"])
    environment = {"MINARI_DATASETS_PATH": os.environ["MINARI_DATASETS_PATH"]}
    process = context.Process(target=run_forking, args=(list(arguments), environment))
    process.start()
    return process
