"""The optimiser that a captured update needs."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torchrl.objectives.common import LossModule

from torchrl_gtp.training.muon import AdamWithMuon, hidden_weights

__all__ = ["make_optimizer"]


def make_optimizer(
    loss_module: LossModule,
    lr: float | Mapping[str, float] = 3e-4,
    *,
    muon_lr: float | Mapping[str, float] | None = None,
    **adam_options: Any,
) -> torch.optim.Optimizer:
    """Builds Adam with a parameter group for each network, and rates that are tensors.

    A rate in a tensor may change inside a compiled or captured update, and a group for each
    network lets gradients be clipped network by network. It is the fused implementation, which
    reads nothing back to the host. Parameters that require no gradient, such as those of a frozen
    denoiser, are left out. The weights of hidden layers may have Muon instead.

    Args:
        loss_module (LossModule): the loss, on its device.
        lr (float or mapping of str to float): the learning rate, or one for each network, by
            names as in :class:`~torchrl_gtp.TargetUpdate`: ``"actor_network"``, or
            ``"critic.qvalue_network"`` for a network of a critic inside the loss, for which the
            last part of the name will do. Defaults to ``3e-4``.
        muon_lr (float or mapping of str to float, optional): trains the weights of hidden layers
            by Muon at this rate, in all networks that have some or in those that a mapping names;
            0.02 is its usual rate. They are weights of two dimensions, not the stacked ones of an
            ensemble, of the ``nn.Linear`` layers inside an ``nn.Sequential``. Such a network has a
            second group of its name, after those of Adam. Defaults to ``None``: Adam alone.
        **adam_options: further arguments of :class:`torch.optim.Adam`, such as ``betas``; with
            ``muon_lr`` of :class:`~torchrl_gtp.training.AdamWithMuon`.

    Returns:
        torch.optim.Optimizer: Adam, or with ``muon_lr`` an
        :class:`~torchrl_gtp.training.AdamWithMuon`; its groups have a ``name`` and an
        ``initial_lr``.

    Raises:
        ValueError: if ``lr`` names a network that the loss does not train, or leaves one out; if
            ``muon_lr`` names one without such weights; or for options that AdamWithMuon refuses.
        ImportError: with ``muon_lr``, before torch 2.9.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import GTPLoss, make_gtp_actor, make_qvalue
        >>> actor = make_gtp_actor(observation_dim=4, action_spec=Bounded(-1, 1, (2,)))
        >>> loss = GTPLoss(actor, make_qvalue(observation_dim=4, action_dim=2))
        >>> optimizer = make_optimizer(loss, {"actor_network": 3e-4, "qvalue_network": 1e-3})
        >>> [group["name"] for group in optimizer.param_groups]
        ['actor_network', 'qvalue_network']
        >>> optimizer = make_optimizer(loss, 1e-3, muon_lr=0.02)
        >>> [(group["name"], len(group["params"])) for group in optimizer.param_groups]
        [('actor_network', 14), ('qvalue_network', 8), ('actor_network', 2)]
    """
    networks: dict[str, dict[str, nn.Parameter]] = {}
    for name, parameter in loss_module.named_parameters():
        if not parameter.requires_grad:
            continue
        network = name.partition("_params.")[0] if "_params." in name else name
        networks.setdefault(network, {})[name] = parameter
    rates = _by_network("lr", lr, networks, of_each=True)
    captured = any(parameter.is_cuda for parameter in loss_module.parameters())
    options: dict[str, Any] = {"fused": True, "capturable": captured, **adam_options}
    if muon_lr is None or muon_lr == {}:
        groups = [_group(name, networks[name].values(), rate) for name, rate in rates.items()]
        return torch.optim.Adam(groups, **options)
    hidden = {name: _hidden(loss_module, name, of) for name, of in networks.items()}
    hidden = {name: weights for name, weights in hidden.items() if weights}
    if not hidden:
        raise ValueError(
            f"muon_lr={muon_lr} is for weights of two dimensions inside an nn.Sequential, and none "
            f"of the networks {sorted(networks)} has any: leave it out."
        )
    muon_rates = _by_network("muon_lr", muon_lr, hidden, of_each=False)
    muon_groups = [_group(name, hidden[name].values(), rate) for name, rate in muon_rates.items()]
    adam_groups = [
        _group(
            name,
            (
                parameter
                for path, parameter in networks[name].items()
                if name not in muon_rates or path not in hidden[name]
            ),
            rate,
        )
        for name, rate in rates.items()
    ]
    return AdamWithMuon(adam_groups, muon_groups, **options)


def _hidden(
    loss_module: LossModule, network: str, parameters: Mapping[str, nn.Parameter]
) -> dict[str, nn.Parameter]:
    """The hidden weights of a network in training, which are not those of an ensemble."""
    module = operator.attrgetter(network)(loss_module)
    if not isinstance(module, nn.Module):
        return {}
    paths = {f"{network}_params.{path}" for path in hidden_weights(module)}
    return {name: p for name, p in parameters.items() if name in paths and p.ndim == 2}


def _by_network(
    argument: str, rates: float | Mapping[str, float], networks: Iterable[str], *, of_each: bool
) -> dict[str, float]:
    """The rates by the full names of networks, for which the last part may stand."""
    if not isinstance(rates, Mapping):
        return dict.fromkeys(networks, rates)
    names = {
        network: network if network in rates else network.rpartition(".")[2] for network in networks
    }
    given, accepted = set(rates), set(names.values())
    if given - accepted or (of_each and given != accepted):
        which = "each of the networks" if of_each else "some of the networks with hidden weights"
        raise ValueError(
            f"{argument} must give a rate for {which} {sorted(names)}, got {sorted(rates)}."
        )
    return {network: rates[name] for network, name in names.items() if name in rates}


def _group(name: str, parameters: Iterable[nn.Parameter], rate: float) -> dict[str, Any]:
    parameters = list(parameters)
    return {
        "params": parameters,
        "name": name,
        # A rate such as 1 must not become a tensor of integers.
        "lr": torch.tensor(float(rate), device=parameters[0].device),
        "initial_lr": rate,
    }
