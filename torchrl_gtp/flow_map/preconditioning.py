"""EDM preconditioning of a denoising network (arXiv 2206.00364, table 1)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Preconditioning", "edm_preconditioning", "edm_time_weight"]


class Preconditioning(NamedTuple):
    """The factors of ``c_skip * a_t + c_out * network(c_in * a_t, ...)``.

    Attributes:
        c_skip: factor of the noisy action itself.
        c_out: factor of the network's output.
        c_in: factor of the noisy action on its way into the network.
    """

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor


def edm_preconditioning(t: Tensor, sigma_data: Tensor | float) -> Preconditioning:
    """Computes the EDM preconditioning at noise level ``t``.

    With ``sigma_data`` the standard deviation of clean actions,
    ``c_skip = sigma_data^2 / (t^2 + sigma_data^2)``,
    ``c_out = t * sigma_data / sqrt(t^2 + sigma_data^2)`` and
    ``c_in = 1 / sqrt(t^2 + sigma_data^2)``. At ``t = 0`` the preconditioned network is the
    identity, exactly.

    Args:
        t (Tensor): noise levels, non-negative, of any shape.
        sigma_data (Tensor or float): standard deviation of the data, positive.

    Returns:
        Preconditioning: three tensors of the shape of ``t`` (broadcast with ``sigma_data``).

    Examples:
        >>> import torch
        >>> at_data = edm_preconditioning(torch.zeros(1), sigma_data=0.5)
        >>> at_data.c_skip.item(), at_data.c_out.item()
        (1.0, 0.0)
    """
    variance = t.square() + sigma_data**2
    c_in = variance.rsqrt()
    return Preconditioning(c_skip=sigma_data**2 / variance, c_out=t * sigma_data * c_in, c_in=c_in)


def edm_time_weight(t: Tensor, sigma_data: Tensor | float) -> Tensor:
    """Computes the EDM weight ``1 / c_out^2`` of a squared denoising error.

    It gives every noise level the same effective weight on the network's own output; without it
    small noise levels hardly train.

    Args:
        t (Tensor): noise levels, positive, of any shape.
        sigma_data (Tensor or float): standard deviation of the data, positive.

    Returns:
        Tensor: ``(t^2 + sigma_data^2) / (t * sigma_data)^2``, of the shape of ``t``.

    Examples:
        >>> import torch
        >>> edm_time_weight(torch.tensor([0.5]), sigma_data=0.5).item()
        8.0
    """
    return (t.square() + sigma_data**2) / (t * sigma_data).square()
