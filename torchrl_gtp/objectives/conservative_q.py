"""Conservative Q-learning for a policy without a log-probability."""

from __future__ import annotations

import math
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor

from torchrl_gtp.modules import GTPActor
from torchrl_gtp.objectives.actor_critic import check_counts
from torchrl_gtp.objectives.base import Draw
from torchrl_gtp.objectives.double_q import ClippedDoubleQLoss

__all__ = ["ConservativeQLoss"]


class ConservativeQLoss(ClippedDoubleQLoss):
    """Clipped double-Q learning that lowers Q away from the data (CQL, arXiv 2006.04779).

    To the TD loss comes ``loss_cql = alpha sum_j (T ln E_rho[exp(Q_j(o, a') / T)] - Q_j(o, a))``
    (there eq. 4 with the KL divergence to a proposal ``rho`` as regulariser, appendix A). The
    proposal is the mixture, in equal parts, of uniform actions, samples of the policy at ``o`` and
    samples of the policy at ``o'``, N each. TorchRL's ``CQLLoss`` draws from the same three but
    divides by their densities, which makes the proposal uniform; a flow map has no density.

    Args:
        actor_network (GTPActor): the policy, with finite bounds.
        qvalue_network (TensorDictModule or list of them): as in
            :class:`~torchrl_gtp.objectives.ClippedDoubleQLoss`.
        value_network (TensorDictModule, optional): likewise.

    Keyword Args:
        conservative_weight (float): the factor alpha, at least 0. Defaults to ``5.0``.
        conservative_temperature (float): the temperature T, positive. Defaults to ``1.0``.
        num_conservative_samples (int): the number N of actions from each part of the proposal.
            Defaults to ``10``.
        **critic_options: further arguments of that class.

    Outputs: those of that class and ``loss_cql``.

    Raises:
        ValueError: for options outside the ranges above, or an actor without bounds.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import GTPLoss, make_gtp_actor, make_qvalue
        >>> actor = make_gtp_actor(observation_dim=4, action_spec=Bounded(-1, 1, (2,)))
        >>> critic = ConservativeQLoss(actor, make_qvalue(4, 2), conservative_weight=1.0)
        >>> loss = GTPLoss(actor, critic=critic)
        >>> [key for key in loss.out_keys if key.startswith("loss_")]
        ['loss_consistency', 'loss_flow', 'loss_qvalue', 'loss_cql']
    """

    def __init__(
        self,
        actor_network: GTPActor,
        qvalue_network: TensorDictModule | list[TensorDictModule],
        value_network: TensorDictModule | None = None,
        *,
        conservative_weight: float = 5.0,
        conservative_temperature: float = 1.0,
        num_conservative_samples: int = 10,
        **critic_options: Any,
    ) -> None:
        check_counts(num_conservative_samples=num_conservative_samples)
        if not 0.0 <= conservative_weight < math.inf:
            raise ValueError(
                f"conservative_weight must be finite and at least 0, got {conservative_weight}."
            )
        if not 0.0 < conservative_temperature < math.inf:
            raise ValueError(
                "conservative_temperature must be finite and positive, got "
                f"{conservative_temperature}."
            )
        bounds = torch.stack([actor_network.low, actor_network.high])
        if not bool(bounds.isfinite().all()):
            raise ValueError(
                "Uniform actions need finite bounds, but those of actor_network are "
                f"low={bounds[0].tolist()} and high={bounds[1].tolist()}: give them to the actor."
            )
        super().__init__(actor_network, qvalue_network, value_network, **critic_options)
        dtype, device = actor_network.low.dtype, actor_network.low.device
        self.register_coeff_buffer(
            "conservative_weight", conservative_weight, dtype=dtype, device=device
        )
        self.conservative_temperature = conservative_temperature
        self.num_conservative_samples = num_conservative_samples

    _schedulable_buffers = frozenset({"conservative_weight"})
    conservative_weight: Tensor

    def _loss_keys(self) -> list[str]:
        return [*super()._loss_keys(), "loss_cql"]

    def _draws(self) -> dict[str, Draw]:
        shape = (self.num_conservative_samples, self.actor_network.flat_dim)
        return {
            **super()._draws(),
            "cql_uniform": Draw("uniform", shape),
            "cql_present": Draw("normal", shape),
            "cql_following": Draw("normal", shape),
        }

    def cql_loss(self, tensordict: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the conservative term, times ``conservative_weight``, summed over networks.

        Args:
            tensordict (TensorDictBase): a batch of transitions; not modified.

        Returns:
            tuple of Tensor and dict: the loss, and no metadata.
        """
        tensordict = self._checked(tensordict, self._required_keys)
        actor, temperature = self.actor_network, self.conservative_temperature
        with torch.no_grad():
            uniform = self._draw(tensordict, "cql_uniform").to(self._dtype).movedim(-2, 0)
            low, high = (self.actor_network_params[name] for name in ("low", "high"))
            uniform = low + (high - low) * uniform.unflatten(-1, actor.event_shape)
            present = self._policy_actions(tensordict, self._draw(tensordict, "cql_present"))
            following = self._policy_actions(
                tensordict.get("next"), self._draw(tensordict, "cql_following")
            )
            # Nothing is read past a true end: there the policy at o stands in.
            ended = tensordict.get(("next", self.tensor_keys.terminated)).bool()
            ended = ended.reshape(*ended.shape[:-1], *(1,) * len(actor.event_shape))
            following = torch.where(ended, present, following)
            proposal = torch.cat([uniform, present, following])
        qvalues = self._qvalues(
            self._with_actions(tensordict, proposal), self.qvalue_network_params
        )
        log_mean = torch.logsumexp(qvalues / temperature, 1) - math.log(qvalues.shape[1])
        data = self._data_qvalues(tensordict, self.qvalue_network_params)
        loss = self._reduce((temperature * log_mean - data).sum(0), tensordict)
        self._clear_param_weakrefs(tensordict)
        return self.conservative_weight * loss, {}

    def losses(self, tensordict: TensorDictBase) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Computes the critics' losses; see :class:`~torchrl_gtp.objectives.Critic`."""
        losses, metadata = super().losses(tensordict)
        losses["loss_cql"], _ = self.cql_loss(tensordict)
        return losses, metadata
