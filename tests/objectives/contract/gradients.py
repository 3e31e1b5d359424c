"""What a loss trains: each term its own network, all of it, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchrl.envs.utils import ExplorationType, exploration_type, set_exploration_type

from tests.objectives.contract.case import LossCase, associated, call, losses_of, total_of


def trained(parameter: torch.Tensor) -> bool:
    return parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)


class GradientTests:
    def test_each_term_trains_all_of_its_network_alone(self, case: LossCase):
        loss = case.loss()
        out = call(loss, case.make_batch())
        for key, value in losses_of(out).items():
            loss.zero_grad()
            value.backward(retain_graph=True)
            for name, parameter in loss.named_parameters():
                owned = name.startswith(f"{case.owners[key]}_params")
                blind = key in case.blind and name.endswith(case.blind[key])
                assert trained(parameter) == (owned and not blind), (key, name)

    def test_sum_trains_everything_but_targets(self, case: LossCase):
        loss = case.loss()
        total_of(call(loss, case.make_batch())).backward()
        assert not any(name.startswith("target") for name, _ in loss.named_parameters())
        assert all(trained(parameter) for parameter in case.trained(loss).values())
        assert all(buffer.grad is None for buffer in loss.buffers())

    def test_names_are_unique(self, case: LossCase):
        loss = case.loss()
        for members in (list(loss.named_parameters()), list(loss.named_buffers())):
            assert len({name for name, _ in members}) == len(members)
            assert len({id(member) for _, member in members}) == len(members)

    def test_input_and_outputs(self, case: LossCase):
        loss, td = case.loss(), case.make_batch()
        before = td.clone()
        out = call(loss, td)
        assert list(out.keys()) == loss.out_keys
        assert set(losses_of(out)) == set(case.owners)
        assert all(out[key].requires_grad == key.startswith("loss_") for key in out.keys())
        assert (td.select(*before.keys(True, True)) == before).all()
        written = set(td.keys(True, True)) - set(before.keys(True, True))
        assert written == set(case.written)
        assert all(td[key].shape == td.shape and not td[key].requires_grad for key in written)

    def test_overfits_one_batch(self, case: LossCase):
        loss, td = case.loss(**case.overfit_options), case.make_batch()
        optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
        values = []
        for _ in range(60):
            total = total_of(call(loss, td))
            total.backward()
            optimizer.step()
            optimizer.zero_grad()
            values.append(total.detach())
        assert torch.stack(values[-5:]).mean() < 0.7 * torch.stack(values[:5]).mean()

    @pytest.mark.parametrize("separate", [False, True])
    def test_shared_encoder(self, case: LossCase, separate):
        """Separated, the critics use the actor's encoder without training it."""
        if case.make_shared is None:
            pytest.skip("The networks of this loss share nothing.")
        loss = associated(case.make_shared(separate))
        out = call(loss, case.make_batch())
        actor, *critics = case.shared
        encoders = {name: case.params(loss, name)[key] for name, key in case.shared.items()}
        for key, value in losses_of(out).items():
            loss.zero_grad()
            value.backward(retain_graph=True)
            owner = case.owners[key]
            assert trained(encoders[owner]) == (owner == actor or not separate)
            if separate:
                assert trained(encoders[actor]) == (owner == actor)
        for name in critics:
            if separate:
                with torch.no_grad():
                    encoders[actor].add_(1.0)
                torch.testing.assert_close(
                    encoders[name].data, encoders[actor].data.expand_as(encoders[name])
                )
                assert not isinstance(encoders[name], nn.Parameter)

    def test_exploration_is_off_inside(self, case: LossCase):
        loss, seen = case.loss(), set()
        for name in case.networks:
            for module in getattr(loss, name).modules():
                module.register_forward_hook(lambda *_: seen.add(exploration_type()))
        with set_exploration_type(ExplorationType.RANDOM):
            call(loss, case.make_batch())
        assert seen == {ExplorationType.DETERMINISTIC}
