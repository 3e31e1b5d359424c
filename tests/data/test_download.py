"""Several processes that need the same dataset: one fetches it, and none sees half of it."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from pathlib import Path

import minari
import pytest
from filelock import FileLock

from torchrl_gtp.data import load_minari

DATASET = "test/small-v0"


@pytest.fixture
def server(make_dataset, minari_root: Path, tmp_path: Path, monkeypatch) -> Path:
    """A server that hands out a dataset piece by piece, and counts in a file how often."""
    make_dataset(DATASET)
    published = tmp_path / "published"
    shutil.move(minari_root / "test", published)
    log = tmp_path / "downloads"
    log.touch()

    def download(dataset_id: str) -> None:
        with log.open("a") as file:
            file.write("x")
        source, target = published / "small-v0" / "data", minari_root / dataset_id / "data"
        target.mkdir(parents=True)
        for file in sorted(source.iterdir(), reverse=True):
            (target / file.name).write_bytes(file.read_bytes()[:100])
            time.sleep(0.3)
            shutil.copy(file, target)

    monkeypatch.setattr("minari.storage.hosting.download_dataset", download)
    return log


def _load(lengths, delay: float) -> None:
    time.sleep(delay)
    lengths.put(len(load_minari(DATASET)))


def test_processes_at_once_download_once(server: Path, minari_root: Path) -> None:
    context = multiprocessing.get_context("fork")  # which brings the server along
    lengths = context.Queue()
    # Two at once, and one in the midst of the download.
    processes = [context.Process(target=_load, args=(lengths, d)) for d in (0.0, 0.0, 0.4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [lengths.get(timeout=5) for _ in processes] == [11] * 3
    assert server.read_text() == "x"
    assert {path.name for path in minari_root.iterdir()} == {"test", ".test.small-v0.lock"}
    assert list(minari.list_local_datasets()) == [DATASET]


@pytest.mark.filterwarnings("ignore:Misconfigured dataset named test/small-v0")
def test_what_a_killed_process_left_is_no_dataset(server: Path, minari_root: Path) -> None:
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_load, args=(context.Queue(), 0.0))
    process.start()
    data = minari_root / DATASET / "data"
    deadline = time.monotonic() + 30
    while not (data.exists() and list(data.iterdir())):
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()
    with pytest.raises(FileNotFoundError, match="has not ended, or was cut short: .*download=True"):
        load_minari(DATASET, download=False)
    assert len(load_minari(DATASET)) == 11
    assert server.read_text() == "xx"
    assert len(load_minari(DATASET, download=False)) == 11


def test_what_was_put_there_after_a_killed_download_outlasts_a_failing_one(
    make_dataset, minari_root: Path, monkeypatch
) -> None:
    make_dataset(DATASET)
    mark = minari_root / ".test.small-v0.partial"
    mark.touch()

    def download(dataset_id: str) -> None:
        (minari_root / dataset_id / "data").mkdir(parents=True)
        raise ConnectionError("the wire is cut")

    monkeypatch.setattr("minari.storage.hosting.download_dataset", download)
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="the wire is cut"):
            load_minari(DATASET)
    with pytest.raises(FileNotFoundError, match=f"put it there yourself since, remove {mark}"):
        load_minari(DATASET, download=False)
    mark.unlink()
    assert len(load_minari(DATASET, download=False)) == 11


def test_to_read_needs_no_lock_and_no_permission(make_dataset, minari_root: Path) -> None:
    make_dataset(DATASET)
    before = sorted(minari_root.rglob("*"))
    minari_root.chmod(0o555)
    try:
        assert len(load_minari(DATASET)) == 11
    finally:
        minari_root.chmod(0o755)
    # Nor does a user to whom everything is permitted leave anything.
    assert sorted(minari_root.rglob("*")) == before
    with FileLock(minari_root / ".test.small-v0.lock"):
        assert len(load_minari(DATASET)) == 11


def test_a_folder_that_cannot_be_written_is_a_clear_error(
    server: Path, minari_root: Path, monkeypatch
) -> None:
    def refuse(self: FileLock, **options) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(FileNotFoundError, match="could not be downloaded: read-only"):
        load_minari(DATASET)
    assert not list(minari_root.iterdir()) and server.read_text() == ""
