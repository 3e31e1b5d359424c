"""How an actor samples, as attributes that may change between calls."""

from __future__ import annotations

from typing import Any

from tensordict.nn import TensorDictModuleBase

from torchrl_gtp.flow_map.named_samplers import SamplerName, as_sampler
from torchrl_gtp.flow_map.samplers import Sampler
from torchrl_gtp.modules.checks import checked_num_steps

__all__ = ["SamplingModule"]


class SamplingModule(TensorDictModuleBase):
    """Base of modules with a sampler and a number of steps K.

    Both may be changed at any time, but for a module that a CUDA graph has captured: the graph
    would go on as before.

    Args:
        sampler (str or Sampler): how K steps take noise to data.
        num_steps (int): the number of steps K, at least 1.

    Raises:
        ValueError: for an unknown name, or a ``num_steps`` smaller than 1.
        TypeError: if ``sampler`` is neither a name nor a sampler.
    """

    _sampler: Sampler
    _num_steps: int

    def __init__(self, sampler: SamplerName | Sampler, num_steps: int) -> None:
        super().__init__()
        self._is_captured = False
        self._sampler = as_sampler(sampler)
        self._num_steps = checked_num_steps(num_steps)

    @property
    def num_steps(self) -> int:
        """The number of jumps or steps K."""
        return self._num_steps

    @num_steps.setter
    def num_steps(self, value: int) -> None:
        value = checked_num_steps(value)
        self._check_change("num_steps", value, self._num_steps)
        self._num_steps = value

    @property
    def sampler(self) -> Sampler:
        """How K steps take noise to data."""
        return self._sampler

    @sampler.setter
    def sampler(self, value: SamplerName | Sampler) -> None:
        value = as_sampler(value)
        self._check_change("sampler", value, self._sampler)
        self._sampler = value

    @property
    def num_evaluations(self) -> int:
        """The number of network evaluations of one action."""
        return self.sampler.evaluations(self.num_steps)

    def __getstate__(self) -> dict[str, Any]:
        # No graph knows the copy.
        return {**self.__dict__, "_is_captured": False}

    def _check_change(self, name: str, value: object, present: object) -> None:
        if self._is_captured and value != present:
            raise RuntimeError(
                f"{name}={value} would have no effect: a CUDA graph has captured this actor "
                f"with {name}={present}. Use CapturedPolicy, which keeps one graph for "
                "each number of jumps and sampler, or change a copy (copy.deepcopy) and capture "
                "that."
            )
