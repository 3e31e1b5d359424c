"""One-line constructors of actors and critics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from tensordict.utils import NestedKey, unravel_key
from torch import Tensor, nn
from torchrl.data import Composite, TensorSpec
from torchrl.modules import MLP, ValueOperator

from torchrl_gtp.flow_map import FlowMap, LNResNetBackbone, MLPBackbone, NoiseLevels
from torchrl_gtp.flow_map.named_samplers import SamplerName
from torchrl_gtp.flow_map.samplers import Sampler
from torchrl_gtp.keys import checked_keys
from torchrl_gtp.modules.actor import GTPActor
from torchrl_gtp.modules.bounds import action_bounds
from torchrl_gtp.modules.checks import checked_chunk_length

__all__ = ["make_actor_critic", "make_gtp_actor", "make_qvalue", "make_value"]


def make_gtp_actor(
    observation_dim: int,
    action_spec: TensorSpec,
    *,
    observation_keys: Sequence[NestedKey] = ("observation",),
    action_key: NestedKey = "action",
    noise_key: NestedKey = "noise",
    sampler: SamplerName | Sampler = "jumps",
    num_steps: int = 5,
    chunk_length: int | None = None,
    sigma_data: float | Tensor = 0.5,
    noise_levels: NoiseLevels | None = None,
    backbone: Literal["mlp", "ln_resnet"] = "mlp",
    hidden_sizes: Sequence[int] = (256, 256, 256),
    activation: type[nn.Module] | None = None,
    dropout: float = 0.0,
    time_embedding_dim: int = 16,
) -> GTPActor:
    """Builds a :class:`GTPActor` over one of the library's backbones.

    Args:
        observation_dim (int): summed size of the observation entries.
        action_spec (TensorSpec): spec of one action, or a ``Composite`` that holds it.
        observation_keys (sequence of NestedKey): entries that make up the condition. Defaults to
            ``("observation",)``.
        action_key (NestedKey): entry of the action. Defaults to ``"action"``.
        noise_key (NestedKey): optional input entry with standard normal noise. Defaults to
            ``"noise"``.
        sampler (str or Sampler): how K steps take noise to an action: ``"jumps"``, ``"matched"``,
            ``"adaptive"``, ``"euler"``, ``"heun"``, ``"ddpm"``, ``"consistency"`` or an object of
            :mod:`~torchrl_gtp.flow_map.samplers`. ``"matched"`` needs a map whose denoiser has been
            trained (:class:`~torchrl_gtp.flow_map.MatchedStart`). Defaults to ``"jumps"``.
        num_steps (int): the number of jumps or steps K. Defaults to ``5``.
        chunk_length (int, optional): the number H of actions generated at once, for actions
            [..., H, A]. Defaults to ``None``: [..., A].
        sigma_data (float or Tensor): root mean square of the actions in the data, one number or
            one for each of the A dimensions (:func:`~torchrl_gtp.flow_map.action_scale`).
            Defaults to ``0.5``.
        noise_levels (NoiseLevels, optional): the range of noise levels. Defaults to
            ``NoiseLevels()``.
        backbone ("mlp" or "ln_resnet"): the network,
            :class:`~torchrl_gtp.flow_map.MLPBackbone` or the residual one of IDQL,
            :class:`~torchrl_gtp.flow_map.LNResNetBackbone`. For another one build the
            :class:`GTPActor` on a :class:`~torchrl_gtp.FlowMap` of it. Defaults to ``"mlp"``.
        hidden_sizes (sequence of int): widths of the hidden layers, or of the residual blocks,
            which are all equal. Defaults to ``(256, 256, 256)``.
        activation (type of nn.Module, optional): activation class. Defaults to ``None``:
            ``nn.ReLU``, which learns the finest structure in few dimensions, and ``nn.SiLU`` for a
            sequence of actions, whose many dimensions are too much for it.
        dropout (float): dropout in the residual blocks, in [0, 1). Defaults to ``0.0``.
        time_embedding_dim (int): size of each time embedding. Defaults to ``16``.

    Returns:
        GTPActor: the actor.

    Raises:
        ValueError: for another ``backbone``, for ``dropout`` with ``"mlp"``, which has none, or
            for ``"ln_resnet"`` with widths that differ.

    Examples:
        >>> from torchrl.data import Bounded
        >>> actor = make_gtp_actor(observation_dim=4, action_spec=Bounded(-1, 1, (2,)))
        >>> actor.in_keys, actor.out_keys, actor.num_steps
        (['observation'], ['action'], 5)
    """
    low, high = action_bounds(action_spec, action_key)
    length = checked_chunk_length(chunk_length) or 1
    if isinstance(sigma_data, Tensor) and sigma_data.numel() == low.numel() > 1:
        sigma_data = sigma_data.reshape(-1).repeat(length)
    if activation is None:
        activation = nn.ReLU if length == 1 else nn.SiLU
    network = _backbone(
        backbone,
        hidden_sizes,
        dropout,
        action_dim=length * low.numel(),
        condition_dim=observation_dim,
        activation=activation,
        time_embedding_dim=time_embedding_dim,
    )
    return GTPActor(
        FlowMap(network, sigma_data=sigma_data, noise_levels=noise_levels),
        low=low,
        high=high,
        observation_keys=observation_keys,
        action_key=action_key,
        noise_key=noise_key,
        sampler=sampler,
        num_steps=num_steps,
        chunk_length=chunk_length,
    )


def make_qvalue(
    observation_dim: int,
    action_dim: int,
    *,
    chunk_length: int | None = None,
    num_quantiles: int = 1,
    observation_keys: Sequence[NestedKey] = ("observation",),
    action_key: NestedKey = "action",
    hidden_sizes: Sequence[int] = (256, 256, 256),
    activation: type[nn.Module] = nn.Mish,
) -> ValueOperator:
    """Builds a Q-network; the losses make their twins of it.

    Args:
        observation_dim (int): summed size of the observation entries.
        action_dim (int): size A of one action.
        chunk_length (int, optional): the number H of actions in a chunk, for values ``Q(o, chunk)``
            of chunks [..., H, A]. Defaults to ``None``: actions [..., A].
        num_quantiles (int): the number of values that the network gives: more than one for the
            quantiles of :class:`~torchrl_gtp.objectives.TruncatedQuantileLoss`. Defaults to ``1``.
        observation_keys (sequence of NestedKey): observation entries. Defaults to
            ``("observation",)``.
        action_key (NestedKey): entry of the action. Defaults to ``"action"``.
        hidden_sizes (sequence of int): widths of the hidden layers. Defaults to
            ``(256, 256, 256)``.
        activation (type of nn.Module): activation class. Defaults to ``nn.Mish``.

    Returns:
        ValueOperator: writes ``state_action_value`` [..., num_quantiles].

    Raises:
        ValueError: if ``num_quantiles`` is smaller than 1.

    Examples:
        >>> import torch
        >>> qvalue = make_qvalue(observation_dim=4, action_dim=2)
        >>> qvalue(observation=torch.zeros(8, 4), action=torch.zeros(8, 2)).shape
        torch.Size([8, 1])
        >>> qvalue = make_qvalue(observation_dim=4, action_dim=2, chunk_length=5)
        >>> qvalue(observation=torch.zeros(8, 4), action=torch.zeros(8, 5, 2)).shape
        torch.Size([8, 1])
    """
    chunk_length = checked_chunk_length(chunk_length)
    if num_quantiles < 1:
        raise ValueError(f"num_quantiles must be at least 1, got {num_quantiles}.")
    return ValueOperator(
        _value_mlp(
            observation_dim + action_dim * (chunk_length or 1),
            hidden_sizes,
            activation,
            out_features=num_quantiles,
            mlp_class=MLP if chunk_length is None else _ChunkMLP,
        ),
        in_keys=[*checked_keys(observation_keys), unravel_key(action_key)],
        out_keys=["state_action_value"],
    )


def make_value(
    observation_dim: int,
    *,
    observation_keys: Sequence[NestedKey] = ("observation",),
    hidden_sizes: Sequence[int] = (256, 256, 256),
    activation: type[nn.Module] = nn.Mish,
) -> ValueOperator:
    """Builds a state-value network for expectile regression (IQL, arXiv 2110.06169).

    Args:
        observation_dim (int): summed size of the observation entries.
        observation_keys (sequence of NestedKey): observation entries. Defaults to
            ``("observation",)``.
        hidden_sizes (sequence of int): widths of the hidden layers. Defaults to
            ``(256, 256, 256)``.
        activation (type of nn.Module): activation class. Defaults to ``nn.Mish``.

    Returns:
        ValueOperator: writes ``state_value`` [..., 1].

    Examples:
        >>> import torch
        >>> make_value(observation_dim=4)(observation=torch.zeros(8, 4)).shape
        torch.Size([8, 1])
    """
    return ValueOperator(
        _value_mlp(observation_dim, hidden_sizes, activation),
        in_keys=checked_keys(observation_keys),
        out_keys=["state_value"],
    )


def make_actor_critic(
    observation_spec: Composite,
    action_spec: TensorSpec,
    *,
    observation_keys: Sequence[NestedKey] = ("observation",),
    action_key: NestedKey = "action",
    **actor_options: Any,
) -> tuple[GTPActor, ValueOperator]:
    """Builds an actor and a Q-network from the specs of an environment, in one line.

    Args:
        observation_spec (Composite): ``env.observation_spec``; vectors in ``observation_keys``.
        action_spec (TensorSpec): ``env.action_spec`` or ``env.full_action_spec``; the environment
            may be batched.
        observation_keys (sequence of NestedKey): observation entries to use. Defaults to
            ``("observation",)``.
        action_key (NestedKey): entry of the action. Defaults to ``"action"``.
        **actor_options: further arguments of :func:`make_gtp_actor`; ``hidden_sizes``,
            ``activation`` and ``chunk_length`` also apply to the Q-network.

    Returns:
        tuple of GTPActor and ValueOperator: what :class:`~torchrl_gtp.GTPLoss` takes.

    Raises:
        ValueError: if an observation key is not in ``observation_spec``.

    Examples:
        >>> from torchrl.data import Bounded, Unbounded
        >>> from torchrl_gtp import GTPLoss
        >>> actor, qvalue = make_actor_critic(
        ...     Composite(observation=Unbounded(4)), Bounded(-1, 1, (2,)), hidden_sizes=(64, 64)
        ... )
        >>> loss = GTPLoss(actor, qvalue)
    """
    batch_dims = len(observation_spec.shape)
    if not isinstance(action_spec, Composite) and len(action_spec.shape) == batch_dims + 1:
        # env.action_spec of a batched environment: the bounds of one member are those of all.
        action_spec = action_spec[(0,) * batch_dims] if batch_dims else action_spec
    missing = [
        key
        for key in checked_keys(observation_keys)
        if key not in observation_spec.keys(True, True)
    ]
    if missing:
        raise ValueError(
            f"observation_spec has no {missing}, only {list(observation_spec.keys(True, True))}."
        )
    observation_dim = sum(observation_spec[key].shape[-1] for key in observation_keys)
    keys: dict[str, Any] = {"observation_keys": observation_keys, "action_key": action_key}
    actor = make_gtp_actor(observation_dim, action_spec, **keys, **actor_options)
    names = ("hidden_sizes", "activation", "chunk_length")
    shared = {name: actor_options[name] for name in names if name in actor_options}
    return actor, make_qvalue(observation_dim, actor.action_dim, **keys, **shared)


def _backbone(
    name: str, hidden_sizes: Sequence[int], dropout: float, **options: Any
) -> MLPBackbone:
    if name == "mlp":
        if dropout:
            raise ValueError(
                f"dropout={dropout} has no effect with backbone='mlp': take 'ln_resnet', or leave "
                "dropout at 0."
            )
        return MLPBackbone(hidden_sizes=hidden_sizes, **options)
    if name != "ln_resnet":
        raise ValueError(f"backbone must be 'mlp' or 'ln_resnet', got {name!r}.")
    if len(set(hidden_sizes)) != 1:
        raise ValueError(
            "backbone='ln_resnet' has residual blocks of one width: hidden_sizes must hold the "
            f"same number once for each block, got {tuple(hidden_sizes)}."
        )
    return LNResNetBackbone(
        hidden_dim=hidden_sizes[0], num_blocks=len(hidden_sizes), dropout=dropout, **options
    )


class _ChunkMLP(MLP):
    """An MLP over conditions [..., C] and a chunk of actions [..., H, A], the last input."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Flattens the chunk and concatenates the inputs."""
        return super().forward(*inputs[:-1], inputs[-1].flatten(-2))


def _value_mlp(
    in_features: int,
    hidden_sizes: Sequence[int],
    activation: type[nn.Module],
    *,
    out_features: int = 1,
    mlp_class: type[MLP] = MLP,
) -> MLP:
    return mlp_class(
        in_features=in_features,
        out_features=out_features,
        num_cells=list(hidden_sizes),
        activation_class=activation,
    )
