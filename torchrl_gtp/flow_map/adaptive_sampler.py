"""As many jumps for each sample as a tolerance asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from torchrl_gtp.flow_map.flow_map import FlowMap
from torchrl_gtp.flow_map.jump_error import rms_distance
from torchrl_gtp.flow_map.samplers import JumpSampler

__all__ = ["AdaptiveSampler"]


@dataclass(frozen=True)
class AdaptiveSampler:
    """Doubles the number of jumps, for each sample, until the action stays within a tolerance.

    From one noise it samples with 1, 2, 4, ... jumps, of which ``num_steps`` = K is the most: the
    numbers are K, K // 2, K // 4, ..., 1 in rising order. A sample is finished when it moves by no
    more than the tolerance, and the finer of both is kept. So K has to be at least 4 for a choice;
    below, these are K plain jumps. The result of a sample does not depend on the others in its
    batch.

    Nothing is read on the host, so that the sampler compiles and can be captured in a CUDA graph;
    then all samples cost the most. With ``skip_finished`` only unfinished samples are evaluated
    further, which saves what the tolerance spares; it reads one tensor on the host for each
    number of jumps. Compiled or captured code falls back to all samples, with the same result.

    Args:
        tolerance (float): the largest change of an action when the number of jumps doubles, as
            root mean square over its dimensions, in the units of actions. Defaults to ``0.05``.
        skip_finished (bool): whether finished samples are left out of further evaluations.
            Defaults to ``False``.

    Raises:
        ValueError: if ``tolerance`` is not finite and positive.

    Examples:
        >>> from torchrl_gtp.flow_map import MLPBackbone
        >>> flow_map = FlowMap(MLPBackbone(action_dim=2))
        >>> sampler = AdaptiveSampler(tolerance=0.05, skip_finished=True)
        >>> sampler.evaluations(num_steps=8)  # 1 + 2 + 4 + 8
        15
        >>> action, evaluations = sampler.sample_with_evaluations(
        ...     flow_map, torch.randn(100, 2), None, num_steps=8
        ... )
        >>> action.shape, evaluations.shape
        (torch.Size([100, 2]), torch.Size([100, 1]))
    """

    tolerance: float = 0.05
    skip_finished: bool = False

    def __post_init__(self) -> None:
        """Checks the options."""
        if not 0.0 < self.tolerance < math.inf:
            raise ValueError(
                f"tolerance must be a finite distance between actions above 0, got "
                f"{self.tolerance}."
            )

    def evaluations(self, num_steps: int) -> int:
        """Returns the most network evaluations of a sample: less than 2 K."""
        return sum(_numbers_of_jumps(num_steps))

    def __call__(
        self,
        flow_map: FlowMap,
        noise: Tensor,
        condition: Tensor | None,
        num_steps: int,
        *,
        start: Tensor | None = None,
        start_level: float | Tensor | None = None,
        bounds: tuple[Tensor, Tensor] | None = None,
        stochastic: bool = True,
    ) -> Tensor:
        """Takes noise to data; see :class:`Sampler`."""
        return self.sample_with_evaluations(
            flow_map,
            noise,
            condition,
            num_steps,
            start=start,
            start_level=start_level,
            bounds=bounds,
        )[0]

    def sample_with_evaluations(
        self,
        flow_map: FlowMap,
        noise: Tensor,
        condition: Tensor | None,
        num_steps: int,
        *,
        start: Tensor | None = None,
        start_level: float | Tensor | None = None,
        bounds: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Takes noise to data, and counts the network evaluations that each sample needed.

        Args:
            flow_map (FlowMap): the flow map.
            noise (Tensor): standard normal noise [..., A].
            condition (Tensor, optional): condition [..., C].
            num_steps (int): the most jumps K.
            start (Tensor, optional): actions [..., A] for a warm start from ``start + t z``.
            start_level (float or Tensor, optional): its noise level t, [] or [..., 1].
            bounds (pair of Tensor, optional): the bounds of an action, each [A]: what lies beyond
                does not count as a change.

        Returns:
            tuple of Tensor: actions [..., A], not clamped, and the evaluations [..., 1], integers.
        """
        first, *more = _numbers_of_jumps(num_steps)
        noises, batch = _Noises.flattened(noise, condition, start, start_level)
        action = noises.jump(flow_map, first)
        spent = torch.full_like(action[:, :1], first, dtype=torch.int64)
        refine = self._refine_some if self._can_skip(noise.device) else self._refine_all
        action, spent = refine(flow_map, noises, action, spent, more, bounds)
        return action.reshape(*batch, noise.shape[-1]), spent.reshape(*batch, 1)

    def _can_skip(self, device: torch.device) -> bool:
        # How many samples are left is unknown to a compiler and to a CUDA graph.
        if not self.skip_finished or torch.compiler.is_compiling():
            return False
        return device.type != "cuda" or not torch.cuda.is_current_stream_capturing()

    def _is_finished(
        self, finer: Tensor, coarser: Tensor, bounds: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        if bounds is not None:
            finer, coarser = finer.clamp(*bounds), coarser.clamp(*bounds)
        return rms_distance(finer, coarser) <= self.tolerance

    def _refine_all(
        self,
        flow_map: FlowMap,
        noises: _Noises,
        action: Tensor,
        spent: Tensor,
        numbers: list[int],
        bounds: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        finished = torch.zeros_like(spent, dtype=torch.bool)
        for number in numbers:
            finer = noises.jump(flow_map, number)
            now_finished = finished | self._is_finished(finer, action, bounds)
            action = torch.where(finished, action, finer)
            spent = torch.where(finished, spent, spent + number)
            finished = now_finished
        return action, spent

    def _refine_some(
        self,
        flow_map: FlowMap,
        noises: _Noises,
        action: Tensor,
        spent: Tensor,
        numbers: list[int],
        bounds: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        rows = torch.arange(len(action), device=action.device)
        for number in numbers:
            finer = noises.jump(flow_map, number)
            unfinished = ~self._is_finished(finer, action[rows], bounds).squeeze(-1)
            action = action.index_copy(0, rows, finer)
            spent = spent.index_copy(0, rows, spent[rows] + number)
            rows, noises = rows[unfinished], noises.select(unfinished)
            if len(rows) == 0:
                break
        return action, spent


def _numbers_of_jumps(most: int) -> tuple[int, ...]:
    numbers = [most]
    while numbers[0] > 1:
        numbers.insert(0, numbers[0] // 2)
    # The finer of the first two is kept in any case: with no third there is nothing to decide.
    return tuple(numbers) if len(numbers) > 2 else (most,)


class _Noises(NamedTuple):
    """What jumps start from, one row for each sample; a level that is no row is of all samples."""

    noise: Tensor
    condition: Tensor | None
    start: Tensor | None
    start_level: float | Tensor | None

    @classmethod
    def flattened(
        cls,
        noise: Tensor,
        condition: Tensor | None,
        start: Tensor | None,
        start_level: float | Tensor | None,
    ) -> tuple[_Noises, torch.Size]:
        """Broadcasts all to one batch and makes one dimension of it; returns its shape, too."""
        level = start_level if isinstance(start_level, Tensor) and start_level.ndim > 0 else None
        rows = [each for each in (noise, condition, start, level) if each is not None]
        batch = torch.broadcast_shapes(*(each.shape[:-1] for each in rows))

        def flat(each: Tensor) -> Tensor:
            return each.expand(*batch, -1).reshape(math.prod(batch), each.shape[-1])

        flattened = cls(
            flat(noise),
            None if condition is None else flat(condition),
            None if start is None else flat(start),
            start_level if level is None else flat(level),
        )
        return flattened, batch

    def select(self, mask: Tensor) -> _Noises:
        """Keeps the rows of a mask [N]."""
        level = self.start_level
        return _Noises(
            self.noise[mask],
            None if self.condition is None else self.condition[mask],
            None if self.start is None else self.start[mask],
            level[mask] if isinstance(level, Tensor) and level.ndim > 0 else level,
        )

    def jump(self, flow_map: FlowMap, num_steps: int) -> Tensor:
        """Takes all to data in K jumps."""
        return JumpSampler()(
            flow_map,
            self.noise,
            self.condition,
            num_steps,
            start=self.start,
            start_level=self.start_level,
        )
