"""Random times (t, u, s) for the training of a flow map."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from torchrl_gtp.flow_map.noise_levels import (
    NoiseLevels,
    doubling_curriculum,
    square_root_curriculum,
)
from torchrl_gtp.flow_map.precision import at_least_single

__all__ = [
    "FlowMapTimes",
    "KarrasGridTimes",
    "LogNormalTimes",
    "StartSampler",
    "TimeSampler",
]


class FlowMapTimes(NamedTuple):
    """Three noise levels ``t > u >= s`` for one consistency term, each of shape [..., 1].

    Attributes:
        t: where the trained map starts.
        u: where the teacher's map starts.
        s: where both maps end.
    """

    t: Tensor
    u: Tensor
    s: Tensor


class StartSampler(Protocol):
    """What a denoising term needs of a time sampler: a function of tensors, without state.

    A sampler turns uniform draws into times and draws nothing itself. So the same draws give the
    same times in eager, compiled and captured code, while the schedule goes on.

    Draws and times are of single precision at least, also in a loss of half precision, which could
    not tell neighbouring times apart.
    """

    def start(self, uniform: Tensor, progress: Tensor, noise_levels: NoiseLevels) -> Tensor:
        """Gives ``t`` alone from draws [..., 1]; the other arguments are those of a call."""
        ...


class TimeSampler(StartSampler, Protocol):
    """What a consistency term needs of a time sampler: all three times."""

    def __call__(
        self, uniform: Tensor, progress: Tensor, noise_levels: NoiseLevels
    ) -> FlowMapTimes:
        """Turns uniform draws into times.

        Args:
            uniform (Tensor): draws [..., 2] from the uniform distribution on [0, 1), the first
                for ``t``, the second for ``s``.
            progress (Tensor): share of training done, a scalar tensor in [0, 1].
            noise_levels (NoiseLevels): the range of noise levels.
        """
        ...


def check_time_sampler(time_sampler: object, *, start_only: bool = False) -> None:
    """Raises a ``TypeError`` unless it gives the three times of a term, or t where that will do."""
    method, times = ("start", "t") if start_only else ("__call__", "(t, u, s)")
    if isinstance(time_sampler, type) or not callable(getattr(time_sampler, method, None)):
        raise TypeError(
            f"time_sampler must give {times} by a method {method}, got {time_sampler!r}: take an "
            "object such as LogNormalTimes() or KarrasGridTimes()."
        )


@dataclass(frozen=True)
class KarrasGridTimes:
    """Neighbouring nodes of a Karras grid that grows over training: the paper's setting.

    ``t`` is a uniformly drawn node of the grid with ``N(k)`` nodes, ``u`` its neighbour towards
    the data, and ``s`` a uniformly drawn node beyond ``u``, the data (``s = 0``) included. With
    ``log_normal=(-1.1, 2.0)`` and ``end="data"`` these are the times of improved consistency
    training (arXiv 2310.14189).

    Args:
        first (int): intervals at the start of training. Defaults to ``10``.
        last (int): intervals at the end of training; ``first`` times a power of two where they
            double. Defaults to ``1280``.
        log_normal (pair of float, optional): mean and standard deviation of the noise level's
            logarithm; ``t`` is then the upper end of the interval of the grid in which a
            log-normal level falls. Defaults to ``None``: all nodes alike.
        end ("uniform" or "data"): where ``s`` falls: on a node beyond ``u``, or always at 0 (a
            consistency model). Defaults to ``"uniform"``.
        growth ("doubling" or "square_root"): how the number of intervals grows; see
            :func:`~torchrl_gtp.flow_map.doubling_curriculum` and
            :func:`~torchrl_gtp.flow_map.square_root_curriculum`. Consistency-AC (arXiv 2309.16984)
            has ``KarrasGridTimes(1, 149, end="data", growth="square_root")``. Defaults to
            ``"doubling"``.

    Raises:
        ValueError: if ``last / first`` is not a power of two where the intervals double, or for
            options outside the ranges above.

    Examples:
        >>> times = KarrasGridTimes()(torch.rand(8, 2), torch.tensor(0.0), NoiseLevels())
        >>> times.t.shape, bool((times.t > times.u).all()), bool((times.u > times.s).all())
        (torch.Size([8, 1]), True, True)
    """

    first: int = 10
    last: int = 1280
    log_normal: tuple[float, float] | None = None
    end: Literal["uniform", "data"] = "uniform"
    growth: Literal["doubling", "square_root"] = "doubling"

    def __post_init__(self) -> None:
        """Checks the options."""
        if self.growth not in ("doubling", "square_root"):
            raise ValueError(f"growth must be 'doubling' or 'square_root', got {self.growth!r}.")
        self._num_nodes(torch.zeros(()), torch.zeros(()))
        if self.log_normal is not None:
            mean, std = self.log_normal
            if not (math.isfinite(mean) and 0.0 < std < math.inf):
                raise ValueError(
                    "log_normal must be a finite mean and a positive standard deviation, got "
                    f"{self.log_normal}."
                )
        if self.end not in ("uniform", "data"):
            raise ValueError(f"end must be 'uniform' or 'data', got {self.end!r}.")

    def __call__(
        self, uniform: Tensor, progress: Tensor, noise_levels: NoiseLevels
    ) -> FlowMapTimes:
        """Turns uniform draws into times; see :class:`TimeSampler`."""
        uniform = at_least_single(uniform)
        num_nodes = self._num_nodes(uniform, progress)
        t_node = self._start_node(uniform[..., :1], num_nodes, noise_levels)
        u_node = t_node + 1
        t = noise_levels.at(t_node / (num_nodes - 1))
        u = noise_levels.at(u_node / (num_nodes - 1))
        if self.end == "data":
            return FlowMapTimes(t, u, torch.zeros_like(u))
        # Node N - 1 is sigma_min and node N the data itself. Both draws of nodes are clamped,
        # because ``uniform * n`` may round up to n.
        num_below = num_nodes - u_node
        s_node = u_node + 1 + (uniform[..., 1:] * num_below).floor()
        s_node = torch.minimum(s_node, num_nodes)
        s = noise_levels.at((s_node / (num_nodes - 1)).clamp_max(1.0))
        return FlowMapTimes(t, u, torch.where(s_node == num_nodes, torch.zeros_like(s), s))

    def start(self, uniform: Tensor, progress: Tensor, noise_levels: NoiseLevels) -> Tensor:
        """Gives ``t`` alone; see :class:`TimeSampler`."""
        uniform = at_least_single(uniform)
        num_nodes = self._num_nodes(uniform, progress)
        node = self._start_node(uniform, num_nodes, noise_levels)
        return noise_levels.at(node / (num_nodes - 1))

    def _num_nodes(self, uniform: Tensor, progress: Tensor) -> Tensor:
        doubling = self.growth == "doubling"
        curriculum = doubling_curriculum if doubling else square_root_curriculum
        num_nodes = curriculum(at_least_single(progress), self.first, self.last)
        return num_nodes.to(uniform.dtype)

    def _start_node(self, uniform: Tensor, num_nodes: Tensor, noise_levels: NoiseLevels) -> Tensor:
        position = uniform
        if self.log_normal is not None:
            mean, std = self.log_normal
            bounds = noise_levels.sigma_min, noise_levels.sigma_max
            below, above = (
                0.5 * (1 + math.erf((math.log(bound) - mean) / (std * math.sqrt(2))))
                for bound in bounds
            )
            level = _log_normal(below + (above - below) * uniform, mean, std)
            position = noise_levels.position(level.clamp(*bounds))
        return (position * (num_nodes - 1)).floor().minimum(num_nodes - 2)


@dataclass(frozen=True)
class LogNormalTimes:
    """Log-normal ``t`` with a relative gap to ``u`` that shrinks over training.

    ``t = exp(N(mean, std))`` clamped to the range of noise levels, ``u = (1 - gap) t`` where the
    gap goes geometrically from ``first_gap`` to ``last_gap``, and ``s`` below ``u``.

    Args:
        mean (float): mean of ``ln t``. Defaults to ``-1.2`` (arXiv 2206.00364).
        std (float): standard deviation of ``ln t``. Defaults to ``1.2``.
        first_gap (float): ``1 - u / t`` at the start of training. Defaults to ``0.5``.
        last_gap (float): ``1 - u / t`` at the end of training. Defaults to ``0.02``.
        end ("log_uniform", "cubic", "uniform" or "data"): where ``s`` falls: log-uniformly between
            ``sigma_min`` and ``u``; at ``u`` times the cube of a uniform draw, or times the draw
            itself, which both reach below ``sigma_min``; or always at 0 (a consistency model).
            Defaults to ``"log_uniform"``.

    Raises:
        ValueError: if a gap lies outside (0, 1), ``std`` is not positive, or ``end`` is none of
            the above.

    Examples:
        >>> times = LogNormalTimes()(torch.rand(8, 2), torch.tensor(1.0), NoiseLevels())
        >>> torch.allclose(times.u, 0.98 * times.t), bool((times.u >= times.s).all())
        (True, True)
    """

    mean: float = -1.2
    std: float = 1.2
    first_gap: float = 0.5
    last_gap: float = 0.02
    end: Literal["log_uniform", "cubic", "uniform", "data"] = "log_uniform"

    def __post_init__(self) -> None:
        """Checks the options."""
        if not (math.isfinite(self.mean) and 0.0 < self.std < math.inf):
            raise ValueError(
                f"mean must be finite and std positive, got mean={self.mean} and std={self.std}."
            )
        for name in ("first_gap", "last_gap"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(
                    f"{name} must lie strictly between 0 and 1, got {getattr(self, name)}."
                )
        if self.end not in ("log_uniform", "cubic", "uniform", "data"):
            raise ValueError(
                f"end must be 'log_uniform', 'cubic', 'uniform' or 'data', got {self.end!r}."
            )

    def __call__(
        self, uniform: Tensor, progress: Tensor, noise_levels: NoiseLevels
    ) -> FlowMapTimes:
        """Turns uniform draws into times; see :class:`TimeSampler`."""
        uniform, progress = at_least_single(uniform), at_least_single(progress)
        t = self.start(uniform[..., :1], progress, noise_levels)
        gap = self.first_gap * (self.last_gap / self.first_gap) ** progress.clamp(0, 1)
        u = t * (1 - gap.to(t.dtype))
        if self.end == "data":
            return FlowMapTimes(t, u, torch.zeros_like(u))
        position = uniform[..., 1:]
        if self.end in ("cubic", "uniform"):
            share = position**3 if self.end == "cubic" else position
            return FlowMapTimes(t, u, share * u)
        log_min = math.log(noise_levels.sigma_min)
        s = torch.exp(log_min + position * (u.log() - log_min))
        # Below sigma_min the log-uniform draw turns round: u itself is the bound there.
        return FlowMapTimes(t, u, torch.minimum(s, u))

    def start(self, uniform: Tensor, progress: Tensor, noise_levels: NoiseLevels) -> Tensor:
        """Gives ``t`` alone; see :class:`TimeSampler`."""
        t = _log_normal(at_least_single(uniform), self.mean, self.std)
        return t.clamp(noise_levels.sigma_min, noise_levels.sigma_max)


def _log_normal(uniform: Tensor, mean: float, std: float) -> Tensor:
    """The log-normal level at a quantile in [0, 1]."""
    return torch.exp(mean + std * torch.special.ndtri(uniform))
