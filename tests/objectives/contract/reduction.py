"""From losses of samples to losses of a batch: reductions, masks, importance weights."""

from __future__ import annotations

import pytest
import torch

from tests.objectives.contract.case import LossCase, assert_same, call, losses_of, total_of

SHAPE = (4, 5)


def masks() -> tuple[torch.Tensor, torch.Tensor]:
    """Two masks, neither of which contains the other."""
    first, second = torch.ones(*SHAPE, dtype=torch.bool), torch.ones(*SHAPE, dtype=torch.bool)
    first[:, 3:], second[0] = False, False
    return first, second


class ReductionTests:
    @pytest.mark.parametrize("reduction", [None, "none", "mean", "sum"])
    @pytest.mark.parametrize("batch", [(8,), (2, 3), (1,)])
    def test_reductions(self, case: LossCase, reduction, batch):
        out = call(case.loss(reduction=reduction), case.make_batch(*batch))
        each = losses_of(call(case.loss(reduction="none"), case.make_batch(*batch)))
        assert out.batch_size == (batch if reduction == "none" else ())
        assert set(losses_of(out)) == set(case.owners)
        assert all(value.isfinite().all() for value in out.values())
        for key, value in losses_of(out).items():
            assert each[key].shape == batch
            if reduction == "none":
                expected = each[key]
            else:
                expected = each[key].sum() if reduction == "sum" else each[key].mean()
            torch.testing.assert_close(value, expected)

    def test_unknown_reduction(self, case: LossCase):
        with pytest.raises(ValueError, match="reduction must be .* got 'median'"):
            case.make_loss(reduction="median")

    @pytest.mark.parametrize("trailing", [False, True])
    def test_masked_samples_do_not_count(self, case: LossCase, trailing):
        """Whatever they hold; a mean is taken over the others, and no shape changes."""
        mask, _ = masks()
        outs = {}
        for reduction in ("none", "mean", "sum"):
            for filling in (0.5, float("nan"), float("inf")):
                td = case.make_batch(*SHAPE)
                td.apply_(
                    lambda x, value=filling: (
                        x.masked_fill_(~mask.unsqueeze(-1), value) if x.is_floating_point() else x
                    )
                )
                td["collector", "mask"] = mask.unsqueeze(-1) if trailing else mask
                loss = case.loss(reduction=reduction)
                out = call(loss, td)
                total_of(out).backward()
                gradients = [p.grad for p in loss.parameters() if p.grad is not None]
                assert gradients and all(gradient.isfinite().all() for gradient in gradients)
                outs.setdefault(reduction, losses_of(out))
                for key, value in losses_of(out).items():
                    torch.testing.assert_close(value, outs[reduction][key])
        for key, each in outs["none"].items():
            assert each.shape == SHAPE and (each[~mask] == 0).all() and (each[mask] != 0).any()
            torch.testing.assert_close(outs["sum"][key], each.sum())
            torch.testing.assert_close(outs["mean"][key], each.sum() / mask.sum())

    def test_masks_that_torchrl_writes_are_joined(self, case: LossCase):
        first, second = masks()
        loss = case.loss()
        both, joined = case.make_batch(*SHAPE), case.make_batch(*SHAPE)
        both["collector", "mask"], both["shifted_valid"] = first, second
        joined["collector", "mask"] = first & second
        assert_same(call(loss, both), call(loss, joined))

    def test_choice_of_the_mask(self, case: LossCase):
        first, second = masks()
        loss = case.loss()
        masked, plain = case.make_batch(*SHAPE), case.make_batch(*SHAPE)
        masked["shifted_valid"], masked["mine", "valid"] = second, first
        reference = case.make_batch(*SHAPE)
        reference["collector", "mask"] = first
        expected = call(loss, reference)
        unmasked = call(loss, plain)
        loss.loss_mask_key = ("mine", "valid")
        assert_same(call(loss, masked), expected)
        loss.loss_mask_key = None
        assert_same(call(loss, masked), unmasked)
        for key in case.owners:
            assert not torch.isclose(expected[key], unmasked[key])

    def test_mask_of_ones_changes_nothing(self, case: LossCase):
        loss, td = case.loss(), case.make_batch(*SHAPE)
        expected = call(loss, td.clone())
        td["collector", "mask"] = torch.ones(*SHAPE, 1, dtype=torch.bool)
        assert_same(call(loss, td), expected)

    @pytest.mark.parametrize("use", ["auto", True, False])
    def test_importance_weights(self, case: LossCase, use):
        importance = torch.linspace(0.1, 2.0, 32)
        each = losses_of(call(case.loss(reduction="none"), case.make_batch(32)))
        td = case.make_batch(32)
        td[case.accepted_keys["priority_weight"]] = importance
        out = call(case.loss(use_prioritized_weights=use), td)
        for key, value in losses_of(out).items():
            weighted = (importance * each[key]).sum() / importance.sum()
            torch.testing.assert_close(value, weighted if use else each[key].mean())
            assert not torch.isclose(weighted, each[key].mean())
