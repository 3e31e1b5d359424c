"""A term on some rows of a batch alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torchrl_gtp.flow_map.flow_map import FlowMap
from torchrl_gtp.flow_map.objectives.base import Draw, Teacher, Term, TermInputs
from torchrl_gtp.flow_map.objectives.rows import one_of_each, rows_of

__all__ = ["SomeRows"]


@dataclass(frozen=True)
class SomeRows:
    """A term on one of each so many rows of a batch, drawn at random; its errors elsewhere are 0.

    A consistency term takes two network evaluations for each row, a denoising term one. On a few of
    the rows it leaves evaluations for more updates, and so for more samples of the denoising term.
    Chosen rows keep their weight beside the other terms, they are not scaled up: the loss's mean
    over the batch is smaller accordingly. Shortcut models (arXiv 2410.12557) bootstrap on a quarter
    of a batch; for generative trajectory policies it is not in the paper.

    Args:
        term (Term): the term.
        every (int): one of each so many rows has it. Rows of all batch dimensions count, and the
            last ones may be fewer. What the term itself does on some rows, as
            ``semigroup_every`` of :class:`Consistency`, it does on some of these.

    Raises:
        ValueError: if ``every`` is no integer of at least 1, or ``term`` is on some rows already.

    Examples:
        >>> import torch
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import GTPLoss, make_gtp_actor
        >>> from torchrl_gtp.flow_map import Objective, gtp_objective
        >>> consistency, flow = gtp_objective().terms.values()
        >>> terms = {"consistency": SomeRows(consistency, every=4), "flow": flow}
        >>> objective = Objective(terms, lambda_flow=3.0)
        >>> loss = GTPLoss(make_gtp_actor(4, Bounded(-1, 1, (2,))), objective=objective)
        >>> data = {"observation": torch.randn(8, 4), "action": torch.zeros(8, 2)}
        >>> loss(**data)[0].shape
        torch.Size([])
    """

    term: Term
    every: int

    def __post_init__(self) -> None:
        """Checks the options."""
        if type(self.every) is not int or self.every < 1:
            raise ValueError(f"every must be an integer of at least 1, got {self.every!r}.")
        if isinstance(self.term, SomeRows):
            raise ValueError(
                f"term is a SomeRows with every={self.term.every}: take its term, and "
                f"every={self.every * self.term.every}."
            )

    @property
    def solver(self) -> Any:
        """The ODE solver of the term, if it has one: an objective asks for it."""
        return getattr(self.term, "solver", None)

    def draws(self, action_dim: int) -> dict[str, Draw]:
        """Lists the draws; see :class:`Term`."""
        return {**self.term.draws(action_dim), "chosen_rank": Draw("uniform", (1,))}

    def __call__(self, flow_map: FlowMap, teacher: Teacher, inputs: TermInputs) -> Tensor:
        """Computes the errors; see :class:`Term`."""
        leading = inputs.action.shape[:-1]
        draws = {
            name: draw.reshape(-1, *draw.shape[len(leading) :])
            for name, draw in inputs.draws.items()
        }
        rows = one_of_each(self.every, draws.pop("chosen_rank")[:, 0])
        errors = self.term(
            flow_map,
            teacher,
            TermInputs(
                rows_of(inputs.action)[rows],
                {name: draw[rows] for name, draw in draws.items()},
                inputs.progress,
                None if inputs.condition is None else rows_of(inputs.condition)[rows],
                None if inputs.valid is None else rows_of(inputs.valid)[rows],
            ),
        )
        return errors.new_zeros(leading.numel()).index_copy(0, rows, errors).reshape(leading)
