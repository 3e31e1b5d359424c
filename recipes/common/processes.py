"""The processes of a data-parallel run: one, or those that torchrun started."""

from __future__ import annotations

import inspect
import os
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")
# The others wait while the first process evaluates.
TIMEOUT = timedelta(hours=2)


class Processes:
    """A context in which the processes of a run can talk to each other.

    Under ``torchrun`` it joins a process group, NCCL with a GPU for each process and Gloo without;
    a script that runs alone is a group of one, for which every method is trivial.

    Args:
        device: device of the config; ``None`` for CUDA if there is one, else the CPU. Under
            ``torchrun`` ``"cuda"`` means the GPU of the local rank.

    Attributes:
        rank: number of this process, 0 for the one that logs, evaluates and writes.
        size: number of processes.
        device: where this process trains.

    Example:
        >>> with Processes("cpu") as processes:
        ...     processes.size, processes.is_main, processes.any(False), processes.of_main("here")
        (1, True, False, 'here')
    """

    def __init__(self, device: str | None = None) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.size = int(os.environ.get("WORLD_SIZE", 1))
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if chosen == "cuda" and self.size > 1:
            chosen = f"cuda:{os.environ['LOCAL_RANK']}"
        self.device = torch.device(chosen)

    def __enter__(self) -> Processes:
        if self.size > 1:
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            distributed.init_process_group(backend, timeout=TIMEOUT)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.size > 1:
            distributed.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this is the process that logs, evaluates and writes."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all of them have to ask together."""
        if self.size == 1:
            return flag
        flags = torch.tensor(float(flag), device=self.device)
        distributed.all_reduce(flags)
        return bool(flags.item() > 0)

    def of_main(self, value: T) -> T:
        """The value that the main process has; all of them have to ask together."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]

    def seed(self, seed: int) -> None:
        """Give each process draws of its own; those of the main one are ``seed``'s."""
        torch.manual_seed(seed + 1_000_003 * self.rank)

    def parallel(self, module: nn.Module) -> nn.Module:
        """Wrap a module so that gradients are averaged; its weights become the main process's."""
        if self.size == 1:
            return module
        # Buffers are moving averages of parameters that agree, so they agree as well. The option
        # has another name from torch 2.13 on, which warns about the former one.
        known = inspect.signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {name: False}
        return DistributedDataParallel(module, **options)
