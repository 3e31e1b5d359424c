"""Ways to run a loss: layouts of the batch, vmap, compilation, schedules."""

from __future__ import annotations

import contextlib

import pytest
import torch

from tests.objectives.contract.case import (
    LossCase,
    NoHostReads,
    assert_same,
    call,
    losses_of,
    total_of,
)


class ExecutionTests:
    @pytest.mark.parametrize("batch", [(), (8,), (2, 3)])
    def test_layouts(self, case: LossCase, batch):
        td = case.make_batch(4)[0] if batch == () else case.make_batch(*batch)
        assert td.shape == batch
        out = call(case.loss(), td)
        assert all(value.shape == () and value.isfinite() for value in out.values())
        each = call(case.loss(reduction="none"), td)
        assert all(value.shape == batch for value in losses_of(each).values())

    def test_batch_size_is_that_of_the_actions(self, case: LossCase):
        """A tensordict made by hand often has no batch size, or only part of it."""
        td = case.make_batch(4, 3)
        expected = call(case.loss(), td.clone())
        for batch_size in ([], [4]):
            loose = td.clone()
            loose.batch_size = batch_size
            assert_same(call(case.loss(), loose), expected)

    def test_vmap_is_a_loop(self, case: LossCase):
        outs = [
            call(case.loss(deactivate_vmap=deactivate), case.make_batch())
            for deactivate in (False, True)
        ]
        assert_same(*outs)

    def test_loop_with_dropout(self, case: LossCase):
        loss = case.loss(dropout=0.5, deactivate_vmap=True)
        assert all(value.isfinite() for value in call(loss, case.make_batch()).values())

    @pytest.mark.parametrize("randomness", [None, "different", "same", "error"])
    @pytest.mark.parametrize("dropout", [0.0, 0.5])
    def test_randomness_under_vmap(self, case: LossCase, dropout, randomness):
        loss, td = case.loss(dropout=dropout), case.make_batch()
        if randomness is None:
            under_vmap = dropout and case.td_losses
            assert loss.vmap_randomness == ("different" if under_vmap else "error")
        else:
            loss.set_vmap_randomness(randomness)
            assert loss.vmap_randomness == randomness
        fails = dropout and randomness == "error" and case.td_losses
        with pytest.raises(RuntimeError, match="random") if fails else contextlib.nullcontext():
            assert all(value.isfinite() for value in call(loss, td).values())

    def test_unknown_randomness(self, case: LossCase):
        with pytest.raises(ValueError, match="Wrong vmap randomness"):
            case.loss().set_vmap_randomness("often")

    def test_schedules(self, case: LossCase):
        loss = case.loss()
        for name, value in case.schedules.items():
            buffer = getattr(loss, name)
            assert buffer != value
            setattr(loss, name, value)
            assert getattr(loss, name) is buffer and buffer == torch.tensor(value)
            assert name in loss.state_dict()
        other = case.loss()
        other.load_state_dict(loss.state_dict())
        assert all(getattr(other, name) == value for name, value in case.schedules.items())

    def test_compiled_without_graph_breaks(self, case: LossCase):
        """The whole loss traces, and follows its schedules without being traced again."""
        loss, td = case.loss(), case.make_batch()
        # What other tests compiled would make sizes dynamic here, which vmap does not take.
        torch.compiler.reset()
        # TensorDict notes its classes in the first call, which would have it traced again.
        call(loss, td.clone())
        # Without a code generator, which may reorder the draws: this is about the trace.
        compiled = torch.compile(loss, fullgraph=True, backend="eager")
        assert_same(call(compiled, td.clone()), call(loss, td.clone()))
        for name, value in case.schedules.items():
            setattr(loss, name, value)
        with torch.compiler.set_stance("fail_on_recompile"):
            got = call(compiled, td.clone())
        assert_same(got, call(loss, td.clone()))

    @pytest.mark.parametrize("masked", [False, True])
    def test_reads_no_tensor_on_the_host(self, case: LossCase, masked):
        loss, td = case.loss(), case.make_batch(4, 5)
        if masked:
            td["collector", "mask"] = torch.arange(20).reshape(4, 5) % 3 > 0
        with NoHostReads():
            total_of(call(loss, td)).backward()

    def test_unknown_options_are_refused(self, case: LossCase):
        with pytest.raises(TypeError, match="unknown_option"):
            case.make_loss(unknown_option=1)
