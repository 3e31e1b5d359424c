"""The family: every generative policy as an objective and a sampler of one flow map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

from torchrl_gtp.flow_map.linear_path import LinearPathTimes
from torchrl_gtp.flow_map.noise_levels import NoiseLevels
from torchrl_gtp.flow_map.objectives import (
    Consistency,
    Denoising,
    MeanFlow,
    Objective,
    Shortcut,
    Term,
    gtp_objective,
)
from torchrl_gtp.flow_map.paired_times import PairedLogNormalTimes
from torchrl_gtp.flow_map.samplers import JumpSampler, OdeSampler, Sampler
from torchrl_gtp.flow_map.stochastic_samplers import AncestralSampler, ConsistencySampler
from torchrl_gtp.flow_map.time_sampling import KarrasGridTimes, LogNormalTimes
from torchrl_gtp.flow_map.vp_schedule import VPSchedule

__all__ = ["FamilyMember", "FamilyName", "family"]

FamilyName = Literal[
    "diffusion",
    "ddpm",
    "flow_matching",
    "consistency",
    "consistency_distillation",
    "ctm",
    "gtp",
    "gtp_distillation",
    "paper",
    "shortcut",
    "mean_flow",
]


class FamilyMember(NamedTuple):
    """How one generative policy trains and samples.

    Attributes:
        objective: what trains the flow map, for ``GTPLoss(actor, objective=...)``.
        sampler: how it acts, for ``make_gtp_actor(..., sampler=...)``.
        noise_levels: the range of noise levels, for ``make_gtp_actor(..., noise_levels=...)``.
    """

    objective: Objective
    sampler: Sampler
    noise_levels: NoiseLevels = NoiseLevels()


def _diffusion() -> FamilyMember:
    """EDM (arXiv 2206.00364)."""
    return FamilyMember(Objective({"flow": Denoising()}), OdeSampler("heun"))


def _ddpm() -> FamilyMember:
    """The policy of Diffusion-QL (arXiv 2208.06193): five levels, the error of the noise."""
    schedule = VPSchedule(num_levels=5)
    return FamilyMember(
        Objective({"flow": Denoising(schedule, "noise")}), AncestralSampler(schedule)
    )


def _flow_matching() -> FamilyMember:
    """Conditional flow matching (arXiv 2210.02747): the error of the velocity."""
    denoising = Denoising(LinearPathTimes(), "velocity")
    return FamilyMember(Objective({"flow": denoising}), OdeSampler("euler", spacing="linear"))


def _consistency() -> FamilyMember:
    """Improved consistency training (arXiv 2310.14189): s = 0, and u next to t."""
    times = KarrasGridTimes(log_normal=(-1.1, 2.0), end="data")
    consistency = Consistency(times, "gap", robust_power=0.0, huber=0.00054)
    return FamilyMember(Objective({"consistency": consistency}), ConsistencySampler())


def _consistency_distillation() -> FamilyMember:
    """Consistency distillation (arXiv 2303.01469): a_u by a solver on a trained denoiser."""
    # The published targets are those of a moving average, teacher="ema".
    times = KarrasGridTimes(first=18, last=18, end="data")
    consistency = Consistency(times, "edm", robust_power=0.0, solver="heun")
    return FamilyMember(Objective({"consistency": consistency}), ConsistencySampler())


def _ctm() -> FamilyMember:
    """Consistency trajectory models (arXiv 2310.02279): a_u by a solver, compared at time 0."""
    # A solver's a_u lies on the trajectory, so the gap need not shrink.
    times = LogNormalTimes(first_gap=0.5, last_gap=0.5)
    consistency = Consistency(times, "edm", robust_power=0.0, solver="heun", at_data=True)
    terms: dict[str, Term] = {"consistency": consistency, "flow": Denoising()}
    return FamilyMember(Objective(terms, "ema"), JumpSampler())


def _gtp() -> FamilyMember:
    """Generative trajectory policies (arXiv 2510.11499), with the defaults of ``GTPLoss``."""
    return FamilyMember(gtp_objective(), JumpSampler())


def _gtp_distillation() -> FamilyMember:
    """The same with a_u by a solver on a trained denoiser, which is not in the paper."""
    # A solver's targets carry no noise: the gap need not shrink, and their errors are so small that
    # they need the robust weight beside the flow term. That starves a denoiser in training.
    times = LogNormalTimes(first_gap=0.2, last_gap=0.2)
    consistency = Consistency(times, solver="heun")
    terms: dict[str, Term] = {"consistency": consistency, "flow": Denoising()}
    return FamilyMember(Objective(terms, trained_denoiser=True), JumpSampler())


def _paper() -> FamilyMember:
    """GTP as printed."""
    objective = gtp_objective(
        "karras_grid", "none", 0.0, teacher="ema", lambda_flow=1.0, semigroup_every=None
    )
    return FamilyMember(objective, JumpSampler(), NoiseLevels(sigma_max=80.0))


def _shortcut() -> FamilyMember:
    """Shortcut models (arXiv 2410.12557): one jump against two frozen half jumps."""
    terms: dict[str, Term] = {
        "consistency": Shortcut(),
        "flow": Denoising(LinearPathTimes(), "velocity"),
    }
    return FamilyMember(Objective(terms, "ema"), JumpSampler(spacing="linear"))


def _mean_flow() -> FamilyMember:
    """Mean flow (arXiv 2505.13447): an identity in the place of a teacher."""
    # With the published spread 0.7 % of the samples reach sigma_max, where sampling starts.
    mean_flow = MeanFlow(PairedLogNormalTimes(std=2.0))
    return FamilyMember(Objective({"mean_flow": mean_flow}), JumpSampler(spacing="linear"))


_MEMBERS: dict[str, Callable[[], FamilyMember]] = {
    "diffusion": _diffusion,
    "ddpm": _ddpm,
    "flow_matching": _flow_matching,
    "consistency": _consistency,
    "consistency_distillation": _consistency_distillation,
    "ctm": _ctm,
    "gtp": _gtp,
    "gtp_distillation": _gtp_distillation,
    "paper": _paper,
    "shortcut": _shortcut,
    "mean_flow": _mean_flow,
}


def family(name: FamilyName) -> FamilyMember:
    """Returns the objective, the sampler and the noise levels of a generative policy.

    All of them train the same flow map and are weighted by a critic in the same way.
    ``"consistency_distillation"`` and ``"gtp_distillation"`` need a trained denoiser:
    ``GTPLoss(..., denoiser_network=trained_actor)``.

    Args:
        name (str): ``"diffusion"``, ``"ddpm"``, ``"flow_matching"``, ``"consistency"``,
            ``"consistency_distillation"``, ``"ctm"``, ``"gtp"``, ``"gtp_distillation"``,
            ``"paper"``, ``"shortcut"`` or ``"mean_flow"``.

    Returns:
        FamilyMember: ``(objective, sampler, noise_levels)``.

    Raises:
        ValueError: for another name.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import GTPLoss, make_gtp_actor, make_qvalue
        >>> objective, sampler, noise_levels = family("shortcut")
        >>> actor = make_gtp_actor(
        ...     4, Bounded(-1, 1, (2,)), sampler=sampler, noise_levels=noise_levels
        ... )
        >>> loss = GTPLoss(actor, make_qvalue(4, 2), objective=objective)
        >>> loss.out_keys[:3]
        ['loss_consistency', 'loss_flow', 'loss_qvalue']
    """
    if name not in _MEMBERS:
        raise ValueError(f"name must be one of {list(get_args(FamilyName))}, got {name!r}.")
    return _MEMBERS[name]()
