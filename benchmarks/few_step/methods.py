"""The methods by name, and variants of GTP's default."""

from __future__ import annotations

from typing import Any

from tensordict import TensorDict, TensorDictBase

from benchmarks.few_step.method import Method
from torchrl_gtp import GTPActor, GTPLoss, NoiseLevels, paper_options
from torchrl_gtp.flow_map import KarrasGridTimes, LogNormalTimes

__all__ = ["METHODS", "VARIANTS"]


class _FlowTermLoss(GTPLoss):
    """The flow term of GTPLoss alone: a denoiser, as in diffusion and flow matching."""

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        return TensorDict({"loss_flow": self.flow_loss(tensordict)[0]})


METHODS: dict[str, Method] = {
    "gtp": Method(GTPLoss, samplers=("jumps", "heun")),
    "gtp_paper": Method(
        lambda actor: GTPLoss(actor, **paper_options()), NoiseLevels(sigma_max=80.0)
    ),
    "diffusion": Method(_FlowTermLoss, samplers=("euler", "heun")),
}


def _gtp(noise_levels: NoiseLevels | None = None, **options: Any) -> Method:
    def make_loss(actor: GTPActor) -> GTPLoss:
        return GTPLoss(actor, **options)

    return Method(make_loss, noise_levels or NoiseLevels(), ("jumps", "heun"))


def _times(**options: Any) -> Method:
    return _gtp(time_sampler=LogNormalTimes(**options))


VARIANTS: dict[str, Method] = {
    "gtp:teacher=ema": _gtp(teacher="ema"),
    "gtp:time_weight=none": _gtp(time_weight="none"),
    "gtp:robust_power=0": _gtp(robust_power=0.0),
    "gtp:robust_power=1": _gtp(robust_power=1.0),
    "gtp:lambda_flow=0.2": _gtp(lambda_flow=0.2),
    "gtp:sigma_max=3": _gtp(NoiseLevels(sigma_max=3.0)),
    "gtp:sigma_max=80": _gtp(NoiseLevels(sigma_max=80.0)),
    "gtp:std=2": _times(std=2.0),
    "gtp:end=uniform": _times(end="uniform"),
    "gtp:end=data": _times(end="data"),
    "gtp:first_gap=0.1": _times(first_gap=0.1),
    "gtp:last_gap=0.1": _times(last_gap=0.1),
    "gtp:last_gap=0.005": _times(last_gap=0.005),
    "gtp:last_gap=0.001": _times(last_gap=0.001),
    "gtp:karras_grid": _gtp(time_sampler=KarrasGridTimes()),
    "gtp:sigma_max=3,robust_power=1": _gtp(NoiseLevels(sigma_max=3.0), robust_power=1.0),
    "gtp:sigma_max=3,robust_power=1,lambda_flow=0.2": _gtp(
        NoiseLevels(sigma_max=3.0), robust_power=1.0, lambda_flow=0.2
    ),
    "gtp:sigma_max=3,robust_power=1,mean=-0.8,std=1.6": _gtp(
        NoiseLevels(sigma_max=3.0),
        robust_power=1.0,
        time_sampler=LogNormalTimes(mean=-0.8, std=1.6),
    ),
    "gtp:sigma_max=3,robust_power=1,last_gap=0.002": _gtp(
        NoiseLevels(sigma_max=3.0), robust_power=1.0, time_sampler=LogNormalTimes(last_gap=0.002)
    ),
    "gtp:sigma_max=3,robust_power=1,mean=-0.6,first_gap=0.1,last_gap=0.002": _gtp(
        NoiseLevels(sigma_max=3.0),
        robust_power=1.0,
        time_sampler=LogNormalTimes(mean=-0.6, first_gap=0.1, last_gap=0.002),
    ),
}
"""Variants of GTP by what differs from its default: one thing, or the few that helped."""
