"""The random numbers of a published program: taken down, and given to ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor

__all__ = ["Chain", "recorded", "replayed", "take_chain"]


class Chain(NamedTuple):
    """The draws of one run of a published sampler.

    Attributes:
        start: the noise that it starts from, [N, A].
        further: the noise that it adds on the way, each [N, A], as far as it has an effect.
    """

    start: Tensor
    further: list[Tensor]

    def for_batch(self, batch: int) -> Chain:
        """Tells apart the M samples of each observation, which the program has one below another.

        Returns:
            Chain: ``start`` [batch, M, A], as a loss takes it, and ``further`` [M, batch, A] each,
            as its sampler draws them.
        """
        start = self.start.unflatten(0, (batch, -1))
        further = [noise.unflatten(0, (batch, -1)).movedim(1, 0) for noise in self.further]
        return Chain(start, further)


@contextmanager
def recorded(coin: float = 0.0) -> Iterator[list[Tensor]]:
    """Takes down what ``torch.randn``, ``randn_like`` and ``randint`` give, in their order.

    Args:
        coin: what ``numpy.random.uniform`` gives, by which a program chooses its Q-network.
    """
    record: list[Tensor] = []

    def watched(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def watching(*args: Any, **kwargs: Any) -> Tensor:
            draw = function(*args, **kwargs)
            # A copy, because programs clamp in place.
            record.append(draw.detach().clone())
            return draw

        return watching

    names = ("randn", "randn_like", "randint")
    functions: dict[str, Any] = {name: watched(getattr(torch, name)) for name in names}
    with mock.patch.multiple(torch, **functions), mock.patch.object(np.random, "uniform") as toss:
        toss.return_value = coin
        yield record


@contextmanager
def replayed(draws: Sequence[Tensor]) -> Iterator[None]:
    """Gives these numbers, one after the other, in the place of fresh normal ones.

    Raises:
        ValueError: if they are too few, too many, or of another shape than what is asked for.
    """
    left = list(draws)

    def draw(shape: torch.Size) -> Tensor:
        if not left:
            raise ValueError(f"All {len(draws)} draws are used up, and another one is asked for.")
        noise = left.pop(0)
        if noise.shape != shape:
            raise ValueError(
                f"The draw to give has the shape {tuple(noise.shape)}, but {tuple(shape)} is "
                "asked for: both programs must draw in the same order."
            )
        return noise

    def randn(shape: Sequence[int], **_: Any) -> Tensor:
        return draw(torch.Size(shape))

    def randn_like(like: Tensor, **_: Any) -> Tensor:
        return draw(like.shape)

    with mock.patch.multiple(torch, randn=randn, randn_like=randn_like):
        yield
    if left:
        raise ValueError(f"{len(left)} of {len(draws)} draws were not asked for.")


def take_chain(draws: Iterator[Tensor], num_levels: int, *, num_drawn: int) -> Chain:
    """Reads the draws of one run of a sampler of ``num_levels`` steps from a record.

    Args:
        draws: what is left of the record.
        num_levels: the steps, of which all but the last add noise.
        num_drawn: how often the program draws noise after the start; DDPM's does so at the last
            level as well, and multiplies it by 0.
    """
    start = next(draws)
    further = [next(draws) for _ in range(num_drawn)]
    return Chain(start, further[: num_levels - 1])
