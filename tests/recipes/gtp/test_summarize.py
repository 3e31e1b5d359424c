from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipes.gtp.summarize import main

BEHAVIOUR = {
    "name": "behaviour data",
    "return_mean": 20.0,
    "return_std": 9.0,
    "success_rate": 0.5,
    "normalized_score": None,
    "updates_per_second": None,
    "milliseconds_per_action": None,
}


def write_run(folder: Path, seed: int, return_mean: float, eta: float = 1.0) -> None:
    folder.mkdir(parents=True)
    gtp = {**BEHAVIOUR, "name": "GTP", "return_mean": return_mean, "updates_per_second": 50.0}
    results = {
        "dataset": "gtp/pointmaze/umaze-v0",
        "seed": seed,
        "updates": 10000,
        "config": {"loss": {"eta": eta}},
        "results": {"behaviour": BEHAVIOUR, "gtp": gtp},
    }
    (folder / "results.json").write_text(json.dumps(results))


def test_rows_of_seeds_and_their_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "sweep" / "0", seed=1, return_mean=50.0)
    write_run(tmp_path / "sweep" / "1", seed=0, return_mean=40.0)
    main([str(tmp_path / "sweep")])
    lines = capsys.readouterr().out.splitlines()[2:]
    cells = [[cell.strip() for cell in line.split("|")[3:9]] for line in lines]
    assert cells == [
        ["behaviour data", "-", "20.0 ± 9.0", "0.50", "-", "-"],
        ["GTP", "0", "40.0 ± 9.0", "0.50", "-", "50.0"],
        ["GTP", "1", "50.0 ± 9.0", "0.50", "-", "50.0"],
        ["GTP", "mean", "45.0 ± 7.1", "0.50", "-", "50.0"],
    ]


def test_several_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "a", seed=0, return_mean=40.0)
    write_run(tmp_path / "b", seed=1, return_mean=50.0)
    main([str(tmp_path / "a"), str(tmp_path / "b")])
    assert "45.0 ± 7.1" in capsys.readouterr().out


def test_folder_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No results\.json in or below"):
        main([str(tmp_path)])


@pytest.mark.parametrize(
    ("seed", "eta", "message"), [(1, 3.0, "differ in more than their seed"), (0, 1.0, "two runs")]
)
def test_runs_that_cannot_be_averaged(tmp_path: Path, seed: int, eta: float, message: str) -> None:
    write_run(tmp_path / "a", seed=0, return_mean=40.0)
    write_run(tmp_path / "b", seed=seed, return_mean=50.0, eta=eta)
    with pytest.raises(ValueError, match=message):
        main([str(tmp_path)])
