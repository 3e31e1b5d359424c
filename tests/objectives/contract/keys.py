"""Names of entries: renaming, nesting, dispatch without tensordicts."""

from __future__ import annotations

import copy
from dataclasses import fields

import pytest
import torch
from tensordict.utils import unravel_key

from tests.objectives.contract.case import LossCase, assert_same, call

NAMINGS = {
    "flat": lambda name: f"my_{name}",
    "nested": lambda name: ("agents", "first", name),
}


def as_tuple_of(values: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The outputs of a dispatched call: of a single one there is no tuple."""
    return (values,) if isinstance(values, torch.Tensor) else values


class KeyTests:
    def test_default_keys(self, case: LossCase):
        keys = case.loss().tensor_keys
        names = {entry.name for entry in fields(keys)}
        assert {name: getattr(keys, name) for name in names} == dict(case.accepted_keys)

    @pytest.mark.parametrize("naming", NAMINGS)
    def test_each_key_can_be_set_and_put_back(self, case: LossCase, naming):
        loss = case.loss()
        for name, default in case.accepted_keys.items():
            loss.set_keys(**{name: NAMINGS[naming](name)})
            assert getattr(loss.tensor_keys, name) == NAMINGS[naming](name)
            others = {other: getattr(loss.tensor_keys, other) for other in case.accepted_keys}
            assert others == {**case.accepted_keys, name: NAMINGS[naming](name)}
            loss.set_keys(**{name: None})
            assert getattr(loss.tensor_keys, name) == default

    def test_unknown_keys_are_refused(self, case: LossCase):
        loss = case.loss()
        with pytest.raises(ValueError, match="unknown is not an accepted tensordict key"):
            copy.deepcopy(loss).set_keys(unknown="x")
        assert not hasattr(loss.tensor_keys, "unknown")

    def test_instances_do_not_share_their_keys(self, case: LossCase):
        first, second = case.loss(), case.loss()
        first.set_keys(**{name: f"my_{name}" for name in case.accepted_keys})
        for name, default in case.accepted_keys.items():
            assert getattr(second.tensor_keys, name) == default

    @pytest.mark.parametrize("naming", NAMINGS)
    def test_losses_do_not_depend_on_names(self, case: LossCase, naming):
        """Everything renamed at once: inputs, outputs of networks, what the loss writes."""
        keys = {name: NAMINGS[naming](name) for name in case.renamed}
        loss, td = case.loss(keys=keys), case.make_batch(keys=keys)
        default, reference = case.make_batch(), case.loss()
        assert_same(call(loss, td), call(reference, default))
        assert all(unravel_key(key) in set(td.keys(True, True)) for key in loss.in_keys)
        for key in set(default.keys(True, True)) - set(case.make_batch().keys(True, True)):
            (name,) = (name for name, entry in case.accepted_keys.items() if entry == key)
            torch.testing.assert_close(td[keys[name]], default[key])

    def test_in_keys_follow_set_keys(self, case: LossCase):
        loss = case.loss()
        before = list(loss.in_keys)
        read = {name for name in case.accepted_keys if ("next", case.accepted_keys[name]) in before}
        for name in read:
            loss.set_keys(**{name: f"my_{name}"})
            assert ("next", f"my_{name}") in loss.in_keys
            assert ("next", case.accepted_keys[name]) not in loss.in_keys
            loss.set_keys(**{name: None})
        assert loss.in_keys == before

    @pytest.mark.parametrize("naming", [None, *NAMINGS])
    def test_call_without_tensordicts(self, case: LossCase, naming):
        keys = {name: NAMINGS[naming](name) for name in case.renamed} if naming else {}
        loss, td = case.loss(keys=keys), case.make_batch(keys=keys)
        flat = {
            "_".join(key) if isinstance(key, tuple) else key: td[key]
            for key in map(unravel_key, loss.in_keys)
        }
        expected = call(loss, td)
        values = as_tuple_of(call(loss, **flat))
        assert len(values) == len(loss.out_keys)
        for key, value in zip(loss.out_keys, values, strict=True):
            torch.testing.assert_close(value, expected[key])

        every, chosen = list(loss.out_keys), list(reversed(case.owners))
        loss.select_out_keys(*chosen)
        values = as_tuple_of(call(loss, **flat))
        for key, value in zip(chosen, values, strict=True):
            torch.testing.assert_close(value, expected[key])
        loss.select_out_keys(chosen[0])
        torch.testing.assert_close(call(loss, **flat), expected[chosen[0]])
        loss.reset_out_keys()
        assert loss.out_keys == every
        assert len(as_tuple_of(call(loss, **flat))) == len(every)
