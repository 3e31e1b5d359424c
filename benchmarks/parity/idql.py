"""IDQL (arXiv 2304.10573) beside its published program, which is written in jax and flax."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.parity.batch import ACTION_DIM, BATCH_SIZE, OBSERVATION_DIM, make_batch
from benchmarks.parity.comparison import Comparison
from benchmarks.parity.flax_networks import copy_residual_network, to_torch
from benchmarks.parity.idql_learner import (
    CANDIDATES,
    NUM_BLOCKS,
    SCHEDULE,
    arrays,
    import_learner,
    make_learner,
    make_loss,
    wrap,
)
from benchmarks.parity.networks import candidate_scores
from torchrl_gtp.flow_map import LNResNetBackbone

__all__ = ["compare"]

# What the published encoder of times gives.
_EMBEDDING_DIM = 128


@contextmanager
def _recorded() -> Iterator[list[Tensor]]:
    """Takes down what ``jax.random.randint`` and ``normal`` give."""
    import jax

    record: list[Tensor] = []

    def watched(function: Any) -> Any:
        def watching(*args: Any, **kwargs: Any) -> Any:
            draw = function(*args, **kwargs)
            record.append(to_torch(draw))
            return draw

        return watching

    functions = {name: watched(getattr(jax.random, name)) for name in ("randint", "normal")}
    with mock.patch.multiple(jax.random, **functions):
        yield record


def _compare_losses(comparison: Comparison, agent: Any, expectile: float) -> None:
    batch, loss = make_batch(), make_loss(agent, expectile)
    # All three from the same weights; in its update the step of V comes before that of Q.
    _, value_info = agent.update_v(arrays(batch))
    _, critic_info = agent.update_q(arrays(batch))
    with _recorded() as record:
        _, actor_info = agent.update_actor(arrays(batch))
    index, noise = record
    batch["loss_noise"] = loss.draw_noise(batch).update(
        {"flow_time": (index.unsqueeze(-1) + 0.5) / SCHEDULE.num_levels, "flow_noise": noise}
    )
    for quantity, name, ours, theirs in (
        (
            "value loss, expectiles 0.7 and 0.9",
            "value_loss",
            loss.value_loss(batch)[0],
            value_info["value_loss"],
        ),
        (
            "critic loss (times 1/2)",
            "qvalue_loss",
            loss.qvalue_loss(batch)[0] / 2,
            critic_info["critic_loss"],
        ),
        ("actor loss", "flow_loss", loss.flow_loss(batch)[0], actor_info["actor_loss"]),
    ):
        comparison.add(quantity, name, ours, to_torch(theirs))


def _compare_candidates(
    comparison: Comparison, learner: ModuleType, agent: Any, expectile: float
) -> None:
    import jax

    observation = make_batch(1)["observation"][0]
    actions = 2 * torch.rand(CANDIDATES, ACTION_DIM) - 1
    # Both are given the candidates, because the samplers differ; see below for these.
    with (
        mock.patch.object(learner, "ddpm_sampler") as sampler,
        mock.patch.object(jax.random, "choice", wraps=jax.random.choice) as choice,
    ):
        sampler.return_value = (jax.numpy.asarray(actions.numpy()), agent.rng)
        agent.sample_implicit_policy(observation.numpy())
    theirs = to_torch(choice.call_args.kwargs["p"])
    policy = make_loss(agent, expectile).candidate_actor(CANDIDATES, selection="expectile")
    with (
        mock.patch.object(policy.actor, "sample", return_value=actions),
        candidate_scores(policy) as scores,
    ):
        policy(observation=observation)
    ours = scores[0].flatten().softmax(0)
    quantity = "probabilities of the implicit policy, both expectiles"
    comparison.add(quantity, "CandidateActor", ours, theirs)


def _compare_network(comparison: Comparison, learner: ModuleType, agent: Any) -> None:
    params = agent.score_model.params["MLPResNet_0"]
    # Their network reads one embedding of a time, ours two of half the size.
    backbone = LNResNetBackbone(
        ACTION_DIM,
        OBSERVATION_DIM,
        num_blocks=NUM_BLOCKS,
        time_embedding_dim=_EMBEDDING_DIM // 2,
    ).eval()
    copy_residual_network(backbone, params)
    inputs = torch.randn(BATCH_SIZE, ACTION_DIM + OBSERVATION_DIM + _EMBEDDING_DIM)
    published = learner.MLPResNet(
        num_blocks=NUM_BLOCKS, use_layer_norm=True, out_dim=ACTION_DIM, activations=learner.mish
    )
    theirs = to_torch(published.apply({"params": params}, inputs.numpy()))
    quantity = f"residual network, {NUM_BLOCKS} blocks"
    comparison.add(quantity, "LNResNetBackbone", backbone.trunk(inputs), theirs)


def _compare_sampler(comparison: Comparison, learner: ModuleType, agent: Any) -> None:
    import jax

    observation, params = make_batch()["observation"], agent.score_model.params
    theirs, _ = learner.ddpm_sampler(
        agent.score_model.apply_fn,
        params,
        agent.T,
        agent.rng,
        ACTION_DIM,
        observation.numpy(),
        agent.alphas,
        agent.alpha_hats,
        agent.betas,
        sample_temperature=0.0,
        repeat_last_step=0,
        clip_sampler=False,
    )
    # Its draw happens inside a compiled function: the same key gives the same numbers again.
    key, _ = jax.random.split(agent.rng, 2)
    noise = to_torch(jax.random.normal(key, (BATCH_SIZE, ACTION_DIM)))
    ours = wrap(agent, params).sample(observation, noise, stochastic=False)
    quantity = f"sampler, {SCHEDULE.num_levels} steps without noise and clipping"
    comparison.add(quantity, "AncestralSampler(clip=False)", ours, to_torch(theirs))


def compare(peer: Path) -> Comparison:
    """Compares everything that docs/systems.md lists.

    Args:
        peer: the checkout of the published program.

    Raises:
        ModuleNotFoundError: without jax, flax and optax.
    """
    try:
        import flax  # noqa: F401
        import jax
        import optax  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"IDQL's program needs {error.name}: pip install jax flax optax, best in an "
            "environment of its own."
        ) from error
    jax.config.update("jax_enable_x64", True)
    comparison = Comparison()
    learner = import_learner(peer)
    agent = make_learner(learner)
    for expectile in (0.7, 0.9):
        agent = agent.replace(critic_hyperparam=expectile)
        _compare_losses(comparison, agent, expectile)
        _compare_candidates(comparison, learner, agent, expectile)
    _compare_network(comparison, learner, agent)
    _compare_sampler(comparison, learner, agent)
    return comparison
