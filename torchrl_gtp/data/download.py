"""A Minari dataset fetched once, however many processes ask for it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import minari
from filelock import FileLock, Timeout
from minari.dataset.minari_dataset import parse_dataset_id
from minari.storage import get_dataset_path
from torchrl._utils import logger

if TYPE_CHECKING:
    from minari import MinariDataset


def is_complete(dataset_id: str) -> bool:
    """Returns whether a dataset is there, and not one that is being downloaded or was cut short.

    Args:
        dataset_id (str): the Minari id.
    """
    # In this order: what was there before its mark was seen to be gone is whole.
    return (get_dataset_path(dataset_id) / "data").exists() and not mark_of(dataset_id).exists()


def mark_of(dataset_id: str) -> Path:
    """Returns the hidden file that is there during a download, and after one that was cut short.

    Args:
        dataset_id (str): the Minari id.
    """
    return _beside(dataset_id, "partial")


def fetch_dataset(dataset_id: str) -> MinariDataset:
    """Downloads a dataset that is not there, or waits for the process that does, and opens it.

    A lock for each dataset lets one process download while the others wait. The lock and a mark,
    which is there from the start of a download to its end, are hidden files in the folder of all
    datasets. The lock stays: a lock file that is removed no longer excludes those who wait for it.

    Args:
        dataset_id (str): the Minari id.

    Returns:
        MinariDataset: the dataset.

    Raises:
        BaseException: what ended the download. Nothing of it is left; what one that was killed
            before had left stays, with its mark.
    """
    _check_id(dataset_id)  # before a lock is made for what is no id
    with _locked(dataset_id):
        if is_complete(dataset_id):
            return minari.load_dataset(dataset_id)
        path, mark = get_dataset_path(dataset_id), mark_of(dataset_id)
        former = _beside(dataset_id, "former")
        if mark.exists() and path.exists():
            logger.warning(f"the download of {dataset_id} was cut short; it begins anew.")
            # Kept until the new one is whole: somebody may have put the dataset there since.
            if former.exists():
                shutil.rmtree(path)
            else:
                path.rename(former)
        is_own = not path.exists()
        if is_own:
            mark.touch()
        try:
            dataset = minari.load_dataset(dataset_id, download=True)
        except BaseException:
            if is_own:
                shutil.rmtree(path, ignore_errors=True)
                if former.exists() and not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    former.rename(path)
                _remove_empty_folders(path.parent)
            if not path.exists():
                mark.unlink(missing_ok=True)
            raise
        mark.unlink(missing_ok=True)
        shutil.rmtree(former, ignore_errors=True)
        return dataset


def _check_id(dataset_id: str) -> None:
    try:
        # It takes a missing version for one, and fails at it.
        parse_dataset_id(dataset_id)
    except (TypeError, ValueError):
        raise ValueError(
            f"{dataset_id!r} is no id of Minari, which are like 'namespace/name-v0'."
        ) from None


@contextlib.contextmanager
def _locked(dataset_id: str) -> Iterator[None]:
    # Others who share the folder must be able to take it, too.
    lock = FileLock(_beside(dataset_id, "lock"), mode=0o666)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        logger.info(f"another process downloads {dataset_id}: waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _beside(dataset_id: str, suffix: str) -> Path:
    # Not in the folder of the dataset, which Minari would take for the dataset itself.
    return get_dataset_path() / f".{dataset_id.replace('/', '.')}.{suffix}"


def _remove_empty_folders(folder: Path) -> None:
    """Removes the folders of a namespace that a failed download made."""
    root = get_dataset_path()
    while folder != root and root in folder.parents:
        try:
            folder.rmdir()
        except OSError:  # not empty, or not there
            return
        folder = folder.parent
