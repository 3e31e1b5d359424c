"""The optimiser that a captured update needs."""

from __future__ import annotations

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
    denoiser, are left out.

    Args:
        loss_module (LossModule): the loss, on its device.
        lr (float or mapping of str to float): the learning rate, or one for each network, by
            names as in :class:`~torchrl_gtp.TargetUpdate`: ``"actor_network"``, or
            ``"critic.qvalue_network"`` for a network of a critic inside the loss, for which the
            last part of the name will do. Defaults to ``3e-4``.
        muon_lr (float or mapping of str to float, optional): trains the weights of hidden layers
            by Muon at this rate instead, those of all networks that have some or of those that a
            mapping names; 0.02 is its usual rate. A network then has a second group of the same
            name. See :class:`~torchrl_gtp.training.AdamWithMuon`. Defaults to ``None``: Adam alone.
        **adam_options: further arguments of :class:`torch.optim.Adam`, such as ``betas``.

    Returns:
        torch.optim.Optimizer: Adam, or Adam with Muon; its groups have a ``name`` and an
        ``initial_lr``.

    Raises:
        ValueError: if ``lr`` names a network that the loss does not train, or leaves one out; or
            ``muon_lr`` one without hidden weights of two dimensions.
        ImportError: with ``muon_lr``, before torch 2.9.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import GTPLoss, make_gtp_actor, make_qvalue
        >>> actor = make_gtp_actor(observation_dim=4, action_spec=Bounded(-1, 1, (2,)))
        >>> loss = GTPLoss(actor, make_qvalue(observation_dim=4, action_dim=2))
        >>> optimizer = make_optimizer(loss, {"actor_network": 3e-4, "qvalue_network": 1e-3})
        >>> [group["name"] for group in optimizer.param_groups]
        ['actor_network', 'qvalue_network']
        >>> optimizer = make_optimizer(loss, 1e-3, muon_lr={"actor_network": 0.02})
        >>> [(group["name"], len(group["params"])) for group in optimizer.param_groups]
        [('actor_network', 14), ('qvalue_network', 8), ('actor_network', 2)]
    """
    networks: dict[str, dict[str, nn.Parameter]] = {}
    for name, parameter in loss_module.named_parameters():
        if not parameter.requires_grad:
            continue
        network = name.partition("_params.")[0] if "_params." in name else name
        networks.setdefault(network, {})[name] = parameter
    rates = _by_network("lr", lr, networks)
    if rates.keys() != networks.keys():
        raise ValueError(_wrong_names("lr", "each", lr, networks))
    captured = any(parameter.is_cuda for parameter in loss_module.parameters())
    options: dict[str, Any] = {"fused": True, "capturable": captured, **adam_options}
    if muon_lr is None:
        groups = [_group(name, networks[name].values(), rate) for name, rate in rates.items()]
        return torch.optim.Adam(groups, **options)
    hidden = {name: hidden_weights(parameters.items()) for name, parameters in networks.items()}
    muon_rates = _by_network("muon_lr", muon_lr, [name for name, found in hidden.items() if found])
    if not muon_rates:
        raise ValueError(
            f"muon_lr={muon_lr} is for hidden weights of two dimensions, but none of the networks "
            f"{sorted(networks)} has any: leave it out."
        )
    adam_groups, muon_groups = [], []
    for name, parameters in networks.items():
        for_muon = hidden[name] if name in muon_rates else set()
        rest = [parameter for at, parameter in parameters.items() if at not in for_muon]
        adam_groups.append(_group(name, rest, rates[name]))
        if for_muon:
            chosen = [parameter for at, parameter in parameters.items() if at in for_muon]
            muon_groups.append(_group(name, chosen, muon_rates[name]))
    return AdamWithMuon(adam_groups, muon_groups, **options)


def _by_network(
    argument: str, rates: float | Mapping[str, float], networks: Iterable[str]
) -> dict[str, float]:
    """The rates by the full names of networks, for which the last part may stand."""
    if not isinstance(rates, Mapping):
        return dict.fromkeys(networks, rates)
    names = {
        network: network if network in rates else network.rpartition(".")[2] for network in networks
    }
    if not rates.keys() <= set(names.values()):
        which = "each" if argument == "lr" else "some"
        raise ValueError(_wrong_names(argument, which, rates, networks))
    return {network: rates[name] for network, name in names.items() if name in rates}


def _wrong_names(argument: str, which: str, rates: object, networks: Iterable[str]) -> str:
    given = sorted(rates) if isinstance(rates, Mapping) else rates
    return (
        f"{argument} must give a rate for {which} of the networks {sorted(networks)}, got {given}."
    )


def _group(name: str, parameters: Iterable[nn.Parameter], rate: float) -> dict[str, Any]:
    parameters = list(parameters)
    return {
        "params": parameters,
        "name": name,
        "lr": torch.tensor(rate, device=parameters[0].device),
        "initial_lr": rate,
    }
