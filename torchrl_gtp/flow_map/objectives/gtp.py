"""The objective of generative trajectory policies (arXiv 2510.11499)."""

from __future__ import annotations

from typing import Literal

from torchrl_gtp.flow_map.errors import TimeWeight
from torchrl_gtp.flow_map.objectives.base import Objective, Term
from torchrl_gtp.flow_map.objectives.consistency import Consistency
from torchrl_gtp.flow_map.objectives.denoising import Denoising
from torchrl_gtp.flow_map.time_sampling import KarrasGridTimes, LogNormalTimes, TimeSampler

__all__ = ["gtp_objective"]

_TIME_SAMPLERS: dict[str, type[LogNormalTimes | KarrasGridTimes]] = {
    "log_normal": LogNormalTimes,
    "karras_grid": KarrasGridTimes,
}


def gtp_objective(
    time_sampler: Literal["log_normal", "karras_grid"] | TimeSampler = "log_normal",
    time_weight: TimeWeight = "edm",
    robust_power: float = 1.0,
    teacher: Literal["current", "ema"] = "current",
    lambda_flow: float = 3.0,
    semigroup_every: int | None = 8,
) -> Objective:
    """Returns the terms of the paper, consistency and denoising.

    The paper's consistency is by the closed form alone; the default is not.

    Args:
        time_sampler ("log_normal", "karras_grid" or TimeSampler): gives the times (t, u, s) of
            both terms. Defaults to ``"log_normal"``.
        time_weight ("edm", "noise", "velocity" or "none"): weight of a squared error over noise
            levels. Defaults to ``"edm"``.
        robust_power (float): exponent of the adaptive weight of the consistency errors. Defaults
            to ``1.0``.
        teacher ("current" or "ema"): which parameters make the targets. Defaults to
            ``"current"``.
        lambda_flow (float): factor of the denoising term. Defaults to ``3.0``.
        semigroup_every (int, optional): one of so many rows of a batch is compared with two frozen
            jumps in the consistency term (not in the paper); see :class:`Consistency`. ``None``:
            no row, as printed. Defaults to ``8``.

    Returns:
        Objective: the terms ``"consistency"`` and ``"flow"``.

    Raises:
        ValueError: for a name or a number that is not accepted.
        TypeError: if ``time_sampler`` gives no (t, u, s).

    Examples:
        >>> gtp_objective(time_weight="none").terms["flow"].time_weight
        'none'
    """
    if isinstance(time_sampler, str):
        if time_sampler not in _TIME_SAMPLERS:
            raise ValueError(
                f"time_sampler must be one of {sorted(_TIME_SAMPLERS)} or a TimeSampler, got "
                f"{time_sampler!r}."
            )
        time_sampler = _TIME_SAMPLERS[time_sampler]()
    terms: dict[str, Term] = {
        "consistency": Consistency(
            time_sampler, time_weight, robust_power, semigroup_every=semigroup_every
        ),
        "flow": Denoising(time_sampler, time_weight),
    }
    return Objective(terms, teacher, lambda_flow)
