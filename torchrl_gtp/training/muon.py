"""Muon for hidden weights beside Adam for all else, as one optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

__all__ = ["AdamWithMuon", "hidden_weights"]

_FOR_ALL_WEIGHTS = {"maximize": False, "weight_decay": 0}
# A name and what schedulers note of the rate do not change a step.
_OF_MUON_GROUPS = {"params", "lr", "momentum", "name", "initial_lr", "max_lr", "min_lr"}


class AdamWithMuon(Optimizer):
    """Adam, and Muon for the hidden weights, which are the last groups.

    Muon (https://kellerjordan.github.io/posts/muon/) steps along the orthogonalised momentum, so
    that all directions of a matrix move alike. The step is that of :class:`torch.optim.Muon`
    (torch 2.9 or later), without weight decay. That class reads its rate on the host; here the rate
    may be a tensor that changes inside a compiled or captured update, on the device of the weights.

    Args:
        adam_groups (sequence of dict): parameter groups of Adam, at least one.
        muon_groups (sequence of dict): parameter groups of Muon, at least one, of parameters with
            two dimensions. Each has a rate ``"lr"`` of its own, not negative, and may have a
            ``"momentum"``, a ``"name"`` and what schedulers of the rate note.
        momentum (float): Muon's momentum, which is Nesterov's, in [0, 1). Defaults to ``0.95``.
        **adam_options: further arguments of :class:`torch.optim.Adam`, for its groups. Not
            ``weight_decay`` and ``maximize``, which would leave out the weights of Muon.

    Raises:
        ValueError: for options outside the ranges above.
        ImportError: before torch 2.9.

    Examples:
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 1))
        >>> muon = [{"params": [net[1].weight], "lr": torch.tensor(0.02)}]
        >>> rest = [parameter for parameter in net.parameters() if parameter is not net[1].weight]
        >>> optimizer = AdamWithMuon([{"params": rest, "lr": torch.tensor(1e-3)}], muon)
        >>> net(torch.ones(4, 3)).square().mean().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        adam_groups: Sequence[dict[str, Any]],
        muon_groups: Sequence[dict[str, Any]],
        *,
        momentum: float = 0.95,
        **adam_options: Any,
    ) -> None:
        muon = getattr(torch.optim, "Muon", None)
        if muon is None:
            raise ImportError(
                f"torch.optim.Muon came with torch 2.9, this is {torch.__version__}: install a "
                "later one, or train with Adam alone."
            )
        # Its momentum stands in the group, as Adam's betas do, so that it is saved with it.
        muon_groups = [{"momentum": momentum, **group} for group in muon_groups]
        for name, accepted in _FOR_ALL_WEIGHTS.items():
            if adam_options.get(name, accepted) != accepted:
                raise ValueError(
                    f"{name}={adam_options[name]} would be for the weights of Adam alone, not for "
                    "those of Muon: leave it out, or train with Adam alone."
                )
        for group in muon_groups:
            if not float(group.get("lr", float("nan"))) >= 0.0:
                raise ValueError(
                    f"Each of muon_groups must have an 'lr' of at least 0, got {group.get('lr')}."
                )
            if not 0.0 <= group["momentum"] < 1.0:
                raise ValueError(f"momentum must lie in [0, 1), got {group['momentum']}.")
            if unknown := sorted(group.keys() - _OF_MUON_GROUPS):
                raise ValueError(
                    f"A group of Muon has no options {unknown}: it accepts "
                    f"{sorted(_OF_MUON_GROUPS)}. Leave them out, or give them to adam_groups."
                )
        self._muon: Optimizer | None = None
        self._adam = Adam(adam_groups, **adam_options)
        super().__init__([*self._adam.param_groups, *muon_groups], {})
        whole_steps = [{"params": group["params"]} for group in self._muon_groups]
        self._muon = muon(whole_steps, lr=1.0, weight_decay=0.0)
        self._share()

    @property
    def _muon_groups(self) -> list[dict[str, Any]]:
        return self.param_groups[len(self._adam.param_groups) :]

    def _share(self) -> None:
        # The parts keep their state in that of the whole, which saves and loads it.
        assert self._muon is not None
        self._adam.state = self._muon.state = self.state
        self._adam.param_groups = self.param_groups[: len(self._adam.param_groups)]
        # Adam fills in the options that a group of an earlier version lacks.
        self._adam.__setstate__({})

    def __getstate__(self) -> dict[str, Any]:
        """Adds the parts to what is copied and pickled."""
        return {**super().__getstate__(), "_adam": self._adam, "_muon": self._muon}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes over a state; the parts share it again."""
        super().__setstate__(state)
        self._share()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Is for the construction alone.

        Raises:
            NotImplementedError: later, when it could not be told which of both it is for.
        """
        if self._muon is not None:
            raise NotImplementedError(
                "AdamWithMuon takes no further groups: make a new one, with adam_groups and "
                "muon_groups of all parameters."
            )
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Takes one step; see :meth:`torch.optim.Optimizer.step`."""
        assert self._muon is not None
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._adam.step()
        moved: list[tuple[Tensor, Tensor, float | Tensor]] = []
        for group, whole_step in zip(self._muon_groups, self._muon.param_groups, strict=True):
            whole_step.update(params=group["params"], momentum=group["momentum"])
            moved += [
                (parameter, parameter.clone(), group["lr"])
                for parameter in group["params"]
                if parameter.grad is not None
            ]
        # A whole step, of which the rate takes its share.
        self._muon.step()
        for parameter, before, rate in moved:
            share = rate.to(parameter) if isinstance(rate, Tensor) else rate
            parameter.copy_(before.lerp(parameter, share))
        return loss


def hidden_weights(module: nn.Module) -> set[str]:
    """Finds the weights of hidden layers, for which Muon is meant.

    They are those of the ``nn.Linear`` layers in an ``nn.Sequential``, such as
    :class:`torchrl.modules.MLP`, or in its blocks, but for the first and the last of its modules
    that hold such layers, which read the inputs and make the outputs.

    Args:
        module (nn.Module): a network.

    Returns:
        set of str: the names of those weights, as in ``module.named_parameters()``.

    Examples:
        >>> sizes = zip((3, 16, 16, 16), (16, 16, 16, 2))
        >>> net = nn.Sequential(*(nn.Linear(*size) for size in sizes))
        >>> sorted(hidden_weights(net))
        ['1.weight', '2.weight']
    """
    found: set[str] = set()
    for path, stack in module.named_modules():
        if not isinstance(stack, nn.Sequential):
            continue
        # A functional module holds no parameters of its own any more: layers are told by kind.
        layers = [name for name, layer in stack.named_children() if _linear_layers(layer)]
        for name in layers[1:-1]:
            prefix = f"{path}.{name}" if path else name
            inside = _linear_layers(stack.get_submodule(name))
            found |= {".".join(filter(None, (prefix, at, "weight"))) for at in inside}
    return found


def _linear_layers(module: nn.Module) -> list[str]:
    return [path for path, layer in module.named_modules() if isinstance(layer, nn.Linear)]
