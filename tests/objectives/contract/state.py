"""State: checkpoints, copies, pickles, dtypes and devices, networks taken out and put in."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from tensordict.nn.utils import Buffer
from torch import nn
from torchrl.objectives import ValueEstimators

from tests.objectives.contract.case import (
    LossCase,
    as_tuple,
    assert_same,
    associated,
    call,
    perturb,
    total_of,
)

DUPLICATES = {"deepcopy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x))}


def load(source, loss):
    loss.load_state_dict(source.state_dict())
    return loss


MOVES = {
    "cast": lambda loss, _: loss.double().float(),
    "loaded": load,
    **{name: lambda loss, _, make=make: make(loss) for name, make in DUPLICATES.items()},
}


def to_dtype(td, dtype):
    return td.apply(lambda x: x.to(dtype) if x.is_floating_point() else x)


class StateTests:
    @pytest.mark.parametrize("used", [False, True])
    def test_state_dict(self, case: LossCase, used):
        loss, td = case.loss(), case.make_batch()
        names = list(loss.state_dict())
        if used:
            call(loss, td.clone())
        assert list(loss.state_dict()) == names
        perturb(loss)
        other = case.loss()
        addresses = {name: tensor.data_ptr() for name, tensor in other.state_dict().items()}
        other.load_state_dict(loss.state_dict())
        assert addresses == {n: tensor.data_ptr() for n, tensor in other.state_dict().items()}
        assert_same(call(other, td.clone()), call(loss, td.clone()))
        for name, tensor in loss.state_dict().items():
            assert torch.equal(other.state_dict()[name], tensor), name

    def test_state_dict_carries_the_discount(self, case: LossCase):
        """Also into a loss whose estimator nobody chose."""
        if not case.value_estimators:
            assert not any("value_estimator" in name for name in case.loss().state_dict())
            return
        td = case.make_batch(4, 5)
        loss, other = case.loss().make_value_estimator(gamma=0.5), case.loss()
        other.load_state_dict(loss.state_dict())
        assert other.value_estimator.gamma == 0.5
        assert_same(call(other, td.clone()), call(loss, td.clone()))
        for estimator in case.value_estimators:
            loss.make_value_estimator(estimator, gamma=0.25)
            other.make_value_estimator(estimator)
            other.load_state_dict(loss.state_dict())
            assert_same(call(other, td.clone()), call(loss, td.clone()))

    def test_state_dict_of_another_estimator(self, case: LossCase):
        """Refused by name rather than trained on with other targets."""
        if ValueEstimators.TDLambda not in case.value_estimators:
            pytest.skip("This loss knows one kind of estimator.")
        loss, other = case.loss().make_value_estimator(ValueEstimators.TDLambda), case.loss()
        with pytest.raises(RuntimeError, match=r"_value_estimator\.lmbda"):
            other.load_state_dict(loss.state_dict())

    @pytest.mark.parametrize("duplicate", DUPLICATES)
    @pytest.mark.parametrize("used", [False, True])
    def test_duplicates(self, case: LossCase, duplicate, used):
        loss, td = case.loss(), case.make_batch()
        if used:
            total_of(call(loss, td.clone())).backward()
            loss.zero_grad()
        expected = call(loss, td.clone())
        other = DUPLICATES[duplicate](loss)
        assert_same(call(other, td.clone()), expected)
        perturb(other)
        assert_same(call(loss, td.clone()), expected)
        changed = call(other, td.clone())
        assert all(not torch.isclose(changed[key], expected[key]) for key in case.owners)
        total_of(changed).backward()
        assert all(p.grad is not None for p in case.trained(other).values())
        assert all(p.grad is None for p in loss.parameters())

    @pytest.mark.parametrize("move", MOVES)
    def test_shared_encoder_stays_shared(self, case: LossCase, move):
        """The critics' view of the actor's encoder must follow the training afterwards."""
        if case.make_shared is None:
            pytest.skip("The networks of this loss share nothing.")
        original = associated(case.make_shared(True))
        perturb(original)
        expected = call(original, case.make_batch())
        loss = MOVES[move](original, associated(case.make_shared(True)))
        assert_same(call(loss, case.make_batch()), expected)
        encoders = {name: case.params(loss, name)[key] for name, key in case.shared.items()}
        actor, *critics = encoders.values()
        with torch.no_grad():
            actor.add_(1.0)
        for encoder in critics:
            assert torch.equal(encoder, actor.data.expand_as(encoder))
            assert not encoder.requires_grad

    @pytest.mark.parametrize(
        "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str
    )
    def test_dtypes(self, case: LossCase, dtype):
        loss = case.loss().double() if dtype == torch.float32 else case.loss()
        loss = loss.to(dtype)
        for name in case.networks:
            for key, value in case.params(loss, name).items():
                assert value.dtype == dtype or not value.is_floating_point(), key
                constants = {as_tuple(constant) for constant in case.constants[name]}
                assert isinstance(value, nn.Parameter) == (key not in constants), key
        for name in case.targets:
            for value in case.params(loss, name, target=True).values():
                assert isinstance(value, Buffer)
                assert value.dtype == dtype
        out = call(loss, to_dtype(case.make_batch(), dtype))
        assert all(value.dtype == dtype and value.isfinite() for value in out.values())
        # Gradients may exceed the range of float16, where a GradScaler settles at such a scale.
        (total_of(out) / (256 if dtype == torch.float16 else 1)).backward()
        for parameter in case.trained(loss).values():
            assert parameter.grad.dtype == dtype and parameter.grad.isfinite().all()

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_devices(self, case: LossCase):
        loss = case.loss().to("cuda")
        for name in case.networks:
            assert all(value.is_cuda for value in case.params(loss, name).values())
        for name in case.targets:
            assert all(
                isinstance(value, Buffer) and value.is_cuda
                for value in case.params(loss, name, target=True).values()
            )
        out = call(loss, case.make_batch().to("cuda"))
        assert all(value.is_cuda and value.isfinite() for value in out.values())
        total_of(out).backward()
        assert_same(call(loss.to("cpu"), case.make_batch()), call(case.loss(), case.make_batch()))

    def test_stateful_networks(self, case: LossCase):
        loss = case.loss()
        for name in case.networks:
            network = loss.get_stateful_net(name)
            assert network is not getattr(loss, name)
            changed = copy.deepcopy(network)
            with torch.no_grad():
                for parameter in changed.parameters():
                    parameter.add_(1.0)
            before = {k: v.clone() for k, v in case.params(loss, name).items()}
            loss.from_stateful_net(name, changed)
            for key, value in case.params(loss, name).items():
                step = 1.0 if isinstance(value, nn.Parameter) else 0.0
                torch.testing.assert_close(value.data, before[key].data + step)
            loss.from_stateful_net(name, network)
