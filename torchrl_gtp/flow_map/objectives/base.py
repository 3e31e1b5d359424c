"""What training objectives of a flow map are made of: terms, their draws and their teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from torchrl_gtp.flow_map.flow_map import FlowMap

__all__ = ["Draw", "Objective", "Teacher", "Term", "TermInputs"]


class Draw(NamedTuple):
    """Random numbers that are drawn for each sample: their distribution and shape."""

    distribution: Literal["normal", "uniform"]
    shape: tuple[int, ...]


class TermInputs(NamedTuple):
    """What a term is computed from.

    Attributes:
        action: clean actions [..., A].
        draws: the random numbers of the term by name, each [..., *shape].
        progress: share of training done, a scalar tensor in [0, 1].
        condition: condition [..., C], or ``None``.
        valid: boolean mask [..., A] of the action dimensions that count, or ``None`` for all.
    """

    action: Tensor
    draws: Mapping[str, Tensor]
    progress: Tensor
    condition: Tensor | None = None
    valid: Tensor | None = None


class Teacher(Protocol):
    """The frozen flow map that makes targets: no gradient reaches its parameters."""

    def __call__(self, action_t: Tensor, t: Tensor, s: Tensor, condition: Tensor | None) -> Tensor:
        """Evaluates ``Phi(a_t, t, s)``, without gradient."""
        ...

    def endpoint(self, action_t: Tensor, t: Tensor, s: Tensor, condition: Tensor | None) -> Tensor:
        """Evaluates the end point ``phi(a_t, t, s)``, without gradient."""
        ...

    def through(self, action_t: Tensor, t: Tensor, s: Tensor, condition: Tensor | None) -> Tensor:
        """Evaluates ``Phi(a_t, t, s)``, with gradient to ``action_t`` alone."""
        ...

    def denoise(self, action_t: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """Evaluates the denoiser ``E[a | a_t]`` that an ODE solver follows, without gradient."""
        ...


class Term(Protocol):
    """One error that trains a flow map: a function of tensors, without state."""

    def draws(self, action_dim: int) -> dict[str, Draw]:
        """Lists the random numbers that the term needs for actions of that size."""
        ...

    def __call__(self, flow_map: FlowMap, teacher: Teacher, inputs: TermInputs) -> Tensor:
        """Computes the error of each sample, [...].

        Args:
            flow_map (FlowMap): the map in training.
            teacher (Teacher): the frozen map of the targets.
            inputs (TermInputs): actions, draws and the rest.
        """
        ...


@dataclass(frozen=True)
class Objective:
    """What trains a flow map: a few terms, which are added, and the choice of their teacher.

    Args:
        terms (mapping of str to Term): the terms by name; a loss reports ``loss_<name>``.
        teacher ("current" or "ema"): which parameters make the targets, always without gradient:
            the current ones, or the delayed ones. Defaults to ``"current"``.
        lambda_flow (float): factor of the term ``"flow"``, where there is one. Defaults to
            ``1.0``.
        trained_denoiser (bool): whether an ODE solver must be given a trained denoiser to follow
            even where a term trains one. Defaults to ``False``.

    Raises:
        ValueError: without a term, for another ``teacher``, for a negative ``lambda_flow``, or for
            ``trained_denoiser`` without a solver.

    Examples:
        >>> from torchrl_gtp.flow_map.objectives import Consistency, Denoising
        >>> objective = Objective({"consistency": Consistency(), "flow": Denoising()})
        >>> list(objective.draws(action_dim=2))
        ['consistency_times', 'consistency_noise', 'flow_time', 'flow_noise']
    """

    terms: Mapping[str, Term]
    teacher: Literal["current", "ema"] = "current"
    lambda_flow: float = 1.0
    # Once a denoiser is there it changes nothing: it is no part of what an objective trains.
    trained_denoiser: bool = field(default=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Checks the options."""
        if not self.terms:
            raise ValueError("terms must hold at least one term, such as {'flow': Denoising()}.")
        if self.teacher not in ("current", "ema"):
            raise ValueError(f"teacher must be 'current' or 'ema', got {self.teacher!r}.")
        if not 0.0 <= self.lambda_flow < math.inf:
            raise ValueError(
                f"lambda_flow must be finite and not negative, got {self.lambda_flow}."
            )
        if self.trained_denoiser and not self.follows_denoiser:
            raise ValueError(
                "trained_denoiser=True has no effect: no term has an ODE solver that would follow "
                "it. Leave it out, or give a term a solver, such as Consistency(solver='heun')."
            )

    def draws(self, action_dim: int) -> dict[str, Draw]:
        """Lists the random numbers of all terms, as ``<term>_<draw>``."""
        return {
            f"{name}_{draw}": spec
            for name, term in self.terms.items()
            for draw, spec in term.draws(action_dim).items()
        }

    @property
    def follows_denoiser(self) -> bool:
        """Whether a term has an ODE solver, in an attribute ``solver``, that follows a denoiser."""
        return any(getattr(term, "solver", None) is not None for term in self.terms.values())

    @property
    def needs_denoiser(self) -> bool:
        """Whether a trained denoiser must be given for a term to follow."""
        return self.follows_denoiser and (self.trained_denoiser or "flow" not in self.terms)
