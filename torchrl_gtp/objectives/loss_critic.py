"""TorchRL's losses, and a user's own, as critics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tensordict import TensorDict, TensorDictBase, TensorDictParams
from tensordict.nn import dispatch
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs.utils import ExplorationType
from torchrl.objectives import IQLLoss, TD3BCLoss, TD3Loss
from torchrl.objectives.common import LossModule
from torchrl.objectives.utils import _vmap_func

from torchrl_gtp.modules import GTPActor
from torchrl_gtp.objectives.actor_critic import check_counts

__all__ = ["LossCritic"]

# The parts of TorchRL's losses that train critics without a log-probability of the policy.
_CRITIC_LOSSES: dict[type[LossModule], dict[str, str]] = {
    IQLLoss: {"qvalue_loss": "loss_qvalue", "value_loss": "loss_value"},
    TD3Loss: {"value_loss": "loss_qvalue"},
    TD3BCLoss: {"qvalue_loss": "loss_qvalue"},
}


class LossCritic(LossModule):
    """Makes a :class:`~torchrl_gtp.objectives.Critic` of a loss that has Q-networks.

    The loss keeps its networks, options and value estimator. What it trains here are its critics,
    where they can be trained alone: ``IQLLoss``, ``TD3Loss`` and ``TD3BCLoss`` take a
    :class:`~torchrl_gtp.GTPActor` as their ``actor_network``, which is sampled, never
    differentiated. Losses that need a log-probability of their policy (``CQLLoss``, ``SACLoss``,
    ``REDQLoss``, ``TQCLoss``) run whole, with a stochastic actor of their own that is trained
    beside the flow map: a flow map gives samples, but no log-probability.

    Sampling with a :class:`~torchrl_gtp.GTPActor` takes another exploration type than TorchRL's
    losses choose, so the loss's ``deterministic_sampling_mode`` becomes ``RANDOM``.

    Args:
        loss_module (LossModule): the loss.

    Keyword Args:
        losses (sequence of str, optional): the methods of the loss to train by, each returning
            a loss and metadata; what ``value_loss`` gives is called ``loss_value``. Defaults to
            those that train the critics of the three losses above, and to calling any other loss
            whole.
        advantage (callable, optional): ``advantage(loss_module, tensordict)`` gives the advantage
            of each sample. Defaults to ``min_j Q_j(o, a) - V(o)``, where Q is the loss's
            ``qvalue_network`` (the delayed one beside a value network, as in IQL; a mean over
            quantiles where it gives several values) and V its ``value_network`` or, if it has
            none, the mean over samples of ``actor_network``.
        actor_network (GTPActor, optional): the policy whose samples give V(o); the delayed
            parameters are used. Needed if the loss has no value network. Defaults to the loss's
            own actor if that is a ``GTPActor``.
        num_value_samples (int): the number of these samples. Defaults to ``1``.

    Raises:
        TypeError: if ``loss_module`` is none, or needs a log-probability that its actor, a
            ``GTPActor``, cannot give.
        ValueError: if there is no way to an advantage.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import GTPLoss, TargetUpdate, make_gtp_actor, make_qvalue, make_value
        >>> actor = make_gtp_actor(observation_dim=4, action_spec=Bounded(-1, 1, (2,)))
        >>> iql = IQLLoss(actor, make_qvalue(4, 2), value_network=make_value(4), expectile=0.9)
        >>> loss = GTPLoss(actor, critic=LossCritic(iql), eta=3.0)
        >>> updater = TargetUpdate(loss, 0.005)
        >>> [key for key in loss.out_keys if key.startswith("loss_")]
        ['loss_consistency', 'loss_flow', 'loss_qvalue', 'loss_value']
    """

    loss_module: LossModule
    actor_network: GTPActor
    actor_network_params: TensorDictParams
    target_actor_network_params: TensorDictParams

    def __init__(
        self,
        loss_module: LossModule,
        *,
        losses: Sequence[str] | None = None,
        advantage: Callable[[LossModule, TensorDictBase], Tensor] | None = None,
        actor_network: GTPActor | None = None,
        num_value_samples: int = 1,
    ) -> None:
        super().__init__()
        if not isinstance(loss_module, LossModule):
            raise TypeError(f"loss_module must be a LossModule, got {type(loss_module).__name__}.")
        check_counts(num_value_samples=num_value_samples)
        own_actor = loss_module.__dict__.get("actor_network")
        self._methods = (
            _critic_methods(loss_module)
            if losses is None
            else {name: f"loss_{name.removesuffix('_loss')}" for name in losses}
        )
        unknown = [name for name in self._methods or () if not hasattr(loss_module, name)]
        if unknown:
            raise ValueError(f"losses: {type(loss_module).__name__} has no methods {unknown}.")
        if getattr(loss_module, "with_lagrange", False):
            raise ValueError(
                f"{type(loss_module).__name__} with with_lagrange=True minimises its multiplier's "
                "loss through the Q-networks as well, which cancels the conservative term: fix the "
                "multiplier with with_lagrange=False."
            )
        if isinstance(own_actor, GTPActor):
            ours = own_actor if actor_network is None else actor_network
            if {id(p) for p in ours.parameters()} != {id(p) for p in own_actor.parameters()}:
                raise ValueError(
                    f"{type(loss_module).__name__} has another actor_network than the one given: "
                    "build both with the same object."
                )
            if self._methods is None:
                raise TypeError(_NO_LOG_PROBABILITY.format(name=type(loss_module).__name__))
            # The next action is a sample of the policy, not the image of zero noise.
            loss_module.deterministic_sampling_mode = ExplorationType.RANDOM
            actor_network = own_actor
        has_value = loss_module.__dict__.get("value_network") is not None
        if advantage is None and "qvalue_network" not in loss_module.__dict__:
            raise ValueError(
                f"{type(loss_module).__name__} has no qvalue_network to make an advantage of: "
                "give advantage=, a function of the loss and the batch."
            )
        if advantage is None and not has_value and actor_network is None:
            raise ValueError(
                f"{type(loss_module).__name__} has no value_network, so V(o) comes from samples "
                "of the policy: give actor_network=, or advantage=."
            )
        # Made now, so that the state dict does not depend on whether the loss ran.
        if loss_module._value_estimator is None and loss_module.default_value_estimator is not None:
            loss_module.make_value_estimator()
        getattr(loss_module, "target_entropy", None)
        self.loss_module = loss_module
        self.num_value_samples = num_value_samples
        self._advantage = advantage
        self._has_value_network = has_value
        if advantage is None and not has_value:
            self.convert_to_functional(actor_network, "actor_network", create_target_params=True)
        if self._methods is None:
            self.out_keys = [key for key in loss_module.out_keys if key.startswith("loss_")]
        else:
            self.out_keys = list(self._methods.values())

    @property
    def in_keys(self) -> list[NestedKey]:
        """The entries that the loss reads."""
        return self.loss_module.in_keys

    @property
    def reduction(self) -> str:
        """How the loss reduces over the batch."""
        return getattr(self.loss_module, "reduction", "mean")

    def losses(self, tensordict: TensorDictBase) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Computes the losses; see :class:`~torchrl_gtp.objectives.Critic`.

        Raises:
            TypeError: if the loss asks its actor for a log-probability that it cannot give.
        """
        if tensordict.get("sampling_weight", default=None) is not None:
            raise ValueError(
                f"{type(self.loss_module).__name__} knows nothing of the entry 'sampling_weight', "
                "so that draws which are not uniform would bias it: draw uniformly, or take a "
                "critic of this library."
            )
        masks = [key for key in self.loss_module._loss_mask_keys() if key in tensordict.keys(True)]
        if masks and isinstance(self.loss_module, IQLLoss):
            raise ValueError(
                f"TorchRL's IQLLoss ignores masks, but the batch has {masks}: leave masked samples "
                "out, or give the loss a value_network, which is IQL with masks."
            )
        batch, metadata = tensordict.copy(), {}
        if self._methods is None:
            priority = self._key("priority", "td_error")
            batch = batch.exclude(priority)
            out = self.loss_module(batch)
            losses = {key: out.get(key) for key in self.out_keys}
            error = batch.get(priority, default=None)
        else:
            losses, error = {}, None
            for name, key in self._methods.items():
                try:
                    value, details = getattr(self.loss_module, name)(batch)
                except AttributeError as failure:
                    if "get_dist" not in str(failure):
                        raise
                    raise TypeError(
                        _NO_LOG_PROBABILITY.format(name=type(self.loss_module).__name__)
                    ) from failure
                losses[key] = value
                error = details.get("td_error", error)
        if error is not None:
            # One error for each network or one for all: the largest counts.
            extra = range(error.ndim - tensordict.ndim)
            metadata["td_error"] = error.detach().amax(tuple(extra)) if extra else error.detach()
        return losses, metadata

    @torch.no_grad()
    def advantage(self, tensordict: TensorDictBase) -> Tensor:
        """Computes the advantage of each sample, without gradient."""
        loss = self.loss_module
        if self._advantage is not None:
            return self._advantage(loss, tensordict)
        if self._has_value_network:
            with loss.value_network_params.to_module(
                loss.value_network, preserve_module_state=False
            ):
                value = loss.value_network(tensordict.select(*loss.value_network.in_keys))
            value = value.get(self._key("value", "state_value")).squeeze(-1)
            return self._qvalue(tensordict, loss.target_qvalue_network_params) - value
        actor = self.actor_network
        condition = actor.condition(tensordict)
        condition = condition.expand(self.num_value_samples, *condition.shape)
        with self.target_actor_network_params.to_module(actor, preserve_module_state=False):
            action = actor.sample(condition)
        action_key = self._key("action", "action")
        keys = [key for key in loss.qvalue_network.in_keys if key != action_key]
        samples = tensordict.select(*keys).expand(self.num_value_samples, *tensordict.shape)
        samples = samples.clone(False).set(action_key, action)
        value = self._qvalue(samples, loss.qvalue_network_params).mean(0)
        return self._qvalue(tensordict, loss.qvalue_network_params) - value

    def reset_parameters_recursive(self) -> None:
        """Draws the parameters of the loss anew; those of the policy belong to its own loss."""
        self.loss_module.reset_parameters_recursive()

    def _qvalue(self, tensordict: TensorDictBase, params: TensorDictParams) -> Tensor:
        """Evaluates the smallest of the Q-networks."""
        loss = self.loss_module
        inputs = tensordict.select(*loss.qvalue_network.in_keys)
        if params.batch_dims:
            evaluate = _vmap_func(loss.qvalue_network, (None, 0), randomness=loss.vmap_randomness)
            outputs = evaluate(inputs, params)
        else:
            with params.to_module(loss.qvalue_network, preserve_module_state=False):
                outputs = loss.qvalue_network(inputs).unsqueeze(0)
        qvalue = outputs.get(self._key("state_action_value", "state_action_value"))
        return qvalue.mean(-1).amin(0)

    def _key(self, name: str, default: NestedKey) -> NestedKey:
        """The entry that the loss calls ``name``; a user's loss need not have keys of its own."""
        return getattr(self.loss_module.tensor_keys, name, default)

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Computes the losses from a batch, as an entry for each."""
        losses, _ = self.losses(tensordict)
        batch_size = tensordict.batch_size if self.reduction == "none" else []
        return TensorDict(losses, batch_size=batch_size)


_NO_LOG_PROBABILITY = (
    "{name} asks its policy for log-probabilities, which a GTPActor does not have. Give it a "
    "stochastic actor of its own (TorchRL's ProbabilisticActor), or use a critic that only needs "
    "samples: ClippedDoubleQLoss, ConservativeQLoss, TruncatedQuantileLoss, IQLLoss, TD3Loss or "
    "TD3BCLoss."
)


def _critic_methods(loss_module: LossModule) -> dict[str, str] | None:
    """The methods that train the critics of TorchRL's losses; None for a loss to be called."""
    for kind, methods in _CRITIC_LOSSES.items():
        if isinstance(loss_module, kind):
            return methods
    return None
