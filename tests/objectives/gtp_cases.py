"""GTPLoss in small, for all tests of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from tensordict.utils import NestedKey
from torch import nn
from torchrl.data import Bounded
from torchrl.modules import MLP, ValueOperator

from tests.objectives.contract import LossCase
from torchrl_gtp import FlowMap, GTPActor, GTPLoss, make_gtp_actor, make_qvalue, make_value

MODES = ["bc", "critic", "value"]
SIZES = {"hidden_sizes": (16, 16)}
ENCODED = ("module", "encoder", "weight")


class Concatenated(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, *inputs):
        return self.net(torch.cat(inputs, -1))


class Encoded(nn.Module):
    """A linear head on an encoder of the observation and whatever else is given."""

    def __init__(self, encoder: nn.Module, in_features: int, out_features: int):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(in_features, out_features)

    def forward(self, observation, *others):
        return self.head(torch.cat([self.encoder(observation), *others], -1))


class EncodedBackbone(Encoded):
    def forward(self, action, log_t, log_s, condition):
        return super().forward(condition, action, log_t, log_s)


def renamed_output(network: TensorDictModule, key: NestedKey) -> TensorDictModule:
    return TensorDictModule(network.module, in_keys=network.in_keys, out_keys=[key])


def with_dropout(network: TensorDictModule, dropout: float, outputs: int = 1) -> ValueOperator:
    """A Q-network of the same entries with a layer of dropout."""
    layers = MLP(5, 16, depth=0), nn.Dropout(dropout), nn.Mish(), MLP(16, outputs, depth=0)
    return ValueOperator(Concatenated(nn.Sequential(*layers)), in_keys=network.in_keys)


def make_loss(
    mode: str = "critic",
    *,
    dropout: float = 0.0,
    keys: dict[str, NestedKey] | None = None,
    kind: type[GTPLoss] = GTPLoss,
    **options: Any,
) -> GTPLoss:
    torch.manual_seed(0)
    keys = keys or {}
    inputs = {
        "observation_keys": (keys.get("observation", "observation"),),
        "action_key": keys.get("action", "action"),
    }
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), **inputs, num_steps=2, **SIZES)
    qvalue = value = None
    if mode != "bc":
        qvalue = make_qvalue(3, 2, **inputs, **SIZES)
        if dropout:
            qvalue = with_dropout(qvalue, dropout)
        if "state_action_value" in keys:
            qvalue = renamed_output(qvalue, keys["state_action_value"])
    if mode == "value":
        value = make_value(3, observation_keys=inputs["observation_keys"], **SIZES)
        if "value" in keys:
            value = renamed_output(value, keys["value"])
    loss = kind(actor, qvalue, value, **options)
    loss.set_keys(**{name: key for name, key in keys.items() if name != "observation"})
    return loss


def make_shared_loss(mode: str, separate_losses: bool, *, kind: type[GTPLoss] = GTPLoss) -> GTPLoss:
    """A loss whose networks share an encoder of the observation."""
    torch.manual_seed(0)
    encoder = nn.Linear(3, 8)
    backbone = EncodedBackbone(encoder, 8 + 2 + 2, 2)
    actor = GTPActor(FlowMap(backbone), Bounded(-1, 1, (2,)), num_steps=2)
    qvalue = ValueOperator(Encoded(encoder, 8 + 2, 1), in_keys=["observation", "action"])
    value = ValueOperator(Encoded(encoder, 8, 1), in_keys=["observation"])
    return kind(actor, qvalue, value if mode == "value" else None, separate_losses=separate_losses)


def make_batch(
    *batch: int, keys: dict[str, NestedKey] | None = None, mode: str = "critic"
) -> TensorDict:
    batch = batch or (8,)
    keys = keys or {}

    def key(name: str) -> NestedKey:
        return keys.get(name, name)

    torch.manual_seed(1)
    td = TensorDict(batch_size=batch)
    td[key("observation")] = torch.randn(*batch, 3)
    td[key("action")] = torch.rand(*batch, 2) * 2 - 1
    if mode != "bc":
        following = TensorDict(batch_size=batch)
        following[key("observation")] = torch.randn(*batch, 3)
        following[key("reward")] = torch.randn(*batch, 1)
        done = torch.rand(*batch, 1) < 0.3
        following[key("done")] = done
        following[key("terminated")] = done & (torch.rand(*batch, 1) < 0.5)
        td["next"] = following
    return td


def make_case(mode: str) -> LossCase:
    critic, value = mode != "bc", mode == "value"
    frequencies = [("flow_map", "backbone", f"embed_{t}", "frequencies") for t in "ts"]
    owners = {"loss_consistency": "actor_network", "loss_flow": "actor_network"}
    shared = {"actor_network": ("flow_map", "backbone", "encoder", "weight")}
    constants = {"actor_network": ("low", "high", ("flow_map", "sigma_data"), *frequencies)}
    for name in ("qvalue", "value")[: critic + value]:
        owners[f"loss_{name}"] = f"{name}_network"
        shared[f"{name}_network"] = ENCODED
        constants[f"{name}_network"] = ()
    accepted_keys = {
        "action": "action",
        "policy_action": None,
        "state_action_value": "state_action_value",
        "value": "state_value",
        "reward": "reward",
        "done": "done",
        "terminated": "terminated",
        "priority": "td_error",
        "weight": "advantage_weight",
        "priority_weight": "priority_weight",
        "sampling_weight": "sampling_weight",
        "noise": "loss_noise",
        "pad_mask": None,
    }
    return LossCase(
        name=f"gtp-{mode}",
        make_loss=partial(make_loss, mode),
        make_batch=partial(make_batch, mode=mode),
        owners=owners,
        accepted_keys=accepted_keys,
        renamed=("observation", *(name for name, key in accepted_keys.items() if key is not None)),
        targets={
            "actor_network": "delay_actor",
            **({"qvalue_network": "delay_qvalue"} if critic else {}),
        },
        constants=constants,
        schedules={"eta": 2.0, "lambda_flow": 0.5, "max_weight": 7.0, "progress": 0.25},
        td_losses=("loss_qvalue",) if critic else (),
        written=("td_error", "advantage_weight") if critic else (),
        estimator_keys={
            "value": "state_action_value",
            "reward": "reward",
            "done": "done",
            "terminated": "terminated",
        },
        value_estimators=GTPLoss.SUPPORTED_VALUE_ESTIMATORS if critic else (),
        make_shared=partial(make_shared_loss, mode) if critic else None,
        shared=shared,
        overfit_options={"semigroup_every": None} if mode == "critic" else {},
    )
