"""What the steps after the first success do to rewards and values of a sparse dataset.

``python -m benchmarks.success_tails D4RL/antmaze/umaze-v1`` prints the table of docs/tasks.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from torchrl_gtp.data import AffineReward, antmaze_reward, load_minari

GAMMA = 0.99
REWARDS = {"r - 1": AffineReward(shift=-1.0), "4 (r - 0.5)": antmaze_reward()}


def returns_to_go(rewards: Tensor, terminated: Tensor, done: Tensor, gamma: float) -> Tensor:
    """Discounted returns-to-go; a time-out goes on with its last reward for ever.

    Args:
        rewards: shape ``[N]``, episodes one after the other.
        terminated: whether the episode ended there for good, shape ``[N]``.
        done: whether it ended at all, shape ``[N]``.
        gamma: discount.

    Returns:
        shape ``[N]``, ``float64``.

    Example:
        >>> flags = torch.tensor([False, True])
        >>> returns_to_go(torch.tensor([1.0, 2.0]), flags, flags, 0.5)
        tensor([2., 2.], dtype=torch.float64)
        >>> returns_to_go(torch.tensor([1.0, 2.0]), flags & False, flags, 0.5)
        tensor([3., 4.], dtype=torch.float64)
    """
    values = torch.empty(len(rewards), dtype=torch.float64)
    value = 0.0
    rows = zip(rewards.tolist(), terminated.tolist(), done.tolist(), strict=True)
    for step, (reward, ends, stops) in reversed(list(enumerate(rows))):
        if stops:
            value = 0.0 if ends else reward / (1 - gamma)
        value = reward + gamma * value
        values[step] = value
    return values


def first_successes(success: Tensor, episode: Tensor) -> Tensor:
    """Rows of the first success of each episode that has one.

    Example:
        >>> first_successes(torch.tensor([0, 1, 1, 0, 1]).bool(), torch.tensor([3, 3, 3, 4, 4]))
        tensor([1, 4])
    """
    rows = success.nonzero().squeeze(-1)
    numbers = episode[rows]
    return rows[numbers != torch.cat([numbers[:1] - 1, numbers[:-1]])]


def rows_of_the_table(dataset_id: str) -> list[list[str]]:
    """One row for each reward and each way of loading."""
    rows = []
    for name, reward in REWARDS.items():
        for cut in (False, True):
            buffer = load_minari(dataset_id, cut_after_success=cut, reward_transform=reward)
            after = buffer[:]["next"]
            rewards, terminated, done = (
                after[key].squeeze(-1) for key in ("reward", "terminated", "done")
            )
            success = rewards == reward(torch.ones(()))
            values = returns_to_go(rewards, terminated, done, GAMMA)
            arriving = values[first_successes(success, buffer[:]["episode"])]
            rows.append(
                [
                    name,
                    "yes" if cut else "no",
                    f"{len(buffer):,}",
                    f"{success.float().mean():.3f}",
                    f"{terminated.sum():,}",
                    f"{values.mean():.1f} ± {values.std():.1f}",
                    f"{arriving.mean():.1f} ± {arriving.std():.1f}",
                ]
            )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table of one dataset."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset", help="Minari id of a set with rewards of 0 and 1")
    rows = rows_of_the_table(parser.parse_args(arguments).dataset)
    heads = ["reward", "cut", "steps", "share of successes", "terminated"]
    heads += ["value of all steps", "value of arrivals"]
    for row in (heads, [":--"] * 2 + ["--:"] * 5, *rows):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
