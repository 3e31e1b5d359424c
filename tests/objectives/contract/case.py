"""The description of a loss that the contract works from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchrl.objectives import SoftUpdate, ValueEstimators
from torchrl.objectives.common import LossModule


@dataclass(frozen=True)
class LossCase:
    """A loss, and what the contract has to know of it.

    Attributes:
        name: shown by pytest.
        make_loss: ``make_loss(keys=..., dropout=..., **options)``, the same parameters every time.
            ``keys`` renames entries; ``dropout`` is that of the networks under ``vmap``.
        make_batch: ``make_batch(*batch_size, keys=...)``, the same data every time.
        owners: the network that each loss trains.
        accepted_keys: the default of each key that ``set_keys`` accepts.
        renamed: the entries of the batch and of the networks' outputs that ``keys`` may rename.
        targets: networks with targets, and the option that takes each away.
        constants: buffers of each network that no training changes, for every network.
        schedules: schedulable buffers, each with a value other than its default.
        td_losses: losses that the next step enters.
        blind: the end of the name of a parameter on which a loss, by its formula, does not depend.
        written: entries that the loss writes into its input.
        estimator_keys: keys of the value estimator, and the accepted key that each follows.
        value_estimators: those that the loss supports.
        make_shared: ``make_shared(separate_losses)``, a loss whose networks share an encoder.
        shared: the encoder's weight in each network of that loss, the actor's first.
        overfit_options: options with which the loss falls on one batch of always the same draws. A
            row compared with the loss's own jumps, the same one for ever, need not come down.
    """

    name: str
    make_loss: Callable[..., LossModule]
    make_batch: Callable[..., TensorDict]
    owners: Mapping[str, str]
    accepted_keys: Mapping[str, NestedKey]
    renamed: tuple[str, ...]
    targets: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, tuple[NestedKey, ...]] = field(default_factory=dict)
    schedules: Mapping[str, float] = field(default_factory=dict)
    td_losses: tuple[str, ...] = ()
    written: tuple[NestedKey, ...] = ()
    blind: Mapping[str, str] = field(default_factory=dict)
    estimator_keys: Mapping[str, str] = field(default_factory=dict)
    value_estimators: tuple[ValueEstimators, ...] = ()
    make_shared: Callable[[bool], LossModule] | None = None
    shared: Mapping[str, NestedKey] = field(default_factory=dict)
    overfit_options: Mapping[str, Any] = field(default_factory=dict)

    def loss(self, **options: Any) -> LossModule:
        """Makes the loss, with an updater where it has targets."""
        return associated(self.make_loss(**options))

    @property
    def networks(self) -> list[str]:
        """The names of all networks."""
        return list(dict.fromkeys(self.owners.values()))

    def trained(self, loss: LossModule) -> dict[str, Tensor]:
        """The parameters that some term trains: a critic alone does not train its policy."""
        owned = tuple(f"{name}_params." for name in self.networks)
        return {name: p for name, p in loss.named_parameters() if name.startswith(owned)}

    def params(self, loss: LossModule, network: str, *, target: bool = False) -> dict:
        """The tensors of a network or of its target, by key."""
        name = f"target_{network}_params" if target else f"{network}_params"
        return {as_tuple(key): value for key, value in getattr(loss, name).items(True, True)}


def associated(loss: LossModule) -> LossModule:
    """Gives the loss an updater, without which it warns."""
    if any(name.startswith("target_") for name, _ in loss.named_children()):
        SoftUpdate(loss, tau=0.005)
    return loss


def call(loss: Callable, *args: Any, seed: int = 3, **kwargs: Any) -> Any:
    """Calls a loss with the same random draws every time."""
    torch.manual_seed(seed)
    return loss(*args, **kwargs)


class NoHostReads(TorchDispatchMode):
    """Fails where Python reads a value out of a tensor, which no captured graph can follow."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
        ), func
        return func(*args, **(kwargs or {}))


def losses_of(out: TensorDictBase) -> dict[str, Tensor]:
    """The entries that are minimised."""
    return {key: out[key] for key in out.keys() if key.startswith("loss_")}


def total_of(out: TensorDictBase) -> Tensor:
    """What a training script minimises."""
    return sum(value.sum() for value in losses_of(out).values())


def assert_same(got: TensorDictBase, expected: TensorDictBase, **tolerance: float) -> None:
    """Both outputs have the same entries with the same values."""
    assert list(got.keys()) == list(expected.keys())
    for key in expected.keys():
        torch.testing.assert_close(got[key].detach(), expected[key].detach(), **tolerance)


def perturb(loss: LossModule) -> None:
    """Moves every parameter, as training would, the same way every time."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in loss.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.2 * noise.to(parameter))


def as_tuple(key: NestedKey) -> tuple[str, ...]:
    """The key in the one form that compares."""
    return key if isinstance(key, tuple) else (key,)
