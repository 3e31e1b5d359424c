"""The table of what comes after the first success."""

from __future__ import annotations

from benchmarks.success_tails import main
from torchrl_gtp.data import load_minari, make_point_maze_dataset


def test_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    make_point_maze_dataset("umaze", num_steps=3000)
    dataset_id = "gtp/pointmaze/umaze-v0"
    whole = load_minari(dataset_id)
    cut = load_minari(dataset_id, cut_after_success=True)
    successes = int((cut.metadata.behavior_returns > 0).sum())
    assert successes > 0 and len(cut) < len(whole)

    main([dataset_id])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert [row[:2] for row in rows] == [
        ["r - 1", "no"],
        ["r - 1", "yes"],
        ["4 (r - 0.5)", "no"],
        ["4 (r - 0.5)", "yes"],
    ]
    assert [row[2] for row in rows] == [f"{len(whole):,}", f"{len(cut):,}"] * 2
    assert [row[4] for row in rows] == ["0", f"{successes}"] * 2
    # An arrival is worth its own reward where the episode ends with it.
    assert rows[1][6] == "0.0 ± 0.0" and rows[3][6] == "2.0 ± 0.0"
