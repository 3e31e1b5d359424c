"""A network as it acts: without dropout, for as long as something is measured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Puts a network and its parts into evaluation mode; each goes back to the mode it had.

    Args:
        network (Module): the network.

    Examples:
        >>> network = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
        >>> with evaluation_mode(network):
        ...     network[1].training
        False
        >>> network[1].training
        True
    """
    training = [part for part in network.modules() if part.training]
    # Not by eval() and train(), which would not know which of the parts were frozen.
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
