"""Target networks: with and without delay, updaters, warnings."""

from __future__ import annotations

import warnings

import pytest
import torch
from tensordict.nn import TensorDictParams
from tensordict.nn.utils import Buffer
from torch import nn
from torchrl.objectives import HardUpdate, SoftUpdate

from tests.objectives.contract.case import LossCase, as_tuple, call, perturb
from torchrl_gtp import TargetUpdate

UPDATERS = {
    "soft": lambda loss: SoftUpdate(loss, tau=0.1),
    "hard": lambda loss: HardUpdate(loss, value_network_update_interval=1),
    "by network": lambda loss: TargetUpdate(loss, 0.1),
}


def undelayed(case: LossCase) -> dict[str, bool]:
    return dict.fromkeys(case.targets.values(), False)


class TargetTests:
    def test_which_networks_have_targets(self, case: LossCase):
        def found(loss):
            names = {name for name, _ in loss.named_children() if name.startswith("target_")}
            return {name.removeprefix("target_").removesuffix("_params") for name in names}

        assert found(case.make_loss()) == set(case.targets)
        assert found(case.make_loss(**undelayed(case))) == set()
        for network, option in case.targets.items():
            assert found(case.make_loss(**{option: False})) == set(case.targets) - {network}

    @pytest.mark.parametrize("delayed", [True, False])
    def test_targets_stay_only_when_delayed(self, case: LossCase, delayed):
        loss = case.loss(**({} if delayed else undelayed(case)))
        before = {
            name: {k: v.clone() for k, v in case.params(loss, name, target=True).items()}
            for name in case.networks
        }
        perturb(loss)
        for name in case.networks:
            after = case.params(loss, name, target=True)
            for key, source in case.params(loss, name).items():
                if isinstance(source, nn.Parameter):
                    stays = delayed and name in case.targets
                    assert torch.equal(after[key], before[name][key] if stays else source), key
                    assert not torch.equal(source, before[name][key])

    @pytest.mark.parametrize("delayed", [True, False])
    def test_loss_without_delay_is_finite(self, case: LossCase, delayed):
        loss = case.loss(**({} if delayed else undelayed(case)))
        assert all(value.isfinite() for value in call(loss, case.make_batch()).values())

    @pytest.mark.parametrize("updater", UPDATERS)
    def test_updaters(self, case: LossCase, updater):
        loss = case.make_loss()
        update = UPDATERS[updater](loss)
        perturb(loss)
        before = {
            name: {k: v.clone() for k, v in case.params(loss, name, target=True).items()}
            for name in case.targets
        }
        for _ in range(1 if updater != "hard" else 2):
            update.step()
        for name in case.targets:
            after = case.params(loss, name, target=True)
            for key, source in case.params(loss, name).items():
                if isinstance(source, nn.Parameter):
                    weight = 1.0 if updater == "hard" else 0.1
                    torch.testing.assert_close(after[key], before[name][key].lerp(source, weight))

    def test_warns_without_an_updater(self, case: LossCase):
        loss = case.make_loss()
        with pytest.warns(UserWarning, match="No target network updater"):
            loss(case.make_batch())

    @pytest.mark.parametrize("delayed", [True, False])
    def test_constructs_and_runs_without_warnings(self, case: LossCase, delayed):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loss = case.loss(**({} if delayed else undelayed(case)))
            loss(case.make_batch())

    def test_types_of_the_tensors(self, case: LossCase):
        loss = case.loss()
        for name in case.networks:
            assert isinstance(getattr(loss, f"{name}_params"), TensorDictParams)
            constants = {as_tuple(constant) for constant in case.constants[name]}
            for key, value in case.params(loss, name).items():
                assert isinstance(value, nn.Parameter) == (key not in constants), key
        for name in case.targets:
            for value in case.params(loss, name, target=True).values():
                assert isinstance(value, Buffer) and not value.requires_grad
