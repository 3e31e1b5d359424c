"""Named settings of the losses."""

from __future__ import annotations

from typing import Any

__all__ = ["paper_options"]


def paper_options() -> dict[str, Any]:
    """Returns the arguments of :class:`~torchrl_gtp.GTPLoss` that follow the paper to the letter.

    The noise levels belong to the flow map; the paper's are ``NoiseLevels(sigma_max=80.0)``. The
    advantage weight has no bound, as printed, but what keeps it finite where the advantages of a
    batch are equal or nearly so; see :func:`~torchrl_gtp.flow_map.advantage_weight`.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import GTPLoss, NoiseLevels, make_gtp_actor
        >>> actor = make_gtp_actor(
        ...     4, Bounded(-1, 1, (2,)), noise_levels=NoiseLevels(sigma_max=80.0)
        ... )
        >>> loss = GTPLoss(actor, **paper_options())
    """
    return {
        "time_sampler": "karras_grid",
        "time_weight": "none",
        "robust_power": 0.0,
        "teacher": "ema",
        "semigroup_every": None,
        "eta": 1.0,
        "lambda_flow": 1.0,
        "max_weight": None,
    }
