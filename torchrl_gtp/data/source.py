"""A Minari dataset and what its metadata say."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import minari
from gymnasium.envs.registration import EnvSpec
from minari.storage import get_dataset_path
from torchrl._utils import logger

from torchrl_gtp.data.download import fetch_dataset, is_complete, mark_of
from torchrl_gtp.data.provenance import how_to_get, is_published
from torchrl_gtp.data.scores import reference_scores

if TYPE_CHECKING:
    from minari import MinariDataset

__all__ = ["dataset_scores", "evaluation_spec", "open_dataset"]


def open_dataset(dataset_id: str, download: bool) -> MinariDataset:
    """Opens a dataset, fetching it if it is not there; a failed download leaves nothing behind.

    Of several processes one downloads and the others wait. To read a dataset that is there takes
    neither a lock nor the permission to write.

    Args:
        dataset_id (str): the Minari id.
        download (bool): whether a dataset that is not found locally is fetched; one that is made on
            the spot never is.

    Returns:
        MinariDataset: the dataset.

    Raises:
        FileNotFoundError: if the dataset is neither local nor can be fetched.
    """
    if is_complete(dataset_id):
        try:
            return minari.load_dataset(dataset_id)
        except FileNotFoundError:
            # Gone since: another process removed what it could not download.
            if is_complete(dataset_id):
                raise
    cause: Exception | None = None
    failure = " It was not downloaded."
    if (get_dataset_path(dataset_id) / "data").exists():
        failure = (
            " Its download has not ended, or was cut short: load it with download=True; or, if you "
            f"have put it there yourself since, remove {mark_of(dataset_id)}."
        )
    if download and is_published(dataset_id):
        try:
            return fetch_dataset(dataset_id)
        except Exception as err:
            cause, failure = err, f" It could not be downloaded: {err}"
    raise FileNotFoundError(
        f"dataset {dataset_id!r} is not in {get_dataset_path()} (MINARI_DATASETS_PATH chooses "
        f"that folder), which has {_local_ids()}.{failure} {how_to_get(dataset_id)}".rstrip()
    ) from cause


def _local_ids() -> list[str] | str:
    try:
        return sorted(minari.list_local_datasets())
    except Exception as err:  # a stray folder must not hide what is asked for
        return f"folders that Minari cannot list ({err})"


def dataset_scores(
    dataset: MinariDataset, cut_after_success: bool = False
) -> tuple[float | None, float | None]:
    """Returns the returns of normalised score 0 and 100: the dataset's own, D4RL's or ``None``.

    Args:
        dataset (MinariDataset): the dataset.
        cut_after_success (bool, optional): whether episodes end with their first success. Their
            returns are 0 or 1, and references beyond are those of whole episodes: ``None`` then.
            Defaults to ``False``.
    """
    metadata = dataset.storage.metadata
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    if low is None or high is None:
        low, high = reference_scores(dataset.id) or (None, None)
    if low is None or high is None:
        return None, None
    low, high = float(low), float(high)
    if cut_after_success and not (0.0 <= low <= 1.0 and 0.0 <= high <= 1.0):
        logger.warning(
            f"{dataset.id}: its reference scores {low:.4g} and {high:.4g} are those of whole "
            "episodes, so they are left out with cut_after_success=True. For a score of 100 times "
            "the share of successes pass reference_scores=(0.0, 1.0)."
        )
        return None, None
    return low, high


def evaluation_spec(
    dataset: MinariDataset, env_kwargs: Mapping[str, Any] | None = None
) -> EnvSpec | None:
    """Returns the spec of the environment to evaluate in, or ``None`` if the dataset has none.

    Args:
        dataset (MinariDataset): the dataset.
        env_kwargs (mapping, optional): arguments that replace or join those of the dataset's
            environment. Defaults to none.

    Returns:
        EnvSpec: the spec, a copy.

    Raises:
        ValueError: if there are ``env_kwargs``, but no environment.
    """
    text = dataset.storage.metadata.get("eval_env_spec")
    if text is None:
        spec = copy.deepcopy(dataset.env_spec)
    else:
        # Specs written under gymnasium < 1.0 have fields that EnvSpec no longer knows.
        known = {field.name for field in dataclasses.fields(EnvSpec)}
        fields = {name: value for name, value in json.loads(text).items() if name in known}
        spec = EnvSpec.from_json(json.dumps(fields))
    if env_kwargs and spec is None:
        raise ValueError(
            f"env_kwargs={dict(env_kwargs)}: dataset {dataset.id!r} names no environment that they "
            "could go to. Leave them out."
        )
    if env_kwargs:
        spec.kwargs = {**spec.kwargs, **env_kwargs}
    return spec
