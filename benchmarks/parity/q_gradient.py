"""What is compared of the programs whose policy follows the gradient of Q."""

from __future__ import annotations

import copy
import warnings
from typing import Any
from unittest import mock

import torch

from benchmarks.parity.batch import BATCH_SIZE, Memory, make_batch
from benchmarks.parity.comparison import Comparison
from benchmarks.parity.draws import recorded, replayed
from benchmarks.parity.networks import actor_gradient, candidate_scores, gradient_of
from benchmarks.parity.program import ETA, Program
from torchrl_gtp import CandidateActor

__all__ = ["compare_candidates", "compare_sampler", "compare_step"]


def compare_sampler(comparison: Comparison, program: Program, agent: Any, quantity: str) -> None:
    """Compares the actions of a batch of observations."""
    observation = make_batch()["observation"]
    with recorded() as record, torch.no_grad():
        theirs = agent.actor.sample(observation)
    actor = program.wrap(agent.actor)
    start, further = program.read_chain(iter(record))
    with replayed(further), torch.no_grad():
        ours = actor.sample(observation, start)
    comparison.add(quantity, type(actor.sampler).__name__, ours, theirs)


def compare_step(
    comparison: Comparison,
    program: Program,
    agent: Any,
    *,
    coin: float,
    num_backup_samples: int,
    progress: float = 0.0,
    suffix: str = "",
) -> None:
    """Compares one training step: the critic's, and then the actor's under the new critic.

    Args:
        comparison: where the figures go.
        program: which program.
        agent: its agent; not modified.
        coin: what it draws to choose the Q-network that it follows.
        num_backup_samples: 1, or the 10 of its max-Q backup.
        progress: the place in our schedule of noise levels.
        suffix: what is added to the names of the quantities.
    """
    agent, batch = copy.deepcopy(agent), make_batch()
    agent.max_q_backup = num_backup_samples > 1
    loss = program.make_loss(agent, num_backup_samples)
    loss.progress.fill_(progress)
    with recorded(coin) as record:
        metric = agent.train(Memory(batch), iterations=1, batch_size=BATCH_SIZE)
    draws = program.read_step(iter(record))
    backup, policy = (chain.for_batch(BATCH_SIZE) for chain in (draws.backup, draws.policy))
    noise = loss.draw_noise(batch)
    noise.update({**draws.term, "backup": backup.start, "policy": policy.start.squeeze(1)})
    # They follow the first network above 0.5, we below.
    noise["q_coin"] = torch.full([BATCH_SIZE], 1 - coin)
    batch["loss_noise"] = noise

    optimizer = torch.optim.Adam(loss.qvalue_network_params.parameters(), lr=3e-4)
    with replayed(backup.further):
        loss_qvalue = loss.losses(batch)[0]["loss_qvalue"]
    loss_qvalue.backward()
    optimizer.step()
    with replayed(policy.further):
        total, terms = loss.actor_loss(batch)
    total.backward()

    cloning = program.factor * terms[f"loss_{program.term}"]
    q_gradient = program.factor * terms["loss_q_gradient"]
    network = program.network(agent.actor)
    gradient = program.factor * actor_gradient(loss, network)
    times = f"(times {program.factor_name})"
    for quantity, name, ours, theirs in (
        (
            "critic loss, with and without max-Q backup",
            "qvalue_loss",
            loss_qvalue,
            metric["critic_loss"][0],
        ),
        (f"{program.title} {times}", f"{program.term}_loss", cloning, metric["bc_loss"][0]),
        (
            "Q-gradient loss, both sides of the coin",
            "q_gradient_loss",
            q_gradient,
            ETA * metric["ql_loss"][0],
        ),
        (f"gradient of the actor {times}", "actor_loss", gradient, gradient_of(network)),
    ):
        comparison.add(quantity + suffix, name, ours, theirs)


def compare_candidates(comparison: Comparison, program: Program, agent: Any) -> None:
    """Compares the probabilities of 50 candidates, of which the published program draws one."""
    observation = make_batch(1)["observation"][0]
    with (
        recorded() as record,
        mock.patch.object(torch, "multinomial", wraps=torch.multinomial) as drawn,
        warnings.catch_warnings(),
    ):
        # Its softmax leaves the dimension to PyTorch, which calls that deprecated.
        warnings.simplefilter("ignore", UserWarning)
        agent.sample_action(observation.numpy())
    theirs = drawn.call_args.args[0]

    loss = program.make_loss(agent)
    delayed = loss.candidate_actor(num_candidates=len(theirs))
    # The published program acts with the current policy, and with the delayed Q-networks.
    current = loss.get_stateful_net("actor_network").eval()
    policy = CandidateActor(
        current, list(delayed.qvalue_networks), num_candidates=delayed.num_candidates
    )
    start, further = program.read_chain(iter(record))
    with replayed([start, *further]), candidate_scores(policy) as scores, torch.no_grad():
        policy(observation=observation)
    ours = scores[0].flatten().softmax(0)
    comparison.add("probabilities of 50 candidates", "candidate_actor", ours, theirs)
