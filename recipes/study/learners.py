"""What a method of a study trains: builders that the method's config names."""

from __future__ import annotations

import torch
from hydra.utils import get_class
from omegaconf import DictConfig

from recipes.gtp.learner import Learner, make_loss
from torchrl_gtp.data import MinariReplayBuffer
from torchrl_gtp.flow_map import Objective, Sampler, family
from torchrl_gtp.flow_map.family import FamilyName


def flow_map_learner(
    cfg: DictConfig,
    buffer: MinariReplayBuffer,
    device: torch.device,
    *,
    loss_class: str = "torchrl_gtp.GTPLoss",
) -> Learner:
    """A flow map, trained as the groups ``actor``, ``critic`` and ``loss`` say.

    Args:
        cfg: the cell's config; ``cfg.bc`` leaves out the critic.
        buffer: the dataset.
        device: where the networks go.
        loss_class: a class derived from ``GTPLoss``, which the group ``loss`` goes to.
    """
    loss = make_loss(cfg, buffer, bc=cfg.bc, loss_class=get_class(loss_class)).to(device)
    return Learner(loss, cfg.optim, compilation=cfg.compile)


def family_objective(name: FamilyName) -> Objective:
    """The objective of a generative policy, for ``loss.objective`` of a config.

    Args:
        name: a name of :func:`~torchrl_gtp.flow_map.family`.

    Example:
        >>> list(family_objective("mean_flow").terms)
        ['mean_flow']
    """
    return family(name).objective


def family_sampler(name: FamilyName) -> Sampler:
    """The sampler of a generative policy, for ``actor.sampler`` of a config.

    Args:
        name: a name of :func:`~torchrl_gtp.flow_map.family`.

    Example:
        >>> family_sampler("diffusion").evaluations(5)
        9
    """
    return family(name).sampler
