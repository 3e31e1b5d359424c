"""A policy in CUDA graphs that follows what a graph alone would ignore."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import CudaGraphModule, TensorDictModuleBase, dispatch
from tensordict.nn.probabilistic import interaction_type

from torchrl_gtp.modules.actor import GTPActor

__all__ = ["CapturedPolicy"]


class CapturedPolicy(TensorDictModuleBase):
    """Runs an actor in CUDA graphs, one for each number of jumps, exploration type and input shape.

    A CUDA graph repeats the kernels that it has recorded. In a plain
    :class:`~tensordict.nn.CudaGraphModule` a later ``actor.num_steps = K`` or
    ``set_exploration_type`` would do nothing; the actor raises an error for the first, but cannot
    notice it where it was compiled before the capture. This policy looks at both at every call
    and captures another graph when they are new, so ``policy.actor.num_steps`` stays settable.
    Each graph holds memory until :meth:`clear` is called.

    The actor runs without gradient; and as it is where there is no CUDA.

    Args:
        actor (GTPActor): the policy. Its parameters may be changed in place; after ``.to(...)``
            call :meth:`clear`.

    Keyword Args:
        warmup (int): calls before the capture, as in
            :class:`~tensordict.nn.CudaGraphModule`. Defaults to ``2``.
        compile (bool): whether the actor is compiled before the capture, with
            ``torch.compile(fullgraph=True)``; each graph takes a compilation, of which
            ``torch._dynamo.config.recompile_limit`` are allowed. Defaults to ``False``.

    Examples:
        >>> import warnings
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import make_gtp_actor
        >>> policy = CapturedPolicy(make_gtp_actor(4, Bounded(-1, 1, (2,))))
        >>> with warnings.catch_warnings():  # tensordict warns where there is no CUDA
        ...     warnings.simplefilter("ignore")
        ...     policy(observation=torch.randn(8, 4)).shape
        torch.Size([8, 2])
    """

    def __init__(self, actor: GTPActor, *, warmup: int = 2, compile: bool = False) -> None:
        super().__init__()
        self.actor = actor
        self.warmup = warmup
        self.compile = compile
        self.in_keys = actor.in_keys
        self.out_keys = actor.out_keys
        self.clear()

    @property
    def num_graphs(self) -> int:
        """The number of graphs that are kept."""
        return len(self._graphs)

    def clear(self) -> None:
        """Forgets all graphs."""
        self._graphs: dict[Hashable, CudaGraphModule] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A graph belongs to the tensors of the module that it was captured from.
        return {**self.__dict__, "_graphs": {}}

    @dispatch(auto_batch_size=False)
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Writes an action to ``tensordict``.

        Args:
            tensordict (TensorDictBase): what the actor reads.

        Returns:
            TensorDictBase: the input with the action entry.
        """
        actor = self.actor
        optional = (actor.noise_key, actor.start_key, actor.start_level_key)
        inputs = tensordict.select(*actor.in_keys, *optional, strict=False)
        shapes = tuple(
            (key, value.shape, value.dtype, value.device)
            for key, value in sorted(inputs.items(True, True), key=lambda item: str(item[0]))
        )
        # A graph cannot follow any of these.
        case = (actor.num_steps, actor.sampler, interaction_type(), inputs.batch_size, shapes)
        graph = self._graphs.get(case)
        if graph is None:
            graph = self._graphs[case] = self._capture(actor.num_steps)
        # The next replay writes to the same memory.
        return tensordict.update(graph(inputs).select(*self.out_keys).clone())

    def _capture(self, num_steps: int) -> CudaGraphModule:
        @torch.no_grad()
        def act(tensordict: TensorDictBase) -> TensorDictBase:
            # Given as an argument, so that the attribute stays settable.
            return self.actor(tensordict, num_steps=num_steps)

        if self.compile:
            act = torch.compile(act, fullgraph=True)
        return CudaGraphModule(act, warmup=self.warmup, in_keys=[], out_keys=[])
