"""Numbers that half precision cannot tell apart."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_single(values: Tensor) -> Tensor:
    """Casts half precision to single precision, and leaves all else as it is.

    Neighbouring noise levels are one and the same number in half precision, and the weights of
    small ones exceed its range.

    Args:
        values (Tensor): floating-point numbers of any shape.

    Examples:
        >>> at_least_single(torch.ones(1, dtype=torch.bfloat16)).dtype
        torch.float32
        >>> at_least_single(torch.ones(1, dtype=torch.float64)).dtype
        torch.float64
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))
