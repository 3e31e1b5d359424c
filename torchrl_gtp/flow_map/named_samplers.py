"""The names of samplers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torchrl_gtp.flow_map.adaptive_sampler import AdaptiveSampler
from torchrl_gtp.flow_map.matched_start import MatchedStart
from torchrl_gtp.flow_map.samplers import JumpSampler, OdeSampler, Sampler
from torchrl_gtp.flow_map.stochastic_samplers import AncestralSampler, ConsistencySampler

__all__ = ["SamplerName", "as_sampler"]

SamplerName = Literal["jumps", "matched", "adaptive", "euler", "heun", "ddpm", "consistency"]

_SAMPLERS: dict[str, Callable[[], Sampler]] = {
    "jumps": JumpSampler,
    "matched": MatchedStart,
    "adaptive": AdaptiveSampler,
    "euler": lambda: OdeSampler("euler"),
    "heun": lambda: OdeSampler("heun"),
    "ddpm": AncestralSampler,
    "consistency": ConsistencySampler,
}


def as_sampler(sampler: SamplerName | Sampler) -> Sampler:
    """Returns the sampler of a name, or the sampler given.

    Raises:
        ValueError: for an unknown name.
        TypeError: for what is neither a name nor a sampler.

    Examples:
        >>> as_sampler("heun")
        OdeSampler(method='heun', spacing='karras')
    """
    if isinstance(sampler, str):
        if sampler not in _SAMPLERS:
            raise ValueError(
                f"sampler must be one of {sorted(_SAMPLERS)} or a Sampler, got {sampler!r}."
            )
        return _SAMPLERS[sampler]()
    if not (callable(sampler) and hasattr(sampler, "evaluations")):
        raise TypeError(
            f"sampler must be one of {sorted(_SAMPLERS)} or a Sampler, which is called and has "
            f"evaluations(num_steps); got {type(sampler).__name__}."
        )
    return sampler
