"""Moving averages of networks, each with its own rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from tensordict import TensorDictParams
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torchrl.objectives.common import LossModule
from torchrl.objectives.utils import TargetNetUpdater

from torchrl_gtp.objectives.shared_layers import memory_of

__all__ = ["TargetUpdate"]

_Number = TypeVar("_Number", int, float)
_SMALLEST = {"interval": 1, "start": 0}


class TargetUpdate(TargetNetUpdater):
    """Moves the target of each network at a rate of its own.

    Every :meth:`step` computes ``target <- target + tau (source - target)`` for all target networks
    of a loss, those of losses inside the loss too. A rate of 0 freezes a target and 1 copies the
    network. As with :class:`~torchrl.objectives.SoftUpdate` the constructor copies every network
    to its target, so construct it before a checkpoint of the loss is loaded.

    Networks go by their names in the loss: ``"actor_network"`` for what
    ``target_actor_network_params`` belongs to, and ``"critic.qvalue_network"`` for the
    ``qvalue_network`` of a loss that is the child ``critic``. A name without a dot stands for the
    networks of that name in all of these losses; a name with dots selects one and takes
    precedence.

    Averaged are parameters, and what shares their memory (a critic with ``separate_losses`` sees a
    shared encoder that way). Other buffers are copied at every step that moves the network: fixed
    constants have no average, and running statistics are averages already, as in
    :class:`~torch.optim.swa_utils.AveragedModel`.

    Rates and the count of steps are tensors that a step only reads and changes in place: steps may
    be compiled or captured in a CUDA graph, and follow :meth:`set_tau` and
    :meth:`load_state_dict`. The updater follows the loss to another device or dtype, except into a
    graph that was captured before.

    Args:
        loss_module (LossModule): the loss, itself rather than its compiled form.
        tau (float or mapping of str to float): the rate of all networks, or the rate of each, in
            [0, 1].

    Keyword Args:
        interval (int or mapping of str to int): a network moves only in steps whose number,
            counted from 0, is a multiple of this. Networks that a mapping leaves out have the
            default. Defaults to ``1``.
        start (int or mapping of str to int): the number of the first step that may move a network;
            until then its target stays as it was initialised. Defaults to ``0``. With
            ``interval=5, start=1000`` these are the steps of Diffusion-QL's moving average.

    Attributes:
        loss_module (LossModule): the loss.
        initialized (bool): whether the targets were copied from the networks.

    Raises:
        TypeError: if ``loss_module`` is no ``LossModule``.
        RuntimeError: if the loss has no targets, or lazy parameters that are not initialised yet.
        ValueError: for a network without a rate, a name that no network has, a rate outside
            [0, 1], or an interval or start that is no integer or too small.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import GTPLoss, make_gtp_actor, make_qvalue
        >>> actor = make_gtp_actor(observation_dim=4, action_spec=Bounded(-1, 1, (2,)))
        >>> loss = GTPLoss(actor, make_qvalue(observation_dim=4, action_dim=2))
        >>> updater = TargetUpdate(loss, {"actor_network": 0.005, "qvalue_network": 0.01})
        >>> updater.step()
        >>> updater.set_tau({"actor_network": 0.001})
        >>> updater
        TargetUpdate(actor_network=0.001, qvalue_network=0.01)
    """

    def __init__(
        self,
        loss_module: LossModule,
        tau: float | Mapping[str, float],
        *,
        interval: int | Mapping[str, int] = 1,
        start: int | Mapping[str, int] = 0,
    ) -> None:
        # The parent's constructor is not called: it wants targets in the loss itself, and marks
        # every network as cared for.
        if not isinstance(loss_module, LossModule):
            raise TypeError(
                f"loss_module must be a LossModule, got {type(loss_module).__name__}. Pass the "
                "loss itself where it was compiled or wrapped."
            )
        self.loss_module = loss_module
        self.initialized = False
        self._collect()
        if not self._networks:
            raise RuntimeError(
                f"{type(loss_module).__name__} has no target networks, so there is nothing to "
                "update. Ask for them with the loss's own arguments, such as delay_actor=True."
            )
        rates = self._by_network("tau", tau)
        missing = [name for name in self._networks if name not in rates]
        if missing:
            raise ValueError(
                f"tau has no rate for {missing}: give one for every network, where 0 freezes its "
                f"target; or one number for all. The networks are {self._networks}."
            )
        intervals = self._by_network("interval", interval)
        starts = self._by_network("start", start)
        self._tau = torch.tensor([rates[name] for name in self._networks], dtype=torch.float32)
        self._interval = torch.tensor([intervals.get(name, 1) for name in self._networks])
        self._start = torch.tensor([starts.get(name, 0) for name in self._networks])
        self._num_steps = torch.zeros((), dtype=torch.int64)
        self._follow_device()
        self.init_()
        for loss, network, _ in self._target_networks():
            loss._has_update_associated[network] = True

    @property
    def tau(self) -> dict[str, Tensor]:
        """The rate of each network, as tensors that share their memory with the updater."""
        return dict(zip(self._networks, self._tau.unbind(), strict=True))

    def set_tau(self, tau: float | Mapping[str, float]) -> None:
        """Sets rates, in place.

        Args:
            tau (float or mapping of str to float): as in the constructor; networks that a mapping
                leaves out keep their rates.

        Raises:
            ValueError: for a name that no network has, or a rate outside [0, 1].
        """
        for name, rate in self._by_network("tau", tau).items():
            self._tau[self._networks.index(name)].fill_(rate)

    @torch.no_grad()
    def init_(self) -> None:
        """Copies every network to its target."""
        for target, source in zip(self._targets_flat, self._sources_flat, strict=True):
            target.copy_(source)
        self.initialized = True

    @torch.no_grad()
    def step(self) -> None:
        """Moves every target whose turn it is, and counts the step.

        Raises:
            RuntimeError: if the targets were not initialised.
        """
        if not self.initialized:
            raise RuntimeError("TargetUpdate was not initialised: call init_() before step().")
        self._follow_device()
        turn = (self._num_steps >= self._start) & (self._num_steps % self._interval == 0)
        rates = torch.where(turn, self._tau, 0.0).unbind()
        targets, sources, weights = [], [], []
        for target, source, network, averaged in zip(
            self._targets_flat, self._sources_flat, self._network_of, self._averaged, strict=True
        ):
            rate = rates[network].to(target.device)
            if averaged:
                targets.append(target)
                sources.append(source)
                weights.append(rate.to(target.dtype))
            else:
                target.copy_(torch.where(rate > 0, source, target))
        torch._foreach_lerp_(targets, sources, weights)
        self._num_steps.add_(1)

    def state_dict(self) -> dict[str, Any]:
        """Returns the rates by network, the number of steps taken and ``initialized``."""
        return {
            "initialized": self.initialized,
            "num_steps": self._num_steps.clone(),
            "tau": {name: rate.clone() for name, rate in self.tau.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned, in place.

        Args:
            state_dict (mapping): the state of an updater of the same networks.

        Raises:
            ValueError: if the state is that of another kind of updater or of other networks.
        """
        expected = {"initialized", "num_steps", "tau"}
        if set(state_dict) != expected:
            raise ValueError(
                f"state_dict must have the entries {sorted(expected)} of a TargetUpdate, got "
                f"{sorted(state_dict)}."
            )
        if set(state_dict["tau"]) != set(self._networks):
            raise ValueError(
                f"state_dict has rates of {sorted(state_dict['tau'])}, but this loss has the "
                f"target networks {sorted(self._networks)}."
            )
        for name, rate in self.tau.items():
            rate.copy_(state_dict["tau"][name])
        self._num_steps.copy_(state_dict["num_steps"])
        self.initialized = state_dict["initialized"]

    def __repr__(self) -> str:
        rates = (f"{name}={rate.item():.6g}" for name, rate in self.tau.items())
        return f"{type(self).__name__}({', '.join(rates)})"

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if not key.endswith("_flat")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # A copied loss has tensors of its own, which copied lists would miss.
        self._collect()

    def _target_networks(self, *, aliases: bool = True) -> list[tuple[LossModule, str, str]]:
        """Lists (loss, name in this loss, name in the whole loss) of networks with targets."""
        found = []
        for path, module in self.loss_module.named_modules(remove_duplicate=not aliases):
            prefix, _, name = path.rpartition(".")
            owner = self.loss_module.get_submodule(prefix)
            if (
                isinstance(module, TensorDictParams)
                and isinstance(owner, LossModule)
                and name.startswith("target_")
                and name.endswith("_params")
            ):
                network = name.removeprefix("target_").removesuffix("_params")
                found.append((owner, network, f"{prefix}.{network}" if prefix else network))
        return found

    def _collect(self) -> None:
        """Notes all targets and their sources: these tensors stay the same on other devices."""
        # Under separate_losses a critic holds the memory of a shared encoder, but no parameter.
        trained = {memory_of(p) for p in self.loss_module.parameters() if not is_lazy(p)}
        self._networks: list[str] = []
        self._targets_flat: list[Tensor] = []
        self._sources_flat: list[Tensor] = []
        self._network_of: list[int] = []
        self._averaged: list[bool] = []
        # A target that two losses share must not move twice.
        for loss, network, name in self._target_networks(aliases=False):
            sources = loss._modules[f"{network}_params"]
            for key, target in loss._modules[f"target_{network}_params"].items(True, True):
                source = sources.get(key)
                if is_lazy(source):
                    raise RuntimeError(
                        f"The parameter {key!r} of {name!r} is not initialised yet: call the "
                        "network once before you construct the loss."
                    )
                self._targets_flat.append(target)
                self._sources_flat.append(source)
                self._network_of.append(len(self._networks))
                self._averaged.append(
                    target.is_floating_point()
                    and (isinstance(source, nn.Parameter) or memory_of(source) in trained)
                )
            self._networks.append(name)

    def _follow_device(self) -> None:
        device = self._targets_flat[0].device
        if self._tau.device != device:
            self._tau, self._interval = self._tau.to(device), self._interval.to(device)
            self._start, self._num_steps = self._start.to(device), self._num_steps.to(device)

    def _by_network(
        self, argument: str, values: _Number | Mapping[str, _Number]
    ) -> dict[str, _Number]:
        """Gives each network that ``values`` speaks of its value, and checks these."""
        if not isinstance(values, Mapping):
            chosen = dict.fromkeys(self._networks, values)
        else:
            short = {name: name.rpartition(".")[2] for name in self._networks}
            unknown = [key for key in values if key not in short and key not in short.values()]
            if unknown:
                raise ValueError(
                    f"{argument} names {unknown}, which this loss does not have; its target "
                    f"networks are {self._networks}."
                )
            chosen = {
                name: values[name if name in values else short[name]]
                for name in self._networks
                if name in values or short[name] in values
            }
        for name, value in chosen.items():
            if argument == "tau" and not 0.0 <= value <= 1.0:
                raise ValueError(f"tau of {name!r} must lie in [0, 1], got {value}.")
            if argument != "tau" and not (isinstance(value, int) and value >= _SMALLEST[argument]):
                raise ValueError(
                    f"{argument} of {name!r} must be an integer of at least "
                    f"{_SMALLEST[argument]}, got {value!r}."
                )
        return chosen
