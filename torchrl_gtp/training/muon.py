"""Muon for hidden weights beside Adam for all else, as one optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.optim import Adam, Optimizer

__all__ = ["AdamWithMuon", "hidden_weights"]


class AdamWithMuon(Optimizer):
    """Adam, and for the hidden weights of its last groups Muon.

    Muon (https://kellerjordan.github.io/posts/muon/) steps along the orthogonalised momentum, so
    that all directions of a matrix move alike. The step is that of :class:`torch.optim.Muon`
    (torch 2.9 or later), without weight decay; its rate may be a tensor that changes inside a
    compiled or captured update, which that class reads on the host.

    Args:
        adam_groups (sequence of dict): parameter groups of Adam.
        muon_groups (sequence of dict): parameter groups of Muon, of parameters with two
            dimensions, each with its rate ``"lr"``.
        momentum (float): Muon's momentum, which is Nesterov's. Defaults to ``0.95``.
        **adam_options: further arguments of :class:`torch.optim.Adam`.

    Raises:
        ImportError: before torch 2.9.

    Examples:
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Linear(8, 8))
        >>> muon = [{"params": [net[1].weight], "lr": torch.tensor(0.02)}]
        >>> adam = [{"params": [*net[0].parameters(), net[1].bias], "lr": torch.tensor(1e-3)}]
        >>> optimizer = AdamWithMuon(adam, muon)
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
        # The parts share groups and state with the whole, which saves and loads them.
        self._adam = Adam(adam_groups, **adam_options)
        self._muon = muon(
            [{"params": list(group["params"])} for group in muon_groups],
            lr=1.0,
            weight_decay=0.0,
            momentum=momentum,
        )
        super().__init__([*self._adam.param_groups, *muon_groups], {})
        self._share()

    def _share(self) -> None:
        self._adam.state = self._muon.state = self.state
        self._adam.param_groups = self.param_groups[: len(self._adam.param_groups)]

    def __getstate__(self) -> dict[str, Any]:
        """Adds the parts to what is copied and pickled."""
        return {**super().__getstate__(), "_adam": self._adam, "_muon": self._muon}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes over a state; the parts share it again."""
        super().__setstate__(state)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Takes one step; see :meth:`torch.optim.Optimizer.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._adam.step()
        groups = self.param_groups[len(self._adam.param_groups) :]
        moved = [
            (parameter, parameter.clone(), group["lr"])
            for group in groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        # A whole step, of which the rate takes its share.
        self._muon.step()
        for parameter, before, rate in moved:
            share = torch.as_tensor(rate, dtype=parameter.dtype, device=parameter.device)
            parameter.copy_(before.lerp(parameter, share))
        return loss


def hidden_weights(named_parameters: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
    """Finds the weights of hidden layers, for which Muon is meant.

    They have two dimensions and lie inside a stack of layers, such as an ``nn.Sequential``: neither
    in its first nor in its last layer with parameters. So inputs, heads, embeddings, and
    the stacked weights of an ensemble are left out.

    Args:
        named_parameters (iterable of (str, Tensor)): parameters by their paths.

    Returns:
        set of str: the names of those weights.

    Examples:
        >>> sizes = zip((3, 16, 16, 16), (16, 16, 16, 2))
        >>> net = torch.nn.Sequential(*(torch.nn.Linear(*size) for size in sizes))
        >>> sorted(hidden_weights(net.named_parameters()))
        ['1.weight', '2.weight']
    """
    parameters = dict(named_parameters)
    stacks: dict[tuple[str, ...], set[int]] = {}
    places: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    for name in parameters:
        parts = tuple(name.split("."))
        places[name] = [(parts[:i], int(part)) for i, part in enumerate(parts) if part.isdigit()]
        for stack, layer in places[name]:
            stacks.setdefault(stack, set()).add(layer)
    return {
        name
        for name, parameter in parameters.items()
        # The stacked biases of an ensemble have two dimensions as well.
        if parameter.ndim == 2
        and name.endswith(".weight")
        and any(min(stacks[at]) < layer < max(stacks[at]) for at, layer in places[name])
    }
