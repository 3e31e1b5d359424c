"""GTPLoss: bad options, networks and batches are refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchrl.data import Bounded
from torchrl.objectives import SoftUpdate

from tests.objectives.contract.case import call, losses_of
from tests.objectives.gtp_cases import MODES, make_batch, make_loss
from torchrl_gtp import GTPLoss, make_gtp_actor, make_value
from torchrl_gtp.flow_map import LinearPathTimes, VPSchedule


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": -1.0}, "eta must be finite and at least 0"),
        ({"eta": float("nan")}, "eta must be finite and at least 0"),
        ({"eta": float("inf")}, "eta must be finite and at least 0, got inf"),
        ({"weighting": "softmax"}, "weighting must be one of"),
        ({"lambda_flow": -0.1}, "lambda_flow must be finite and not negative"),
        ({"lambda_flow": float("inf")}, "lambda_flow must be finite and not negative"),
        ({"robust_power": 2.0}, "robust_power must lie in"),
        ({"progress": 1.5}, "progress must lie in"),
        ({"max_weight": 0.5}, "max_weight must be at least 1"),
        ({"time_sampler": "uniform"}, "time_sampler must be one of"),
        ({"time_weight": "snr"}, "time_weight must be"),
        ({"teacher": "frozen"}, "teacher must be"),
        ({"teacher": "ema", "delay_actor": False}, "needs delay_actor=True"),
        ({"reduction": "median"}, "reduction must be"),
        ({"expectile": 1.0}, "expectile must lie"),
        ({"num_value_samples": 0}, "num_value_samples must be at least 1"),
        ({"num_backup_samples": 0}, "num_backup_samples must be at least 1"),
        ({"num_qvalue_nets": 0}, "num_qvalue_nets must be at least 1"),
        ({"policy_num_steps": 0}, "policy_num_steps must be at least 1"),
        ({"loss_function": "huber"}, "loss_function must be"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_loss(**options)


def test_time_samplers_of_t_alone_are_refused_at_construction():
    with pytest.raises(TypeError, match=r"must give \(t, u, s\).*got LinearPathTimes"):
        make_loss(time_sampler=LinearPathTimes())
    loss = make_loss()
    with pytest.raises(TypeError, match=r"must give \(t, u, s\).*got VPSchedule"):
        loss.time_sampler = VPSchedule()


def test_bad_networks():
    with pytest.raises(TypeError, match="must be a GTPActor"):
        GTPLoss(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="value_network needs a qvalue_network"):
        GTPLoss(make_gtp_actor(3, Bounded(-1, 1, (2,))), None, make_value(3))


@pytest.mark.parametrize("missing", ["observation", "action", ("next", "reward"), "next"])
def test_missing_entries_are_named(missing):
    loss = make_loss()
    SoftUpdate(loss, tau=0.005)
    with pytest.raises(KeyError, match="needs the entries.*" + str(missing[-1])):
        loss(make_batch().exclude(missing))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"action": torch.zeros(8, 3)},
            r"'action' has the shape \(8, 3\).*generates actions \(2,\)",
        ),
        ({"action": torch.zeros(8, 2, dtype=torch.int64)}, "of a floating-point type"),
        ({"observation": torch.zeros(8, 5)}, "have 5 dimensions, but the actor was built for 3"),
    ],
)
def test_entries_of_the_wrong_size(mode, entries, message):
    loss, td = make_loss(mode), make_batch(mode=mode)
    SoftUpdate(loss, tau=0.005)
    with pytest.raises(ValueError, match=message):
        loss(td.update(entries))


@pytest.mark.parametrize("mode", MODES)
def test_empty_batch(mode):
    loss = make_loss(mode)
    SoftUpdate(loss, tau=0.005)
    with pytest.raises(ValueError, match="batch is empty"):
        loss(make_batch(mode=mode)[:0])


@pytest.mark.parametrize("mode", MODES)
def test_double_precision_data_are_cast(mode):
    loss, td = make_loss(mode), make_batch(mode=mode)
    SoftUpdate(loss, tau=0.005)
    double = td.apply(lambda x: x.double() if x.is_floating_point() else x)
    for key, value in losses_of(call(loss, double)).items():
        torch.testing.assert_close(value.float(), call(loss, td)[key])


def test_mask_of_another_type():
    loss, td = make_loss("bc"), make_batch(mode="bc")
    SoftUpdate(loss, tau=0.005)
    td["shifted_valid"] = torch.ones(8)
    with pytest.raises(ValueError, match="'shifted_valid' must be boolean"):
        loss(td)


def test_weights_and_advantages_of_the_wrong_shape():
    loss, td = make_loss(), make_batch()
    SoftUpdate(loss, tau=0.005)
    with pytest.raises(ValueError, match="weight must have the shape"):
        loss.flow_loss(td, torch.ones(8, 1))
    with pytest.raises(ValueError, match="advantage must have the shape"):
        loss.actor_loss(td, torch.ones(8, 1))


def test_terms_check_their_input_too():
    loss = make_loss()
    SoftUpdate(loss, tau=0.005)
    for term in (loss.qvalue_loss, loss.flow_loss, loss.consistency_loss, loss.advantage):
        with pytest.raises(KeyError, match="needs the entries .*action"):
            term(make_batch().exclude("action"))


def test_q_network_that_writes_another_key():
    loss = make_loss()
    SoftUpdate(loss, tau=0.005)
    loss.set_keys(state_action_value="q")
    with pytest.raises(KeyError, match="must name what the network writes"):
        loss(make_batch())
