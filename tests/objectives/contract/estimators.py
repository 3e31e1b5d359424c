"""Value estimators, n-step batches, sequences."""

from __future__ import annotations

import pytest
import torch
from torchrl.data import MultiStep
from torchrl.objectives import ValueEstimators
from torchrl.objectives.value import TD0Estimator

from tests.objectives.contract.case import LossCase, assert_same, call

NEW_KEYS = [lambda name: f"my_{name}", lambda name: ("agents", name)]


def needs_estimator(case: LossCase) -> None:
    if not case.value_estimators:
        pytest.skip("This loss estimates no value.")


class EstimatorTests:
    @pytest.mark.parametrize("estimator", [*ValueEstimators, None, "td0", "instance", "class"])
    def test_choice_of_the_estimator(self, case: LossCase, estimator):
        loss, td = case.loss(), case.make_batch(4, 5)
        if not case.value_estimators:
            with pytest.raises((ValueError, NotImplementedError)):
                loss.make_value_estimator(estimator)
            return
        if isinstance(estimator, ValueEstimators) and estimator not in case.value_estimators:
            with pytest.raises(NotImplementedError):
                loss.make_value_estimator(estimator)
            return
        if estimator == "instance":
            built = TD0Estimator(gamma=0.5, value_network=None)
            assert loss.make_value_estimator(built) is loss
            assert loss.value_estimator is built
        elif estimator == "class":
            made = loss.make_value_estimator(TD0Estimator, gamma=0.5, value_network=None)
            assert made is loss and isinstance(loss.value_estimator, TD0Estimator)
        else:
            assert loss.make_value_estimator(estimator, gamma=0.5) is loss
        assert loss.value_estimator.gamma == 0.5
        assert all(call(loss, td)[key].isfinite() for key in case.td_losses)

    def test_discount_matters(self, case: LossCase):
        needs_estimator(case)
        outs = [
            call(case.loss().make_value_estimator(gamma=gamma), case.make_batch())
            for gamma in (0.0, 0.9)
        ]
        for key in case.td_losses:
            assert not torch.isclose(outs[0][key], outs[1][key])

    @pytest.mark.parametrize("new_key", NEW_KEYS, ids=["flat", "nested"])
    def test_keys_reach_the_estimator(self, case: LossCase, new_key):
        needs_estimator(case)
        for estimator in (*case.value_estimators, TD0Estimator(gamma=0.9, value_network=None)):
            early, late = case.loss(), case.loss()
            names = {name: new_key(name) for name in set(case.estimator_keys.values())}
            early.set_keys(**names)
            for loss in (early, late):
                loss.make_value_estimator(estimator)
                loss.set_keys(**names)
                for theirs, ours in case.estimator_keys.items():
                    assert getattr(loss.value_estimator.tensor_keys, theirs) == new_key(ours)
            late.set_keys(**dict.fromkeys(names))
            for theirs, ours in case.estimator_keys.items():
                expected = case.accepted_keys[ours]
                assert getattr(late.value_estimator.tensor_keys, theirs) == expected

    @pytest.mark.parametrize("steps", [1, 2, 3])
    def test_multi_step_batches(self, case: LossCase, steps):
        loss, td = case.loss(), case.make_batch(4, 6)
        expected = call(loss, td.clone())
        if not case.td_losses:
            assert all(expected[key].isfinite() for key in case.owners)
            return
        out = call(loss, MultiStep(gamma=0.9, n_steps=steps)(td))
        for key in case.td_losses:
            assert torch.isclose(out[key], expected[key]) == (steps == 1)
            assert out[key].isfinite()

    def test_sequences_are_batches(self, case: LossCase):
        """One-step losses of [B, T] are those of [B * T], but for the draws, which agree here."""
        loss = case.loss()
        flat, td = case.make_batch(12), case.make_batch(12).reshape(3, 4)
        assert_same(call(loss, td), call(loss, flat), rtol=1e-4, atol=1e-5)
