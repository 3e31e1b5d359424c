from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recipes.common.checkpoints import (
    load_checkpoint,
    random_state,
    save_checkpoint,
    set_random_state,
)


def test_round_trip_in_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "last.pt"
    save_checkpoint(path, {"weights": torch.arange(3.0), "step": 4, "rows": [{"loss": 0.5}]})
    state = load_checkpoint(path)
    assert torch.equal(state["weights"], torch.arange(3.0))
    assert state["step"] == 4
    assert state["rows"] == [{"loss": 0.5}]


def test_failed_write_leaves_the_former_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})

    def fail(state: dict, file: Path) -> None:
        Path(file).write_bytes(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No checkpoint at .*absent\.pt"):
        load_checkpoint(tmp_path / "absent.pt")


def test_random_state_round_trip(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "random.pt", random_state())
    expected = torch.rand(3)
    torch.rand(7)
    set_random_state(load_checkpoint(tmp_path / "random.pt"))
    assert torch.equal(torch.rand(3), expected)
