"""Layers that networks of a loss share, through casts, copies and loading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDictParams
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.objectives.common import LossModule

__all__ = ["SharedLayersLoss", "memory_of"]

_Entry = tuple[str, NestedKey]


class SharedLayersLoss(LossModule):
    """Base of losses in which a network may see the parameters of another without training them.

    With ``compare_against``, ``convert_to_functional`` gives the second network buffers that are
    views of the first one's parameters. Casting, copying and loading make tensors of their own out
    of views, which would never follow the training again; here they become views once more.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shared_entries: dict[_Entry, _Entry] = {}
        self.register_load_state_dict_pre_hook(_before_loading)
        self.register_load_state_dict_post_hook(_after_loading)

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> SharedLayersLoss:
        # Also of losses inside, whose turn comes when the layers that they see were replaced.
        inside = [loss for loss in self.modules() if isinstance(loss, SharedLayersLoss)]
        views = [loss._views() for loss in inside]
        super()._apply(fn)
        for loss, found in zip(inside, views, strict=True):
            loss._share(found)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shared_entries": self._views()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share(self._shared_entries)

    def _views(self) -> dict[_Entry, _Entry]:
        """Finds the buffers that are views of whole parameters, by their memory."""
        networks = {
            name: params for name, params in self._modules.items() if _is_network(name, params)
        }
        entries = {
            (name, key): entry
            for name, params in networks.items()
            for key, entry in params.items(True, True)
            if not nn.parameter.is_lazy(entry) and memory_of(entry)
        }
        owners = {
            memory_of(entry): (place, entry.shape)
            for place, entry in entries.items()
            if isinstance(entry, nn.Parameter)
        }
        views = {}
        for place, entry in entries.items():
            owner, shape = owners.get(memory_of(entry), (place, None))
            # Of an ensemble the view has one dimension more than the parameter.
            if not isinstance(entry, nn.Parameter) and shape in (entry.shape, entry.shape[1:]):
                views[place] = owner
        return views

    def _share(self, views: dict[_Entry, _Entry]) -> None:
        for view, owner in views.items():
            entry = self._entry(view)
            entry.data = self._entry(owner).data.expand_as(entry)

    def _entry(self, place: _Entry) -> Tensor:
        name, key = place
        return self._modules[name].get(key)


def memory_of(tensor: Tensor) -> int:
    """The address of a tensor's memory, which views have in common; 0 where there is none."""
    return tensor.untyped_storage().data_ptr()


def _is_network(name: str, module: nn.Module | None) -> bool:
    return isinstance(module, TensorDictParams) and not name.startswith("target_")


def _before_loading(module: SharedLayersLoss, *_: Any) -> None:
    # Nothing can be written into a view that repeats its memory for each member of an ensemble.
    module._shared_entries = module._views()
    for view in module._shared_entries:
        entry = module._entry(view)
        entry.data = entry.data.clone(memory_format=torch.contiguous_format)


def _after_loading(module: SharedLayersLoss, _: Any) -> None:
    module._share(module._shared_entries)
