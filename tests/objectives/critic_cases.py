"""The critics in small, for the contract."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torchrl.data import Bounded

from tests.objectives.contract import LossCase
from tests.objectives.gtp_cases import SIZES, make_case, renamed_output, with_dropout
from torchrl_gtp import make_gtp_actor, make_qvalue, make_value
from torchrl_gtp.objectives import ClippedDoubleQLoss, ConservativeQLoss, TruncatedQuantileLoss

CRITICS = {
    "double_q": (ClippedDoubleQLoss, {}, 1),
    "double_q-value": (ClippedDoubleQLoss, {}, 1),
    "redq": (ClippedDoubleQLoss, {"num_qvalue_nets": 4, "num_qvalue_subset": 2}, 1),
    "conservative": (ConservativeQLoss, {"num_conservative_samples": 2}, 1),
    "quantiles": (TruncatedQuantileLoss, {"num_qvalue_nets": 2, "policy_noise": 0.1}, 5),
}


def make_critic(
    name: str, *, keys: dict | None = None, dropout: float = 0.0, **options: Any
) -> ClippedDoubleQLoss:
    torch.manual_seed(0)
    keys = keys or {}
    inputs = {
        "observation_keys": (keys.get("observation", "observation"),),
        "action_key": keys.get("action", "action"),
    }
    kind, preset, num_quantiles = CRITICS[name]
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), **inputs, num_steps=2, **SIZES)
    networks = [make_qvalue(3, 2, num_quantiles=num_quantiles, **inputs, **SIZES)]
    if dropout:
        networks = [with_dropout(networks[0], dropout, num_quantiles)]
    if "state_action_value" in keys:
        networks = [renamed_output(networks[0], keys["state_action_value"])]
    if name.endswith("value"):
        networks.append(make_value(3, observation_keys=inputs["observation_keys"], **SIZES))
        if "value" in keys:
            networks[1] = renamed_output(networks[1], keys["value"])
    loss = kind(actor, *networks, **{**preset, **options})
    loss.set_keys(**{name: key for name, key in keys.items() if name != "observation"})
    return loss


def make_critic_case(name: str) -> LossCase:
    like = make_case("value" if name.endswith("value") else "critic")
    owners = {key: like.owners[key] for key in like.owners if key.endswith("value")}
    if name == "conservative":
        owners["loss_cql"] = "qvalue_network"
    return LossCase(
        name=name,
        make_loss=partial(make_critic, name),
        make_batch=like.make_batch,
        owners=owners,
        accepted_keys=like.accepted_keys,
        renamed=like.renamed,
        targets=like.targets,
        constants=like.constants,
        schedules={"conservative_weight": 0.5} if name == "conservative" else {},
        td_losses=like.td_losses,
        written=("td_error",),
        # A constant added to Q cancels in the conservative term.
        blind={"loss_cql": "module.4.bias"},
        estimator_keys=like.estimator_keys,
        value_estimators=like.value_estimators,
    )
