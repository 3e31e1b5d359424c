"""What a loaded dataset knows about itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gymnasium.envs.registration import EnvSpec
from tensordict import NestedKey
from torch import Tensor
from torchrl.data import Bounded


@dataclass(frozen=True, eq=False)
class MinariMetadata:
    """What :func:`~torchrl_gtp.data.load_minari` found out about a dataset.

    It holds all that :func:`~torchrl_gtp.data.make_minari_env` and
    :func:`~torchrl_gtp.data.normalized_score` need, and can be pickled if its reward transform can.

    Attributes:
        dataset_id: the Minari id.
        observation_keys: the keys that were concatenated into the observation vector, in order.
        observation_dim: length O of that vector.
        action_spec: bounds of the actions, shape ``[A]``.
        observation_loc: what was subtracted from the observations, shape ``[O]``; ``None`` if they
            are not normalised.
        observation_scale: what they were then divided by, shape ``[O]``, or ``None``.
        ref_min_score: episode return of normalised score 0, or ``None`` if unknown.
        ref_max_score: episode return of normalised score 100, or ``None`` if unknown. Both are
            unknown where ``cut_after_success`` ends episodes that the references went on with.
        env_spec: the evaluation environment, or ``None`` if the dataset names none.
        num_steps: number of transitions.
        num_episodes: number of episodes.
        behavior_returns: the return of each episode as loaded (without what ``cut_after_success``
            dropped), before any reward transform, shape ``[num_episodes]``.
        reward_transform: what was done to the rewards, to be done to those of online data as well;
            ``None`` if they are the raw ones.
    """

    dataset_id: str
    observation_keys: tuple[NestedKey, ...]
    observation_dim: int
    action_spec: Bounded
    observation_loc: Tensor | None
    observation_scale: Tensor | None
    ref_min_score: float | None
    ref_max_score: float | None
    env_spec: EnvSpec | None
    num_steps: int
    num_episodes: int
    behavior_returns: Tensor = field(repr=False)
    reward_transform: Callable[[Tensor], Tensor] | None = None

    @property
    def max_episode_steps(self) -> int | None:
        """The time limit of the evaluation environment, if it has one."""
        return None if self.env_spec is None else self.env_spec.max_episode_steps
