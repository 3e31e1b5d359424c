"""Where the datasets come from that Minari's server does not have."""

from __future__ import annotations

import re

# Namespaces of datasets that are made on the spot.
_LOCAL = ("gtp/", "like/")


def is_published(dataset_id: str) -> bool:
    """Returns whether it makes sense to ask Minari's server for a dataset.

    Args:
        dataset_id (str): the Minari id.

    Examples:
        >>> is_published("D4RL/antmaze/umaze-v1"), is_published("gtp/pointmaze/umaze-v0")
        (True, False)
    """
    return not dataset_id.startswith(_LOCAL)


def how_to_get(dataset_id: str) -> str:
    """Says how to get a dataset that is missing, if there is more to say than "download it".

    Args:
        dataset_id (str): the Minari id.

    Returns:
        a sentence, or an empty string.

    Examples:
        >>> how_to_get("mujoco/hopper/medium-expert-v0")
        'Minari publishes it in two parts: fetch them with "minari download mujoco/hopper/medium-v0 mujoco/hopper/expert-v0", then join them with "minari combine mujoco/hopper/medium-v0 mujoco/hopper/expert-v0 --dataset-id mujoco/hopper/medium-expert-v0".'
    """  # noqa: E501
    if maze := re.fullmatch(r"gtp/pointmaze/(umaze|medium|large)-v0", dataset_id):
        return f"Make it with: python -m torchrl_gtp.data.point_maze {maze[1]}"
    if dataset_id.startswith("like/"):
        nearest = _nearest_published(dataset_id)
        return (
            "Such sets cannot be downloaded: they were made from the weights of public agents, by "
            "a tool that is not part of this project (docs/tasks.md). Take one of Minari's of the "
            f"same robot instead{f', here {nearest}' if nearest else ''}, or put a set of your own "
            "under this id (minari.create_dataset_from_buffers)."
        )
    if dataset_id.startswith(_LOCAL):
        return "It is made on the spot, not downloaded: see docs/tasks.md for its maker."
    if mixed := re.fullmatch(r"(mujoco/\w+)/medium-expert-(v\d+)", dataset_id):
        parts = f"{mixed[1]}/medium-{mixed[2]} {mixed[1]}/expert-{mixed[2]}"
        return (
            f'Minari publishes it in two parts: fetch them with "minari download {parts}", then '
            f'join them with "minari combine {parts} --dataset-id {dataset_id}".'
        )
    if re.fullmatch(r"mujoco/\w+/\w+-replay-v\d+", dataset_id):
        return (
            "Minari publishes no replay buffer of the locomotion tasks: convert one of D4RL or of "
            "your own (minari.create_dataset_from_buffers) under this id."
        )
    return ""


def _nearest_published(dataset_id: str) -> str | None:
    """The set of Minari's for which a set of public agents stands in."""
    if maze := re.fullmatch(r"like/antmaze/([\w-]+)-v0", dataset_id):
        return f"D4RL/antmaze/{maze[1]}-v1"
    if hand := re.fullmatch(r"like/adroit/(\w+)-(\w+)-v0", dataset_id):
        return f"D4RL/{hand[1]}/{hand[2]}-v2"
    if robot := re.fullmatch(r"like/(\w+)/([\w-]+)-v0", dataset_id):
        # Of replay buffers Minari has none; what such a buffer ends with is a medium policy.
        return f"mujoco/{robot[1]}/{robot[2].removesuffix('-replay')}-v0"
    return None
