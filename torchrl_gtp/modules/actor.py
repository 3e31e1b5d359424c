"""The policy: a flow map that turns noise into an action, as a TensorDict module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from tensordict.nn import dispatch
from tensordict.nn.probabilistic import InteractionType, interaction_type
from tensordict.utils import NestedKey, unravel_key
from torch import Tensor
from torchrl.data import TensorSpec

from torchrl_gtp.flow_map import FlowMap
from torchrl_gtp.flow_map.named_samplers import SamplerName
from torchrl_gtp.flow_map.samplers import Sampler
from torchrl_gtp.keys import checked_keys
from torchrl_gtp.modules.bounds import checked_bounds
from torchrl_gtp.modules.checks import (
    check_alike,
    check_input,
    checked_chunk_length,
    checked_num_steps,
    is_capturing,
)
from torchrl_gtp.modules.sampling_module import SamplingModule

__all__ = ["GTPActor"]


class GTPActor(SamplingModule):
    """A generative trajectory policy: K jumps from noise to an action, by default deterministic.

    The observation entries are concatenated on their last dimension to the condition of the flow
    map. The jumps are those of the paper's eq. 12; only the final action is clamped to the
    bounds. Other samplers can take their place: ODE solvers, DDPM's or that of consistency models.
    Under ``ExplorationType.RANDOM``, and where no exploration type is set, standard
    normal noise is drawn; under every deterministic type the jumps start from zero noise, which
    gives one reproducible action but is no sample of the policy. An entry ``noise`` of the
    action's shape in the input replaces the draw in both cases. Samplers that draw noise on the
    way as well draw it afresh under ``ExplorationType.RANDOM`` and none of it otherwise.

    Entries ``start_action`` (the action's shape) and ``start_level`` (t, [] or [..., 1]) in the
    input make a warm start: the jumps go from ``start_action + t z`` at noise level t to 0.
    ``t = sigma_max`` with a start of zero is the usual start from pure noise, so rows of one
    batch may differ. :class:`~torchrl_gtp.WarmStartActor` fills them in from step to step.

    With ``chunk_length`` H the policy generates chunks [..., H, A] of H consecutive actions, and
    noise has that shape too. The flow map works on the flattened vector. TorchRL executes chunks:
    :class:`~torchrl.modules.tensordict_module.MultiStepActorWrapper` around the actor hands out
    one action per step (in a batched environment with an ``InitTracker``), and
    :class:`~torchrl.envs.transforms.MultiAction` on the environment runs a chunk in one step.

    Args:
        flow_map (FlowMap): the flow map of actions given observations.
        action_spec (TensorSpec, optional): spec of the action, or a ``Composite`` that holds it
            under ``action_key``: of one action, also for chunks. Gives the shape [A] and the
            bounds. Exclusive with ``low`` and ``high``.

    Keyword Args:
        low (Tensor or sequence of float, optional): lower bounds [A].
        high (Tensor or sequence of float, optional): upper bounds [A].
        observation_keys (sequence of NestedKey): entries that make up the condition, in this
            order. Defaults to ``("observation",)``.
        action_key (NestedKey): entry to write the action to. Defaults to ``"action"``.
        noise_key (NestedKey): optional input entry with standard normal noise. Defaults to
            ``"noise"``.
        start_key (NestedKey): optional input entry with actions to start from. Defaults to
            ``"start_action"``.
        start_level_key (NestedKey): optional input entry with their noise level. Defaults to
            ``"start_level"``.
        sampler (str or Sampler): how K steps take noise to an action: ``"jumps"``, ``"matched"``,
            ``"adaptive"``, ``"euler"``, ``"heun"``, ``"ddpm"``, ``"consistency"`` or an object of
            :mod:`~torchrl_gtp.flow_map.samplers`. ``"matched"`` needs a map whose denoiser has been
            trained (:class:`~torchrl_gtp.flow_map.MatchedStart`). It may be changed as
            ``num_steps`` may. Defaults to ``"jumps"``.
        num_steps (int): the number of jumps or steps K; it may be changed at any time through the
            attribute of that name, or for one call through ``actor(td, num_steps=K)``; but not
            after a capture in a CUDA graph, which would ignore it (see
            :class:`~torchrl_gtp.CapturedPolicy`). Defaults to ``5``.
        chunk_length (int, optional): the number H of actions generated at once. Defaults to
            ``None``: one action [..., A].

    Raises:
        ValueError: if neither or both of ``action_spec`` and ``low``/``high`` are given, if a
            lower bound is not below its upper bound, if the spec is not that of one continuous
            vector, or if ``num_steps`` or ``chunk_length`` is smaller than 1.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import make_gtp_actor
        >>> actor = make_gtp_actor(observation_dim=4, action_spec=Bounded(-1, 1, (2,)))
        >>> td = actor(TensorDict({"observation": torch.randn(8, 4)}, batch_size=[8]))
        >>> td["action"].shape
        torch.Size([8, 2])
        >>> actor.num_steps = 2
        >>> actor(observation=torch.randn(4)).shape
        torch.Size([2])
        >>> actor = make_gtp_actor(4, Bounded(-1, 1, (2,)), chunk_length=8)
        >>> actor(observation=torch.randn(4)).shape, actor.flat_dim
        (torch.Size([8, 2]), 16)
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        flow_map: FlowMap,
        action_spec: TensorSpec | None = None,
        *,
        low: Tensor | Sequence[float] | None = None,
        high: Tensor | Sequence[float] | None = None,
        observation_keys: Sequence[NestedKey] = ("observation",),
        action_key: NestedKey = "action",
        noise_key: NestedKey = "noise",
        start_key: NestedKey = "start_action",
        start_level_key: NestedKey = "start_level",
        sampler: SamplerName | Sampler = "jumps",
        num_steps: int = 5,
        chunk_length: int | None = None,
    ) -> None:
        super().__init__(sampler, num_steps)
        low, high = checked_bounds(action_spec, action_key, low, high, flow_map.sigma_data.dtype)
        self.chunk_length = checked_chunk_length(chunk_length)
        flat_dim = low.numel() * (self.chunk_length or 1)
        if flow_map.sigma_data.numel() not in (1, flat_dim):
            raise ValueError(
                f"sigma_data has {flow_map.sigma_data.numel()} values, but an action"
                + ("" if chunk_length is None else f" chunk of length {chunk_length}")
                + f" has {flat_dim} dimensions: give one number, or one for each."
            )
        self.flow_map = flow_map
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.in_keys = checked_keys(observation_keys)
        self.out_keys = [unravel_key(action_key)]
        self.noise_key = noise_key
        self.start_key = start_key
        self.start_level_key = start_level_key

    @property
    def observation_keys(self) -> list[NestedKey]:
        """The entries that make up the condition."""
        return self.in_keys

    @property
    def action_key(self) -> NestedKey:
        """The entry that the action is written to."""
        return self.out_keys[0]

    @property
    def action_dim(self) -> int:
        """The size A of one action."""
        return self.low.shape[-1]

    @property
    def event_shape(self) -> torch.Size:
        """The shape of what is generated at once: [A], or [H, A] with a ``chunk_length``."""
        chunk = () if self.chunk_length is None else (self.chunk_length,)
        return torch.Size((*chunk, self.action_dim))

    @property
    def flat_dim(self) -> int:
        """The size A or H A of the vector that the flow map works on."""
        return self.event_shape.numel()

    def condition(self, tensordict: TensorDictBase) -> Tensor:
        """Concatenates the observation entries of ``tensordict`` to the condition [..., C].

        Raises:
            KeyError: if an observation entry is missing.
            ValueError: if the entries differ in leading dimensions or device, or one has no
                dimension for its values.
        """
        observations = []
        for key in self.in_keys:
            observation = tensordict.get(key, default=None)
            if observation is None:
                present = sorted(map(str, tensordict.keys(True, True)))
                raise KeyError(
                    f"The observation entry {key!r} of the actor is missing; the input has "
                    f"{present}. Choose the entries with observation_keys."
                )
            observations.append(observation)
        check_alike(self.in_keys, observations, tensordict.batch_dims)
        return observations[0] if len(observations) == 1 else torch.cat(observations, -1)

    def sample(
        self,
        condition: Tensor,
        noise: Tensor | None = None,
        num_steps: int | None = None,
        *,
        start: Tensor | None = None,
        start_level: float | Tensor | None = None,
        stochastic: bool = True,
    ) -> Tensor:
        """Samples actions for given conditions.

        Args:
            condition (Tensor): conditions [..., C], cast to the dtype of the actor.
            noise (Tensor, optional): standard normal noise [..., *event_shape]; drawn if not
                given.
            num_steps (int, optional): the number of jumps K of this call. Defaults to the
                attribute ``num_steps``.
            start (Tensor, optional): actions [..., *event_shape] for a warm start from
                ``start + t z``.
            start_level (float or Tensor, optional): its noise level t, a number or a tensor [] or
                [..., 1], clamped to [0, ``sigma_max``]. Required with ``start``.
            stochastic (bool): whether samplers that draw noise on the way do so. Defaults to
                ``True``.

        Returns:
            Tensor: actions [..., *event_shape] within the bounds.

        Raises:
            ValueError: if an argument has another shape or device than the actor needs, if only
                one of ``start`` and ``start_level`` is given, or if a number is out of range.
        """
        batch, dtype, device = condition.shape[:-1], self.low.dtype, self.low.device
        shape = (*batch, *self.event_shape)
        if (start is None) != (start_level is None):
            raise ValueError(
                "A warm start needs both start (actions) and start_level (their noise level); got "
                f"only {'start_level' if start is None else 'start'}."
            )
        check_input("condition", condition, device)
        check_input("noise", noise, device, shape)
        check_input("start", start, device, shape)
        check_input("start_level", start_level, device, (), (*batch, 1))
        if num_steps is None:
            num_steps = self.num_steps
            if is_capturing(device):
                self._is_captured = True
        if noise is None:
            noise = torch.randn(shape, dtype=dtype, device=device)
        # The flow map knows vectors only: [..., A] stays as it is, [..., H, A] becomes [..., H A].
        event_dims = len(self.event_shape)
        action = self.sampler(
            self.flow_map,
            noise.to(dtype).flatten(-event_dims),
            condition.to(dtype),
            checked_num_steps(num_steps),
            start=start if start is None else start.to(dtype).flatten(-event_dims),
            start_level=start_level,
            bounds=(
                self.low.expand(self.event_shape).flatten(),
                self.high.expand(self.event_shape).flatten(),
            ),
            stochastic=stochastic,
        )
        return torch.clamp(action.unflatten(-1, self.event_shape), self.low, self.high)

    @dispatch(auto_batch_size=False)
    def forward(
        self,
        tensordict: TensorDictBase,
        *,
        noise: Tensor | None = None,
        num_steps: int | None = None,
        start: Tensor | None = None,
        start_level: float | Tensor | None = None,
    ) -> TensorDictBase:
        """Writes an action to ``tensordict``.

        Args:
            tensordict (TensorDictBase): holds the observation entries, and optionally noise under
                ``noise_key``.
            noise (Tensor, optional): as for :meth:`sample`, instead of that entry.
            num_steps (int, optional): as for :meth:`sample`.
            start (Tensor, optional): as for :meth:`sample`, instead of the entry ``start_key``.
            start_level (float or Tensor, optional): as for :meth:`sample`, instead of the entry
                ``start_level_key``.

        Returns:
            TensorDictBase: the input with the action entry.
        """
        condition = self.condition(tensordict)
        if noise is None:
            noise = tensordict.get(self.noise_key, default=None)
        if start is None:
            start = tensordict.get(self.start_key, default=None)
        if start_level is None:
            start_level = tensordict.get(self.start_level_key, default=None)
        stochastic = interaction_type() in (None, InteractionType.RANDOM)
        if noise is None and not stochastic:
            noise = self.low.new_zeros((*condition.shape[:-1], *self.event_shape))
        action = self.sample(
            condition,
            noise,
            num_steps,
            start=start,
            start_level=start_level,
            stochastic=stochastic,
        )
        return tensordict.set(self.action_key, action)
