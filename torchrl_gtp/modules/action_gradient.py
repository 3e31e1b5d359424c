"""Actions moved uphill in Q: the policy improvement of DIPO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase, dispatch
from tensordict.utils import NestedKey, unravel_key
from torch import Tensor, nn
from torchrl.data import TensorSpec

from torchrl_gtp.modules.bounds import checked_bounds

__all__ = ["ActionGradient"]


class ActionGradient(TensorDictModuleBase):
    """Takes a few steps of gradient ascent on Q from given actions, within their bounds.

    This is the action gradient of DIPO (arXiv 2305.13122): the policy is fitted to
    actions of the buffer that were moved to where Q is larger, so that no gradient passes through
    its sampler. The actions are read from one entry and written to another one, because the
    critics must go on to learn from the actions that were taken. The policy's loss reads the
    improved ones after ``loss.set_keys(policy_action="improved_action")``.

    The improvement starts from the data each time, or goes on where it stopped: with
    ``action_key="improved_action"`` and :func:`~torchrl_gtp.data.write_entry` the actions in the
    buffer move on with every draw, as in the publication.
    :func:`~torchrl_gtp.data.copy_entry` makes that entry for a dataset.

    A sample whose gradient is not finite at any step keeps the action that it started from, and
    has no part in the norm of ``max_grad_norm``.

    Args:
        qvalue_networks (sequence of TensorDictModule): the Q-networks. They read observation
            entries and an action entry. Their parameters get no gradient.
        action_spec (TensorSpec, optional): spec of one action, for the bounds. Exclusive with
            ``low`` and ``high``.

    Keyword Args:
        low (Tensor or sequence of float, optional): lower bounds [A].
        high (Tensor or sequence of float, optional): upper bounds [A].
        num_steps (int): the number of steps. Defaults to ``20``.
        learning_rate (float): of the optimiser. Defaults to ``0.03``.
        optimizer ("adam" or "sgd"): ``"adam"`` (with eps 1e-5, as published) starts afresh in each
            call; ``"sgd"`` is ``a <- clip(a + learning_rate * gradient)``. Defaults to ``"adam"``.
        max_grad_norm (float, optional): largest Euclidean norm of the gradients of all actions of
            the batch together, as published (0.1 times the dimension of the action); it makes
            the samples of a batch depend on one another. Defaults to ``None``: no limit.
        ensemble ("min" or "mean"): what is climbed, of several Q-networks. Defaults to ``"min"``.
        action_key (NestedKey): the entry with the actions to start from. Defaults to
            ``"action"``.
        improved_key (NestedKey): the entry to write. Defaults to ``"improved_action"``.
        qvalue_action_key (NestedKey): where the Q-networks read the action. Defaults to
            ``"action"``.
        state_action_value_key (NestedKey): what the Q-networks write. Defaults to
            ``"state_action_value"``.

    Raises:
        ValueError: if there is no Q-network, for options outside the ranges above, or bounds that
            are missing or wrong.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import make_qvalue
        >>> improve = ActionGradient([make_qvalue(4, 2), make_qvalue(4, 2)], Bounded(-1, 1, (2,)))
        >>> batch = TensorDict({"observation": torch.randn(8, 4), "action": torch.zeros(8, 2)}, [8])
        >>> improve(batch)["improved_action"].abs().max() > 0
        tensor(True)
        >>> improve.in_keys, improve.out_keys
        (['observation', 'action'], ['improved_action'])
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        qvalue_networks: Sequence[TensorDictModule],
        action_spec: TensorSpec | None = None,
        *,
        low: Tensor | Sequence[float] | None = None,
        high: Tensor | Sequence[float] | None = None,
        num_steps: int = 20,
        learning_rate: float = 0.03,
        optimizer: Literal["adam", "sgd"] = "adam",
        max_grad_norm: float | None = None,
        ensemble: Literal["min", "mean"] = "min",
        action_key: NestedKey = "action",
        improved_key: NestedKey = "improved_action",
        qvalue_action_key: NestedKey = "action",
        state_action_value_key: NestedKey = "state_action_value",
    ) -> None:
        super().__init__()
        if not qvalue_networks:
            raise ValueError("qvalue_networks must hold at least one Q-network, got none.")
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
        for name, number in (("learning_rate", learning_rate), ("max_grad_norm", max_grad_norm)):
            if number is not None and not 0.0 < number < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {number}.")
        if optimizer not in ("adam", "sgd"):
            raise ValueError(f"optimizer must be 'adam' or 'sgd', got {optimizer!r}.")
        if ensemble not in ("min", "mean"):
            raise ValueError(f"ensemble must be 'min' or 'mean', got {ensemble!r}.")
        dtype = low.dtype if isinstance(low, Tensor) else torch.get_default_dtype()
        low, high = checked_bounds(action_spec, qvalue_action_key, low, high, dtype)
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.qvalue_networks = nn.ModuleList(qvalue_networks)
        self.num_steps = num_steps
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self.ensemble = ensemble
        self.action_key = unravel_key(action_key)
        self.qvalue_action_key = unravel_key(qvalue_action_key)
        self.state_action_value_key = state_action_value_key
        keys = dict.fromkeys(key for network in qvalue_networks for key in network.in_keys)
        self._observed = [key for key in keys if key != self.qvalue_action_key]
        self.in_keys = [*self._observed, self.action_key]
        self.out_keys = [unravel_key(improved_key)]

    @dispatch(auto_batch_size=False)
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Writes improved actions to ``tensordict``.

        Args:
            tensordict (TensorDictBase): holds the entries ``in_keys``.

        Returns:
            TensorDictBase: the input with the improved actions, without gradient.

        Raises:
            KeyError: if an entry is missing.
        """
        missing = [key for key in self.in_keys if tensordict.get(key, default=None) is None]
        if missing:
            raise KeyError(
                f"The action gradient needs the entries {missing}, which the input lacks; it has "
                f"{sorted(map(str, tensordict.keys(True, True)))}."
            )
        observed = TensorDict(
            {key: self._cast(tensordict.get(key)) for key in self._observed},
            batch_size=tensordict.get(self._observed[0]).shape[:-1],
        )
        start = tensordict.get(self.action_key).detach().to(self.low.dtype)
        action, is_sound = start.clone(), torch.ones_like(start, dtype=torch.bool)
        optimizer: torch.optim.Optimizer
        if self.optimizer == "adam":
            optimizer = torch.optim.Adam([action], lr=self.learning_rate, eps=1e-5)
        else:
            optimizer = torch.optim.SGD([action], lr=self.learning_rate)
        for _ in range(self.num_steps):
            gradient = self._gradient(observed, action)
            # The squares, for they make the norm of all.
            is_sound &= _all_finite(gradient.square(), observed.batch_dims)
            action.grad = torch.where(is_sound, -gradient, 0.0)
            if self.max_grad_norm is not None:
                nn.utils.clip_grad_norm_([action], self.max_grad_norm)
            optimizer.step()
            action.clamp_(self.low, self.high)
        action.grad = None
        action = torch.where(is_sound, action, start.clamp(self.low, self.high))
        return tensordict.set(self.out_keys[0], action)

    def _cast(self, entry: Tensor) -> Tensor:
        return entry.to(self.low.dtype) if entry.is_floating_point() else entry

    def _gradient(self, observed: TensorDict, action: Tensor) -> Tensor:
        """Computes the gradient of each sample's Q by its action."""
        with torch.enable_grad():
            action = action.detach().requires_grad_()
            inputs = observed.clone(False).set(self.qvalue_action_key, action)
            qvalues = torch.stack(
                [
                    # The mean, where a network gives quantiles.
                    network(inputs.clone(False)).get(self.state_action_value_key).mean(-1)
                    for network in self.qvalue_networks
                ]
            )
            reduced = qvalues.amin(0) if self.ensemble == "min" else qvalues.mean(0)
            (gradient,) = torch.autograd.grad(reduced.sum(), action)
        return gradient


def _all_finite(actions: Tensor, batch_dims: int) -> Tensor:
    """Whether all numbers of a sample are finite, in the shape of the actions."""
    finite = actions.isfinite().flatten(batch_dims).all(-1)
    return finite.reshape(*finite.shape, *[1] * (actions.ndim - batch_dims)).expand_as(actions)
