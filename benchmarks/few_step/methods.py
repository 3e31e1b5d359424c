"""The methods by name, and variants of some of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmarks.few_step.method import Distilled, Method
from torchrl_gtp import NoiseLevels
from torchrl_gtp.flow_map import (
    Consistency,
    JumpSampler,
    KarrasGridTimes,
    LogNormalTimes,
    OdeSampler,
    Sampler,
    SomeRows,
    family,
    gtp_objective,
)
from torchrl_gtp.flow_map.family import FamilyName

__all__ = ["ALL_METHODS", "METHODS", "VARIANTS"]


def _member(
    name: FamilyName,
    sampler_name: str,
    more: Mapping[str, Sampler] | None = None,
    *,
    most_steps: int | None = None,
    lr: float | None = None,
) -> Method:
    objective, sampler, noise_levels = family(name)
    samplers = {sampler_name: sampler, **(more or {})}
    return Method(objective, samplers, noise_levels, most_steps, lr)


# Jumps that leave part of the way to fresh noise, as CTM's.
_NOISED = {"gamma=0.9": JumpSampler(gamma=0.9)}

_DIFFUSION = _member("diffusion", "heun", {"euler": OdeSampler("euler")})


def _distilled(method: Method) -> Method:
    """The method from a denoiser that is trained with half of the evaluations."""
    return Distilled(**vars(method), denoiser=_DIFFUSION, denoiser_share=0.5)


METHODS: dict[str, Method] = {
    "gtp": _member("gtp", "jumps", {**_NOISED, "heun": OdeSampler("heun")}),
    "gtp_distillation": _distilled(_member("gtp_distillation", "jumps", _NOISED)),
    "paper": _member("paper", "jumps"),
    "diffusion": _DIFFUSION,
    # Trained on five levels, so that there are no more steps.
    "ddpm": _member("ddpm", "ddpm", most_steps=5),
    "flow_matching": _member("flow_matching", "euler", {"heun": OdeSampler("heun", "linear")}),
    # At 3e-3 it collapses on grid, checkerboard and moons (docs/few_step_log.md).
    "consistency": _member("consistency", "consistency", lr=1e-3),
    "consistency_distillation": _distilled(_member("consistency_distillation", "consistency")),
    "ctm": _member("ctm", "jumps", _NOISED),
    "shortcut": _member("shortcut", "jumps"),
    "mean_flow": _member("mean_flow", "jumps"),
}
"""Those of :func:`~torchrl_gtp.flow_map.family`."""


def _variant(noise_levels: NoiseLevels | None = None, **options: Any) -> Method:
    return dataclasses.replace(
        METHODS["gtp"],
        objective=gtp_objective(**options),
        noise_levels=noise_levels or NoiseLevels(),
    )


def _changed(name: str, **changes: Any) -> Method:
    return dataclasses.replace(METHODS[name], **changes)


def _with_consistency(name: str, **options: Any) -> Method:
    objective = METHODS[name].objective
    term = objective.terms["consistency"]
    assert isinstance(term, Consistency)
    terms = {**objective.terms, "consistency": dataclasses.replace(term, **options)}
    return _changed(name, objective=dataclasses.replace(objective, terms=terms))


def _on_some_rows(every: int, semigroup_every: int = 8, **changes: Any) -> Method:
    objective = gtp_objective(semigroup_every=semigroup_every)
    terms = dict(objective.terms)
    terms["consistency"] = SomeRows(terms["consistency"], every)
    return _changed("gtp", objective=dataclasses.replace(objective, terms=terms), **changes)


def _at(**times: Any) -> Method:
    return _variant(time_sampler=LogNormalTimes(**times))


_EDM = {"heun": OdeSampler("heun", "edm"), "euler": OdeSampler("euler", "edm")}

VARIANTS: dict[str, Method] = {
    "gtp:teacher=ema": _variant(teacher="ema"),
    "gtp:time_weight=none": _variant(time_weight="none"),
    "gtp:robust_power=0": _variant(robust_power=0.0),
    "gtp:robust_power=0.5": _variant(robust_power=0.5),
    "gtp:lambda_flow=1": _variant(lambda_flow=1.0),
    "gtp:lambda_flow=10": _variant(lambda_flow=10.0),
    "gtp:sigma_max=3": _variant(NoiseLevels(sigma_max=3.0)),
    "gtp:sigma_max=5": _variant(NoiseLevels(sigma_max=5.0)),
    "gtp:sigma_max=10": _variant(NoiseLevels(sigma_max=10.0)),
    "gtp:sigma_max=80": _variant(NoiseLevels(sigma_max=80.0)),
    "gtp:karras_grid": _variant(time_sampler=KarrasGridTimes()),
    "gtp:std=1": _at(std=1.0),
    "gtp:std=1.6": _at(std=1.6),
    "gtp:mean=-0.8,std=1.6": _at(mean=-0.8, std=1.6),
    "gtp:end=uniform": _at(end="uniform"),
    "gtp:end=data": _at(end="data"),
    "gtp:first_gap=0.1": _at(first_gap=0.1),
    "gtp:last_gap=0.1": _at(last_gap=0.1),
    "gtp:last_gap=0.005": _at(last_gap=0.005),
    "gtp:semigroup_every=none": _variant(semigroup_every=None),
    "gtp:semigroup_every=4": _variant(semigroup_every=4),
    # The common learning rate was chosen at a third of the default's updates.
    "gtp:lr=2e-3": _changed("gtp", lr=2e-3),
    "gtp:lr=2e-3,some_rows=4": _on_some_rows(4, lr=2e-3),
    # As many rows are compared with two jumps as by default.
    "gtp:some_rows=2,semigroup_every=4": _on_some_rows(2, semigroup_every=4),
    # For --lr 1e-3 --muon-lr 0.02: the map has twice these rates, which the denoiser would not
    # bear. The flow term keeps its times.
    "gtp_distillation:end=cubic,std=1.6,lr=2e-3": dataclasses.replace(
        _with_consistency(
            "gtp_distillation",
            time_sampler=LogNormalTimes(std=1.6, first_gap=0.2, last_gap=0.2, end="cubic"),
        ),
        lr=2e-3,
    ),
    # Not GTP any more: a_u comes from the denoiser in the place of the data and their noise.
    "gtp:solver=euler": _with_consistency("gtp", solver="euler"),
    # The library's sigma_max of 3 was chosen for GTP.
    "diffusion:sigma_max=10": _changed("diffusion", noise_levels=NoiseLevels(sigma_max=10.0)),
    "diffusion:sigma_max=80": _changed("diffusion", noise_levels=NoiseLevels(sigma_max=80.0)),
    "flow_matching:sigma_max=10": _changed(
        "flow_matching", noise_levels=NoiseLevels(sigma_max=10.0)
    ),
    "ctm:sigma_max=10": _changed("ctm", noise_levels=NoiseLevels(sigma_max=10.0)),
    "ctm:at_data=false": _with_consistency("ctm", at_data=False),
    # So was the common learning rate.
    **{
        f"{name}:lr=1e-3": _changed(name, lr=1e-3)
        for name in ("diffusion", "ddpm", "flow_matching", "ctm", "shortcut", "mean_flow")
    },
    # As published, EDM's last level before 0 is sigma_min, and its noise begins at 80.
    "diffusion:spacing=edm": _changed("diffusion", samplers=_EDM),
    "diffusion:sigma_max=80,spacing=edm": _changed(
        "diffusion", noise_levels=NoiseLevels(sigma_max=80.0), samplers=_EDM
    ),
    # The "heun" of flow_matching is EDM's at the times of the linear path.
    "flow_matching:heun=linear": _changed(
        "flow_matching",
        samplers={
            **METHODS["flow_matching"].samplers,
            "heun": OdeSampler("linear_heun", "linear"),
        },
    ),
}
"""Variants of the methods, each by what differs from the default of the one before the colon."""

ALL_METHODS = {**METHODS, **VARIANTS}
"""Both."""
