"""The methods by name, and variants of GTP's default."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks.few_step.method import Method
from torchrl_gtp import NoiseLevels
from torchrl_gtp.flow_map import (
    Consistency,
    JumpSampler,
    KarrasGridTimes,
    LogNormalTimes,
    Objective,
    OdeSampler,
    Sampler,
    family,
    gtp_objective,
)
from torchrl_gtp.flow_map.family import FamilyName

__all__ = ["ALL_METHODS", "METHODS", "VARIANTS"]


def _member(
    name: FamilyName, sampler_name: str, most_steps: int | None = None, **more: Sampler
) -> Method:
    objective, sampler, noise_levels = family(name)
    samplers = {sampler_name: sampler, **more}
    return Method(objective, samplers, noise_levels, most_steps=most_steps)


def _variant(
    noise_levels: NoiseLevels | None = None, lambda_flow: float = 1.0, **options: Any
) -> Method:
    return Method(
        gtp_objective(**options),
        {"jumps": JumpSampler(), "heun": OdeSampler("heun")},
        noise_levels or NoiseLevels(),
        lambda_flow,
    )


METHODS: dict[str, Method] = {
    "gtp": _member("gtp", "jumps", heun=OdeSampler("heun")),
    "paper": _member("paper", "jumps"),
    "diffusion": _member("diffusion", "heun", euler=OdeSampler("euler")),
    # Trained on five levels, so that there are no more steps.
    "ddpm": _member("ddpm", "ddpm", most_steps=5),
    "flow_matching": _member("flow_matching", "euler", heun=OdeSampler("heun", "linear")),
    "consistency": _member("consistency", "consistency"),
    "ctm": _member("ctm", "jumps"),
    "shortcut": _member("shortcut", "jumps"),
    "mean_flow": _member("mean_flow", "jumps"),
}
"""Those of :func:`~torchrl_gtp.flow_map.family` that need no trained network to begin with."""


_WIDE = LogNormalTimes(mean=-0.8, std=1.6)


def _with_solver() -> Method:
    # Not GTP any more: a_u comes from the denoiser in the place of the data and their noise.
    few_step = _robust(time_sampler=_WIDE)
    consistency = Consistency(_WIDE, robust_power=1.0, solver="euler")
    terms = {**few_step.objective.terms, "consistency": consistency}
    return dataclasses.replace(few_step, objective=Objective(terms))


def _robust(**options: Any) -> Method:
    return _variant(NoiseLevels(sigma_max=3.0), robust_power=1.0, **options)


VARIANTS: dict[str, Method] = {
    "gtp:teacher=ema": _variant(teacher="ema"),
    "gtp:time_weight=none": _variant(time_weight="none"),
    "gtp:robust_power=0": _variant(robust_power=0.0),
    "gtp:robust_power=1": _variant(robust_power=1.0),
    "gtp:lambda_flow=0.2": _variant(lambda_flow=0.2),
    "gtp:sigma_max=3": _variant(NoiseLevels(sigma_max=3.0)),
    "gtp:sigma_max=80": _variant(NoiseLevels(sigma_max=80.0)),
    "gtp:karras_grid": _variant(time_sampler=KarrasGridTimes()),
    "gtp:std=2": _variant(time_sampler=LogNormalTimes(std=2.0)),
    "gtp:end=uniform": _variant(time_sampler=LogNormalTimes(end="uniform")),
    "gtp:end=data": _variant(time_sampler=LogNormalTimes(end="data")),
    "gtp:first_gap=0.1": _variant(time_sampler=LogNormalTimes(first_gap=0.1)),
    "gtp:last_gap=0.1": _variant(time_sampler=LogNormalTimes(last_gap=0.1)),
    "gtp:last_gap=0.005": _variant(time_sampler=LogNormalTimes(last_gap=0.005)),
    "gtp:sigma_max=3,robust_power=1": _robust(),
    "gtp:sigma_max=3,robust_power=1,last_gap=0.002": _robust(
        time_sampler=LogNormalTimes(last_gap=0.002)
    ),
    "gtp:few_step": _robust(time_sampler=_WIDE),
    "gtp:few_step,lambda_flow=0.2": _robust(time_sampler=_WIDE, lambda_flow=0.2),
    "gtp:few_step,last_gap=0.005": _robust(
        time_sampler=LogNormalTimes(mean=-0.8, std=1.6, last_gap=0.005)
    ),
    "gtp:few_step,last_gap=0.001": _robust(
        time_sampler=LogNormalTimes(mean=-0.8, std=1.6, last_gap=0.001)
    ),
    "gtp:few_step,solver=euler": _with_solver(),
    "gtp:few_step,end=uniform": _robust(
        time_sampler=LogNormalTimes(mean=-0.8, std=1.6, end="uniform")
    ),
}
"""Variants of GTP by what differs from its default; ``few_step`` is the best of them."""

ALL_METHODS = {**METHODS, **VARIANTS}
"""Both."""
