"""The consistency term: two points of one trajectory must end at the same place."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from torchrl_gtp.flow_map.errors import (
    TimeWeight,
    check_time_weight,
    num_valid,
    robust_weight,
    weighted_square,
)
from torchrl_gtp.flow_map.flow_map import FlowMap
from torchrl_gtp.flow_map.objectives.base import Draw, Teacher, TermInputs
from torchrl_gtp.flow_map.objectives.rows import one_of_each, rows_of
from torchrl_gtp.flow_map.precision import at_least_single
from torchrl_gtp.flow_map.sampling import solve_ode
from torchrl_gtp.flow_map.time_sampling import (
    FlowMapTimes,
    LogNormalTimes,
    TimeSampler,
    check_time_sampler,
)

__all__ = ["Consistency"]


@dataclass(frozen=True)
class Consistency:
    """The error ``||Phi(a_t, t, s) - Phi^-(a_u, u, s)||^2`` of two points of one trajectory.

    The point ``a_u`` comes from the closed-form score approximation ``a_u = a + u z`` with the
    noise of ``a_t = a + t z`` (paper, eq. 6 and 7), or from an ODE solver that follows the
    teacher's denoiser from ``a_t``. Consistency models are this term with ``s = 0`` (a
    ``time_sampler`` with ``end="data"``), consistency trajectory models (CTM, arXiv 2310.02279)
    are it with a solver, and the paper's policies with the closed form.

    Args:
        time_sampler (TimeSampler): gives (t, u, s). Defaults to ``LogNormalTimes()``.
        time_weight ("edm", "noise", "velocity", "none" or "gap"): the weight over t of
            :func:`~torchrl_gtp.flow_map.consistency_error`; or ``"gap"``, which divides the error
            by ``t - u``, so that it keeps its size while the gap shrinks. Defaults to ``"edm"``.
        robust_power (float): exponent of the adaptive weight ``1 / (error + 0.01)^power`` of each
            error, in [0, 1], where ``error`` is its mean over the action dimensions that are not
            padded. Defaults to ``1.0``.
        huber (float, optional): replaces the squared error ``e`` by the pseudo-Huber distance
            ``sqrt(e + c^2) - c`` with ``c = huber * sqrt(A)``, A the number of dimensions that are
            not padded; improved consistency training (arXiv 2310.14189) has 0.00054. Its gradient
            is that of ``robust_power=0.5`` with ``huber^2`` in the place of 0.01, over
            ``2 * sqrt(A)``. Defaults to ``None``.
        solver ("euler" or "heun", optional): makes ``a_u`` with an ODE solver. Defaults to
            ``None``: the closed form.
        solver_steps (int): its steps between t and u. Defaults to ``1``.
        at_data (bool): whether to compare both after a frozen jump from s to 0, as CTM does.
            Defaults to ``False``.
        semigroup_every (int, optional): one of each so many rows of a batch, drawn at random, is
            compared with two frozen jumps, ``Phi^-(Phi^-(a_t, t, m), m, s)`` with ``ln m`` uniform
            between ``ln s`` and ``ln t``: the semigroup property of a solution map. It takes the
            place of ``a_u`` there and costs one more evaluation of these rows. A neighbour's
            target carries what is known at small noise levels up by one gap at a time, this one in
            a few leaps. Rows of all batch dimensions count, and the last ones may be fewer: a
            batch of one has no row that is compared by way of the data. Defaults to ``None``: no
            row.

    Raises:
        ValueError: for options outside the ranges above, or ``semigroup_every`` beside
            ``time_weight="gap"``.
        TypeError: if ``time_sampler`` gives no (t, u, s).
    """

    time_sampler: TimeSampler = field(default_factory=LogNormalTimes)
    time_weight: TimeWeight | Literal["gap"] = "edm"
    robust_power: float = 1.0
    huber: float | None = None
    solver: Literal["euler", "heun"] | None = None
    solver_steps: int = 1
    at_data: bool = False
    semigroup_every: int | None = None

    def __post_init__(self) -> None:
        """Checks the options."""
        check_time_sampler(self.time_sampler)
        check_time_weight(self.time_weight, "gap")
        if not 0.0 <= self.robust_power <= 1.0:
            raise ValueError(f"robust_power must lie in [0, 1], got {self.robust_power}.")
        if self.huber is not None and not 0.0 < self.huber < math.inf:
            raise ValueError(f"huber must be positive and finite, or None; got {self.huber}.")
        if self.solver not in (None, "euler", "heun"):
            raise ValueError(f"solver must be 'euler', 'heun' or None, got {self.solver!r}.")
        if self.solver_steps < 1:
            raise ValueError(f"solver_steps must be at least 1, got {self.solver_steps}.")
        every = self.semigroup_every
        if every is not None and (type(every) is not int or every < 1):
            raise ValueError(
                f"semigroup_every must be an integer of at least 1, or None; got {every!r}."
            )
        if every is not None and self.time_weight == "gap":
            raise ValueError(
                f"semigroup_every={every} goes with a time_weight other than 'gap': two jumps have "
                "no neighbour whose gap could divide the error. Leave one of them out."
            )

    def draws(self, action_dim: int) -> dict[str, Draw]:
        """Lists the draws; see :class:`Term`."""
        draws = {"times": Draw("uniform", (2,)), "noise": Draw("normal", (action_dim,))}
        if self.semigroup_every is not None:
            draws |= {"middle": Draw("uniform", (1,)), "row_rank": Draw("uniform", (1,))}
        return draws

    def __call__(self, flow_map: FlowMap, teacher: Teacher, inputs: TermInputs) -> Tensor:
        """Computes the errors; see :class:`Term`."""
        action, condition, noise = inputs.action, inputs.condition, inputs.draws["noise"]
        times = self.time_sampler(inputs.draws["times"], inputs.progress, flow_map.noise_levels)
        # Networks see the levels as well as they can tell them apart; weights and gaps are exact.
        t, u, s = (level.to(action.dtype) for level in times)
        target_start = times.u
        action_t = action + t * noise
        if self.solver is None:
            action_u = action + u * noise
        else:
            action_u = self._solve(flow_map, teacher, action_t, t, u, condition)
        if self.semigroup_every is not None:
            action_u, target_start = self._jump_on_some_rows(
                flow_map, teacher, inputs, times, action_t, action_u
            )
        target = teacher(action_u, target_start.to(action.dtype), s, condition)
        reached = flow_map(action_t, t, s, condition)
        if self.at_data:
            zero = torch.zeros_like(s)
            target = teacher(target, s, zero, condition)
            reached = teacher.through(reached, s, zero, condition)

        squared_weight: TimeWeight = "none" if self.time_weight == "gap" else self.time_weight
        error = weighted_square(
            reached - target, times.t, flow_map.sigma_data, squared_weight, inputs.valid
        )
        num_dims = num_valid(action, inputs.valid)
        if self.huber is not None:
            bend = self.huber * num_dims**0.5
            error = (error + bend**2).sqrt() - bend
        if self.time_weight == "gap":
            error = error / (times.t - times.u).squeeze(-1)
        if self.robust_power:
            error = error * robust_weight(error / num_dims, self.robust_power)
        return error

    def _solve(
        self,
        flow_map: FlowMap,
        teacher: Teacher,
        action_t: Tensor,
        t: Tensor,
        u: Tensor,
        condition: Tensor | None,
    ) -> Tensor:
        dtype, steps = action_t.dtype, self.solver_steps

        def denoiser(action: Tensor, level: Tensor) -> Tensor:
            return teacher.denoise(action.to(dtype), level.to(dtype), condition)

        levels = flow_map.noise_levels.between(at_least_single(t), at_least_single(u), steps)
        with torch.no_grad():
            return solve_ode(denoiser, action_t, levels, self.solver or "heun").to(dtype)

    def _jump_on_some_rows(
        self,
        flow_map: FlowMap,
        teacher: Teacher,
        inputs: TermInputs,
        times: FlowMapTimes,
        action_t: Tensor,
        action_u: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Replaces a_u and u on some rows by a frozen jump from a_t, and by where it ends."""
        leading = action_t.shape[:-1]
        noisy, t, s, u, share, source = (
            rows_of(entry.expand(*leading, entry.shape[-1]))
            for entry in (action_t, times.t, times.s, times.u, inputs.draws["middle"], action_u)
        )
        rows = one_of_each(self.semigroup_every or 1, rows_of(inputs.draws["row_rank"])[:, 0])
        condition = None if inputs.condition is None else rows_of(inputs.condition)[rows]

        t, s = t[rows], s[rows]
        lowest = torch.minimum(s.clamp_min(flow_map.noise_levels.sigma_min), t)
        middle = torch.exp(torch.lerp(lowest.log(), t.log(), share[rows].to(t.dtype)))
        # Rounding must not carry it beyond either.
        middle = torch.minimum(torch.maximum(middle, lowest), t)
        dtype = action_t.dtype
        reached = teacher(noisy[rows], t.to(dtype), middle.to(dtype), condition)
        return (
            source.index_copy(0, rows, reached.to(source.dtype)).reshape(action_u.shape),
            u.index_copy(0, rows, middle.to(u.dtype)).reshape(*leading, 1),
        )
