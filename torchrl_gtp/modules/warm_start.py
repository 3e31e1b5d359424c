"""Acting from the action before instead of from pure noise."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase, dispatch
from tensordict.utils import NestedKey, unravel_key
from torch import Tensor

from torchrl_gtp.modules.actor import GTPActor

__all__ = ["WarmStartActor"]


class WarmStartActor(TensorDictModuleBase):
    """Starts each action from the one before: the jumps go from ``a_previous + t z`` to 0.

    A level t below ``sigma_max`` keeps part of the action before, which gives smoother actions
    and leaves less for the jumps to do. After a reset, or where there is no action before, the
    start is pure noise as ever. The action before travels in the tensordict, so one module serves
    any number of environments; these need an :class:`~torchrl.envs.transforms.InitTracker`.

    For chunks put it inside a :class:`~torchrl.modules.tensordict_module.MultiStepActorWrapper`
    with ``previous_key="action_orig"``, which is where that wrapper keeps the chunk before. The
    executed actions are cut off that chunk, and its last action is repeated in their place.

    Args:
        actor (GTPActor): the policy.
        start_level (float): the noise level t of a warm start, in [0, ``sigma_max``]; a buffer,
            to be changed in place.

    Keyword Args:
        replan_interval (int, optional): the number of actions of a chunk that are executed before
            the next call, in [1, H]. Defaults to the whole chunk.
        previous_key (NestedKey): the entry that the action is read from and written to. Defaults
            to ``"previous_action"``.
        init_key (NestedKey): the entry that marks a reset, [..., 1]. Defaults to ``"is_init"``.

    Raises:
        ValueError: if ``start_level`` or ``replan_interval`` is out of range.

    Examples:
        >>> from tensordict import TensorDict
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import make_gtp_actor
        >>> actor = make_gtp_actor(observation_dim=4, action_spec=Bounded(-1, 1, (2,)))
        >>> policy = WarmStartActor(actor, start_level=0.5)
        >>> td = TensorDict({"observation": torch.zeros(3, 4)}, [3])
        >>> td = policy(td.set("is_init", torch.ones(3, 1, dtype=torch.bool)))
        >>> torch.equal(td["previous_action"], td["action"])
        True
    """

    start_level: Tensor

    def __init__(
        self,
        actor: GTPActor,
        start_level: float,
        *,
        replan_interval: int | None = None,
        previous_key: NestedKey = "previous_action",
        init_key: NestedKey = "is_init",
    ) -> None:
        super().__init__()
        sigma_max = actor.flow_map.noise_levels.sigma_max
        if not 0.0 <= start_level <= sigma_max:
            raise ValueError(
                f"start_level must be a noise level in [0, sigma_max={sigma_max}], got "
                f"{start_level}."
            )
        length = actor.chunk_length or 1
        if replan_interval is not None and not 1 <= replan_interval <= length:
            raise ValueError(
                f"replan_interval must be in [1, {length}], the length of the actor's chunks; got "
                f"{replan_interval}."
            )
        self.actor = actor
        self.register_buffer(
            "start_level",
            torch.tensor(start_level, dtype=actor.low.dtype, device=actor.low.device),
        )
        self.replan_interval = length if replan_interval is None else replan_interval
        self.previous_key = unravel_key(previous_key)
        self.init_key = unravel_key(init_key)
        self.in_keys = [*actor.in_keys, self.init_key]
        self.out_keys = [actor.action_key, self.previous_key]

    @dispatch(auto_batch_size=False)
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Writes an action to ``tensordict``, under two keys.

        Args:
            tensordict (TensorDictBase): holds the observation entries, ``init_key``, and the
                action before under ``previous_key`` where there is one.

        Returns:
            TensorDictBase: the input with the entries ``out_keys``.

        Raises:
            KeyError: if ``init_key`` is missing.
        """
        is_init = tensordict.get(self.init_key, default=None)
        if is_init is None:
            raise KeyError(
                f"The entry {self.init_key!r} is missing; it tells where an episode begins. Append "
                "torchrl.envs.transforms.InitTracker() to the environment, or choose the entry "
                "with init_key."
            )
        previous = tensordict.get(self.previous_key, default=None)
        if previous is None:
            previous = self.actor.low.new_zeros((*is_init.shape[:-1], *self.actor.event_shape))
            is_init = torch.ones_like(is_init)
        event_dims = (1,) * len(self.actor.event_shape)
        # Zero and sigma_max are the start from pure noise.
        self.actor(
            tensordict,
            start=torch.where(
                is_init.reshape(*is_init.shape[:-1], *event_dims), 0.0, self._remainder(previous)
            ),
            start_level=torch.where(
                is_init, self.actor.flow_map.noise_levels.sigma_max, self.start_level
            ),
        )
        return tensordict.set(self.previous_key, tensordict.get(self.actor.action_key))

    def _remainder(self, chunk: Tensor) -> Tensor:
        if self.actor.chunk_length is None:
            return chunk
        executed = self.replan_interval
        last = chunk[..., -1:, :].expand(*chunk.shape[:-2], executed, chunk.shape[-1])
        return torch.cat([chunk[..., executed:, :], last], -2)
