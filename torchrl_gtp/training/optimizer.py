"""The optimiser that a captured update needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torchrl.objectives.common import LossModule

__all__ = ["make_optimizer"]


def make_optimizer(
    loss_module: LossModule, lr: float | Mapping[str, float] = 3e-4, **adam_options: Any
) -> torch.optim.Adam:
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
        **adam_options: further arguments of :class:`torch.optim.Adam`, such as ``betas``.

    Returns:
        torch.optim.Adam: its groups have a ``name`` and an ``initial_lr``.

    Raises:
        ValueError: if ``lr`` names a network that the loss does not train, or leaves one out.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import GTPLoss, make_gtp_actor, make_qvalue
        >>> actor = make_gtp_actor(observation_dim=4, action_spec=Bounded(-1, 1, (2,)))
        >>> loss = GTPLoss(actor, make_qvalue(observation_dim=4, action_dim=2))
        >>> optimizer = make_optimizer(loss, {"actor_network": 3e-4, "qvalue_network": 1e-3})
        >>> [group["name"] for group in optimizer.param_groups]
        ['actor_network', 'qvalue_network']
    """
    networks: dict[str, list[nn.Parameter]] = {}
    for name, parameter in loss_module.named_parameters():
        if not parameter.requires_grad:
            continue
        network = name.partition("_params.")[0] if "_params." in name else name
        networks.setdefault(network, []).append(parameter)
    if isinstance(lr, Mapping):
        names = {n: n if n in lr else n.rpartition(".")[2] for n in networks}
        if set(names.values()) != set(lr):
            raise ValueError(
                f"lr must give a rate for each of the networks {sorted(networks)}, got "
                f"{sorted(lr)}."
            )
        rates = {network: lr[name] for network, name in names.items()}
    else:
        rates = dict.fromkeys(networks, lr)
    groups = [
        {
            "params": parameters,
            "name": network,
            "lr": torch.tensor(rates[network], device=parameters[0].device),
            "initial_lr": rates[network],
        }
        for network, parameters in networks.items()
    ]
    captured = any(parameter.is_cuda for parameter in loss_module.parameters())
    return torch.optim.Adam(groups, fused=True, capturable=captured, **adam_options)
