"""What an actor gains by more steps, and by better places for few of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from torchrl_gtp.flow_map.adaptive_sampler import AdaptiveSampler
from torchrl_gtp.flow_map.evaluation_mode import evaluation_mode
from torchrl_gtp.flow_map.fit_times import check_values, fit_times
from torchrl_gtp.flow_map.jump_error import rms_distance
from torchrl_gtp.flow_map.matched_start import MatchedStart
from torchrl_gtp.flow_map.samplers import JumpSampler, Sampler
from torchrl_gtp.flow_map.stochastic_samplers import AncestralSampler, ConsistencySampler
from torchrl_gtp.modules.actor import GTPActor
from torchrl_gtp.modules.checks import checked_num_steps

__all__ = ["fit_sampler", "step_errors"]

_NUM_STEPS = (1, 2, 3, 5, 10)


@torch.no_grad()
def step_errors(
    actor: GTPActor,
    tensordict: TensorDictBase,
    num_steps: Sequence[int] | None = None,
    *,
    quantiles: Sequence[float] = (0.5, 0.9, 0.99),
) -> TensorDict:
    """Estimates the error of an actor's actions after K steps: how far 2 K steps move them.

    Both numbers of steps start from the same noise, so that an exact flow map would move nothing.
    It needs observations, no data: what the map does wrong at any number of steps stays unseen.
    The distance is the root mean square over the dimensions of an action, within the bounds and
    in their units. Samplers that draw noise on the way do without (jumps with a ``gamma`` are
    compared as with 0), and there is no dropout, whatever mode the actor is in.

    Args:
        actor (GTPActor): the actor, whose sampler is used.
        tensordict (TensorDictBase): observation entries, a few thousand for the 0.99 quantile; and
            optionally noise under the actor's ``noise_key``, which is drawn otherwise.
        num_steps (sequence of int, optional): the numbers of steps K. Defaults to those of
            ``(1, 2, 3, 5, 10)`` of which the sampler takes the double, too: DDPM's takes no more
            steps than it has levels.

    Keyword Args:
        quantiles (sequence of float): the quantiles over the actions, in [0, 1]. Defaults to
            ``(0.5, 0.9, 0.99)``.

    Returns:
        TensorDict: entries ``num_steps``, ``mean`` [N] and ``quantiles`` [N, Q] for N numbers of
        steps and Q quantiles.

    Raises:
        KeyError: if an observation entry is missing.
        ValueError: if there are no observations, an entry is not finite, a number is out of range,
            or the sampler does not take 2 K steps.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import make_gtp_actor
        >>> actor = make_gtp_actor(observation_dim=4, action_spec=Bounded(-1, 1, (2,)))
        >>> observations = TensorDict({"observation": torch.randn(100, 4)}, batch_size=[100])
        >>> errors = step_errors(actor, observations, num_steps=(1, 2))
        >>> errors["num_steps"], errors["mean"].shape, errors["quantiles"].shape
        (tensor([1, 2]), torch.Size([2]), torch.Size([2, 3]))
    """
    if not all(0.0 <= quantile <= 1.0 for quantile in quantiles):
        raise ValueError(f"quantiles must lie in [0, 1], got {tuple(quantiles)}.")
    numbers = _compared_numbers(actor.sampler, num_steps)
    condition = actor.condition(tensordict)
    if condition.numel() == 0:
        raise ValueError(f"There are no observations: the input is {tuple(condition.shape)}.")
    _check_finite(tensordict, *actor.observation_keys, actor.noise_key)
    noise = tensordict.get(actor.noise_key, default=None)
    if noise is None:
        shape = (*condition.shape[:-1], *actor.event_shape)
        noise = torch.randn(shape, dtype=actor.low.dtype, device=actor.low.device)

    def act(number: int) -> Tensor:
        action = actor.sample(condition, noise, number, stochastic=False)
        # Quantiles are not defined for half precision, and means of many rows lose much in it.
        precise = torch.promote_types(action.dtype, torch.float32)
        return action.flatten(-len(actor.event_shape)).to(precise)

    compared = sorted({*numbers, *(2 * number for number in numbers)})
    with evaluation_mode(actor):
        actions = {number: act(number) for number in compared}
    moved = torch.stack(
        [rms_distance(actions[number], actions[2 * number]).flatten() for number in numbers]
    )
    at = moved.new_tensor(tuple(quantiles))
    return TensorDict(
        {
            "num_steps": torch.tensor(numbers, device=moved.device),
            "mean": moved.mean(-1),
            "quantiles": torch.stack([torch.quantile(one, at) for one in moved]),
        },
        batch_size=[len(numbers)],
    )


def fit_sampler(
    actor: GTPActor, tensordict: TensorDictBase, num_steps: int, *, num_samples: int = 2
) -> JumpSampler | MatchedStart:
    """Fits the noise levels of K jumps to data, by :func:`~torchrl_gtp.flow_map.fit_times`.

    They are fitted to deterministic jumps, from the spacing of the actor's own sampler on: where
    no level moves, the jumps are those that it has. A ``gamma`` of that sampler is kept, and a
    matched start, from which the levels are fitted then. Levels that were fitted before are no
    spacing: from them the search begins at the Karras levels.

    Args:
        actor (GTPActor): a trained actor that samples by jumps; it is not changed, and sampled
            without dropout.
        tensordict (TensorDictBase): observation entries and the data's actions; a few thousand
            pairs that the actor was not trained on, at least two.
        num_steps (int): the number of jumps K, at least 2; best a small one.

    Keyword Args:
        num_samples (int): samples under each observation, at least 2. Defaults to ``2``.

    Returns:
        JumpSampler or MatchedStart: for ``actor.sampler``, together with
        ``actor.num_steps = num_steps``.

    Raises:
        KeyError: if an entry is missing.
        ValueError: if the actor's sampler does not jump, there are fewer than two pairs, an entry
            is not finite, a number is out of range, or a shape is another than the actor's.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import make_gtp_actor
        >>> actor = make_gtp_actor(observation_dim=4, action_spec=Bounded(-1, 1, (2,)))
        >>> data = {"observation": torch.randn(50, 4), "action": torch.rand(50, 2) * 2 - 1}
        >>> sampler = fit_sampler(actor, TensorDict(data, batch_size=[50]), num_steps=2)
        >>> actor.sampler, actor.num_steps = sampler, 2
        >>> actor(observation=torch.randn(8, 4)).shape
        torch.Size([8, 2])
    """
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2 for each observation, got {num_samples}.")
    present = _without_start(actor.sampler)
    if not isinstance(present, (JumpSampler, AdaptiveSampler)):
        raise ValueError(
            f"fit_sampler places jumps, but the actor's sampler is {present}, which makes none: "
            "the flow map of diffusion, flow matching or consistency training never learnt to jump "
            "from level to level. If this one did, set actor.sampler = 'jumps' before."
        )
    condition = actor.condition(tensordict)
    action = tensordict.get(actor.action_key, default=None)
    if action is None:
        raise KeyError(
            f"The entry {actor.action_key!r} with the data's actions is missing; the input has "
            f"{sorted(map(str, tensordict.keys(True, True)))}."
        )
    expected = (*condition.shape[:-1], *actor.event_shape)
    if action.shape != expected:
        raise ValueError(
            f"{actor.action_key!r} must have the shape {expected}, got {tuple(action.shape)}."
        )
    _check_finite(tensordict, *actor.observation_keys, actor.action_key)
    # The jumps of an adaptive sampler have the defaults.
    jumps = present if isinstance(present, JumpSampler) else JumpSampler()
    dtype = actor.low.dtype
    action = action.to(dtype).reshape(-1, actor.flat_dim)
    noise = torch.randn(num_samples, *action.shape, dtype=dtype, device=action.device)
    condition = condition.to(dtype).reshape(-1, condition.shape[-1])
    low, high = (bound.expand(actor.event_shape).flatten() for bound in (actor.low, actor.high))
    with evaluation_mode(actor), torch.no_grad():
        if isinstance(actor.sampler, MatchedStart):
            each = condition.expand(num_samples, *condition.shape)
            start = actor.sampler.start(actor.flow_map, noise, each)
            check_values("the matched start", start, "look at the weights of flow_map")
            noise = noise + start / actor.flow_map.noise_levels.sigma_max
        times = fit_times(
            actor.flow_map,
            action,
            noise,
            condition,
            num_steps,
            bounds=(low, high),
            spacing=jumps.spacing,
        )
    fitted = JumpSampler(times=times, gamma=jumps.gamma)
    return MatchedStart(fitted) if isinstance(actor.sampler, MatchedStart) else fitted


def _without_start(sampler: Sampler) -> Sampler:
    return sampler.sampler if isinstance(sampler, MatchedStart) else sampler


def _compared_numbers(sampler: Sampler, num_steps: Sequence[int] | None) -> list[int]:
    """The numbers of steps K of which the sampler takes the double, too."""
    sampler = _without_start(sampler)
    if (isinstance(sampler, JumpSampler) and sampler.times is not None) or (
        isinstance(sampler, ConsistencySampler) and sampler.levels is not None
    ):
        raise ValueError(
            f"step_errors compares K with 2 K steps, but {sampler} is for one number of steps. Set "
            f"actor.sampler = {type(sampler).__name__}() before, whose levels are for any."
        )
    asked = _NUM_STEPS if num_steps is None else num_steps
    numbers = [checked_num_steps(number) for number in asked]
    if not numbers:
        raise ValueError("num_steps must hold at least one number of steps K, got none.")
    if not isinstance(sampler, AncestralSampler):
        return numbers
    most = sampler.schedule.num_levels
    possible = [number for number in numbers if 2 * number <= most]
    if not possible or (num_steps is not None and possible != numbers):
        raise ValueError(
            f"num_steps must not exceed {most // 2}: step_errors compares K with 2 K steps, and "
            f"{sampler} takes at most {most}, the number of its levels; got {tuple(numbers)}."
        )
    return possible


def _check_finite(tensordict: TensorDictBase, *keys: NestedKey) -> None:
    # By the names of the entries, which are about to be concatenated.
    for key in keys:
        entry = tensordict.get(key, default=None)
        if entry is not None:
            check_values(repr(key), entry, "drop the rows that hold them")
