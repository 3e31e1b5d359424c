"""Input that does not fit the actor: devices, batches, shapes."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded

from torchrl_gtp import make_gtp_actor

KEYS = ("position", ("sensors", "speed"))


@pytest.fixture
def actor():
    return make_gtp_actor(3, Bounded(-1, 1, (2,)), observation_keys=KEYS, hidden_sizes=(8,))


def test_policy_on_another_device_than_its_input(actor):
    """The meta device stands for an accelerator."""
    td = TensorDict({"position": torch.randn(4, 2), "sensors": {"speed": torch.randn(4, 1)}}, [4])
    with pytest.raises(ValueError, match=r"is on the device cpu, but the actor is on meta.*to\('"):
        actor.to("meta")(td)


@pytest.mark.parametrize("name", ["noise", "start", "start_level"])
def test_other_inputs_on_another_device(actor, name):
    inputs = {
        "noise": torch.zeros(4, 2),
        "start": torch.zeros(4, 2),
        "start_level": torch.ones(4, 1),
    }
    inputs[name] = inputs[name].to("meta")
    with pytest.raises(ValueError, match=f"{name} is on the device meta, but the actor is on cpu"):
        actor.sample(torch.randn(4, 3), **inputs)


@pytest.mark.parametrize(
    ("position", "speed", "message"),
    [
        (torch.zeros(4, 2), torch.zeros(5, 1), r"'position' has the shape \(4, 2\) and .*\(5, 1\)"),
        (torch.zeros(4, 2), torch.zeros(4, 3, 1), r"agree in all dimensions.*\(4, 3, 1\)"),
        (torch.zeros(4, 2), torch.zeros(1, device="meta").expand(4, 1), "cpu and.*speed.*meta"),
    ],
)
def test_entries_that_do_not_fit_together(actor, position, speed, message):
    with pytest.raises(ValueError, match=message):
        actor(position=position, sensors_speed=speed)


def test_entry_without_a_dimension_for_its_values(actor):
    td = TensorDict({"position": torch.randn(4, 2), "sensors": {"speed": torch.randn(4)}}, [4])
    with pytest.raises(ValueError, match=r"speed.*\(4,\), which leaves no dimension.*\[..., 1\]"):
        actor(td)
