from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from recipes.common.checkpoints import load_checkpoint
from recipes.gtp.learner import Learner
from recipes.study import files
from recipes.study.training import Stopped
from recipes.study.worker import work
from tests.recipes.study.conftest import run_here


def without_times(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [
        {name: value for name, value in row.items() if not name.startswith("time/")} for row in rows
    ]


def assert_same_cell(first: Path, second: Path) -> None:
    """Curves, results and weights are equal bit for bit; times are not compared."""
    curves = [without_times(files.read_curves(folder / files.CURVES)) for folder in (first, second)]
    assert curves[0] == curves[1] != []
    results = [files.read_result(folder) for folder in (first, second)]
    for part in ("last", "best"):
        assert [r[part]["returns"] for r in results] == [results[0][part]["returns"]] * 2
        assert results[0][part]["update"] == results[1][part]["update"]
    assert [r["sweep"].keys() for r in results] == [results[0]["sweep"].keys()] * 2
    weights = [load_checkpoint(f / "last.pt")["learner"]["loss"] for f in (first, second)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize("method", ["gtp", "iql", "idql"])
def test_a_cell_leaves_a_whole_result(make_cell, tmp_path: Path, method: str) -> None:
    cell = make_cell(method, "overrides.optim.steps=6", "overrides.env.max_steps=5")
    result = run_here(cell, tmp_path)
    assert result == files.read_result(tmp_path)
    assert (result["task"], result["method"], result["seed"]) == ("pointmaze_umaze", method, 0)
    assert result["score_kind"] == "normalised score"
    for part in ("last", "best"):
        assert len(result[part]["returns"]) == len(result[part]["success"]) == 3
        assert result[part]["update"] == 6
        assert result[part]["milliseconds_per_action"] > 0
    assert (result["last"]["num_steps"] is None) == (method == "iql")
    assert list(result["sweep"]) == ([] if method == "iql" else ["1", "2"])
    assert (result["single"] is not None) == (method == "idql") == (result["num_candidates"] > 1)
    assert result["updates_per_second"] > 0
    assert result["peak_memory_mib"] > 50
    assert result["wall_seconds"] > result["train_seconds"] > 0
    assert result["versions"]["torch"] == torch.__version__
    assert result["versions"]["torchrl_gtp"]

    curves = files.read_curves(tmp_path / files.CURVES)
    assert [row["step"] for row in curves if "eval/return" in row] == [6]
    assert [row["step"] for row in curves if "eval/return" not in row] == [2, 4, 6]
    config = OmegaConf.load(tmp_path / files.CONFIG)
    assert (config.seed, config.optim.steps) == (0, 6)
    (start,) = files.read_json(tmp_path / files.STARTS)
    assert start["commit"] == result["versions"]["commit"]
    assert start["compiled"] is False


@pytest.mark.parametrize(("method", "drawn"), [("gtp_bc", 1), ("gtp", 4)])
def test_the_result_has_the_candidates_that_are_drawn(
    make_cell, tmp_path: Path, method: str, drawn: int
) -> None:
    """Cloning has no critic to choose by, though the study may ask all methods to."""
    overrides = ("optim.steps=2", "env.max_steps=5", "final.num_steps=[1]")
    cell = make_cell(
        method, "overrides.env.num_candidates=4", *(f"overrides.{o}" for o in overrides)
    )
    result = run_here(cell, tmp_path)
    assert result["num_candidates"] == drawn
    assert (result["single"] is None) == (drawn == 1)


def test_a_killed_cell_goes_on_and_equals_an_uninterrupted_one(make_cell, tmp_path: Path) -> None:
    cell = make_cell("gtp", "overrides.optim.steps=400", "overrides.checkpoint.interval=100")
    run_here(cell, tmp_path / "whole")

    context = multiprocessing.get_context("spawn")
    progress = context.Array("q", [-1, -1], lock=False)
    place = {"task": cell.task, "method": cell.method, "seed": cell.seed}
    arguments = (OmegaConf.to_container(cell.config), place, str(tmp_path / "parts"), progress)
    process = context.Process(target=work, args=arguments)
    process.start()
    while progress[1] < 130 and process.is_alive():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    stopped_at = load_checkpoint(tmp_path / "parts" / "last.pt")["learner"]["step"]
    assert 100 <= stopped_at < 400
    assert files.read_result(tmp_path / "parts") is None

    seen: list[int] = []
    run_here(cell, tmp_path / "parts", on_update=seen.append)
    assert seen[0] == stopped_at
    assert len(files.read_json(tmp_path / "parts" / files.STARTS)) == 2
    assert_same_cell(tmp_path / "whole", tmp_path / "parts")


def test_a_truncated_checkpoint_is_left_out(make_cell, tmp_path: Path, capsys) -> None:
    cell = make_cell("iql")
    run_here(cell, tmp_path / "whole")

    run_here(cell, tmp_path / "cut")
    (tmp_path / "cut" / files.RESULT).unlink()
    for damaged, start in ((["last.pt"], 6), (["last.pt", "best.pt"], 0)):
        for name in damaged:
            whole = (tmp_path / "whole" / name).read_bytes()
            (tmp_path / "cut" / name).write_bytes(whole[: len(whole) // 2])
        capsys.readouterr()
        seen: list[int] = []
        run_here(cell, tmp_path / "cut", on_update=seen.append)
        assert seen[0] == start
        said = capsys.readouterr()
        assert all(f"{name} cannot be read" in said.err for name in damaged)
        assert_same_cell(tmp_path / "whole", tmp_path / "cut")
        # Kept, since the next checkpoint takes its place.
        assert (tmp_path / "cut" / "last.damaged").exists()


def test_a_truncated_best_checkpoint_costs_its_column_alone(
    make_cell, tmp_path: Path, capsys
) -> None:
    cell = make_cell("bc")
    whole = run_here(cell, tmp_path)
    (tmp_path / files.RESULT).unlink()
    best = tmp_path / "best.pt"
    best.write_bytes(best.read_bytes()[: best.stat().st_size // 2])
    result = run_here(cell, tmp_path)
    assert f"{best} cannot be read, so it is left out" in capsys.readouterr().err
    assert (result["best"], result["last"]["returns"]) == (None, whole["last"]["returns"])
    assert not best.exists() and best.with_suffix(".damaged").exists()


def test_a_checkpoint_of_another_version_is_an_error_and_stays(make_cell, tmp_path: Path) -> None:
    cell = make_cell("bc")
    run_here(cell, tmp_path)
    (tmp_path / files.RESULT).unlink()
    state = load_checkpoint(tmp_path / "last.pt")
    del state["wall_seconds"]
    torch.save(state, tmp_path / "last.pt")
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(KeyError, match="wall_seconds"):
        run_here(cell, tmp_path)
    assert (tmp_path / "last.pt").read_bytes() == before


def test_sigterm_leaves_a_checkpoint(make_cell, tmp_path: Path) -> None:
    def stop_at_five(step: int) -> None:
        if step == 5:
            # From the process group and from the runner.
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    cell = make_cell("bc", "overrides.checkpoint.interval=0")
    with pytest.raises(Stopped):
        run_here(cell, tmp_path, on_update=stop_at_five)
    assert load_checkpoint(tmp_path / "last.pt")["learner"]["step"] == 6
    assert files.read_result(tmp_path) is None
    assert run_here(cell, tmp_path)["updates"] == 12


def test_gtp_samples_as_in_the_paper(make_cell) -> None:
    """The recipe does otherwise; the published studies have this."""
    assert make_cell("gtp").config.actor.sampler == "jumps"


def test_other_settings_in_the_same_folder_are_refused(make_cell, tmp_path: Path) -> None:
    run_here(make_cell("bc"), tmp_path)
    with pytest.raises(ValueError, match=r"optim\.steps: 12 and 13") as error:
        run_here(make_cell("bc", "overrides.optim.steps=13"), tmp_path)
    assert "batch_size" not in str(error.value)
    # What changes nothing in the result may change.
    run_here(make_cell("bc", "overrides.num_threads=null"), tmp_path)
    (tmp_path / files.RESULT).unlink()
    noted = run_here(make_cell("bc", "overrides.method.note=The defaults."), tmp_path)
    assert noted["method_note"] == "The defaults."
    # Nor does a note that a config of an earlier version lacks.
    former = OmegaConf.load(tmp_path / files.CONFIG)
    del former["method"]["note"]
    files.write_config(tmp_path, former)
    assert files.check_config(tmp_path, make_cell("bc", "overrides.method.note=New.").config) == []


def test_a_cell_older_than_some_fields_gets_their_defaults(
    make_cell, tmp_path: Path, capsys
) -> None:
    run_here(make_cell("bc"), tmp_path)
    (tmp_path / files.RESULT).unlink()
    former = OmegaConf.load(tmp_path / files.CONFIG)
    del former["replay_buffer"]["clip_actions"], former["env"]["candidate_selection"]
    # What may change need not be there at all.
    del former["compile"]
    files.write_config(tmp_path, former)
    with pytest.raises(ValueError, match=r"candidate_selection: nothing and greedy") as error:
        run_here(make_cell("bc", "overrides.env.candidate_selection=greedy"), tmp_path)
    assert "clip_actions" not in str(error.value)
    capsys.readouterr()
    run_here(make_cell("bc"), tmp_path)
    printed = capsys.readouterr().out
    assert "env.candidate_selection=softmax" in printed
    assert "replay_buffer.clip_actions=False" in printed and "compile" not in printed
    assert OmegaConf.load(tmp_path / files.CONFIG).env.candidate_selection == "softmax"


@pytest.mark.parametrize(
    ("method", "is_same"), [("gtp", False), ("gtp_paper", True), ("gtp_no_semigroup", True)]
)
def test_a_field_that_changed_the_default_when_it_came(
    make_cell, tmp_path: Path, method: str, is_same: bool
) -> None:
    cell = make_cell(method)
    former = OmegaConf.merge(cell.config)
    del former["loss"]["semigroup_every"]
    files.write_config(tmp_path, former)
    if is_same:
        assert files.check_config(tmp_path, cell.config) == ["loss.semigroup_every=None"]
    else:
        with pytest.raises(ValueError, match=r"loss\.semigroup_every: nothing and 8\n"):
            files.check_config(tmp_path, cell.config)


def test_a_field_that_there_is_no_more_is_refused(make_cell, tmp_path: Path) -> None:
    cell = make_cell("bc")
    former = OmegaConf.merge(cell.config, {"env": {"fps": 30}})
    files.write_config(tmp_path, former)
    with pytest.raises(ValueError, match=r"other settings.*\n  env\.fps: 30 and nothing\n"):
        run_here(cell, tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2].rpartition("\n")[0] + "\n",
        lambda text: text[: len(text) // 2].rpartition("\n")[0] + "\n  'half",
        lambda text: "overwritten\n",
        lambda text: "[1, 2]\n",
        lambda text: "${",
    ],
    ids=["empty", "between lines", "in a line", "text", "list", "interpolation"],
)
def test_a_damaged_config_is_refused(make_cell, tmp_path: Path, damage) -> None:
    cell = make_cell("bc")
    files.write_config(tmp_path, cell.config)
    path = tmp_path / files.CONFIG
    assert files.check_config(tmp_path, cell.config) == []
    path.write_text(damage(path.read_text()))
    with pytest.raises(files.DamagedFileError, match=r"config\.yaml is damaged \(.*delete"):
        run_here(cell, tmp_path)


@pytest.mark.parametrize(
    ("method", "override", "message"),
    [
        ("idql", "final.num_steps=[1,6]", r"final\.num_steps=\[1, 6\].*6 steps.*\[1, 5\]"),
        ("gtp", "final.num_steps=[0]", r"final\.num_steps=\[0\].*at least 1 jump"),
        ("idql", "actor.num_steps_eval=7", r"actor\.num_steps_eval=\[7\].*\[1, 5\]"),
    ],
)
def test_steps_that_the_policy_cannot_take_are_refused_at_once(
    make_cell, tmp_path: Path, monkeypatch, method: str, override: str, message: str
) -> None:
    cell = make_cell(method, f"overrides.{override}")
    with monkeypatch.context() as patch:
        patch.setattr("recipes.study.cell.make_buffer", lambda config: pytest.fail("too late"))
        with pytest.raises(ValueError, match=message):
            run_here(cell, tmp_path)
    # The folder is not tied to the settings that were refused.
    run_here(make_cell(method), tmp_path)


def test_scores_follow_the_references_of_the_task(make_cell, tmp_path: Path) -> None:
    cell = make_cell("bc", "overrides.study.reference_scores=[-10.0,0.0]")
    result = run_here(cell, tmp_path)
    expected = [100 * (value + 10) / 10 for value in result["last"]["returns"]]
    assert result["last"]["scores"] == pytest.approx(expected)
    evaluated = [r for r in files.read_curves(tmp_path / files.CURVES) if "eval/return" in r]
    for row in evaluated:
        assert row["eval/normalized_score"] == pytest.approx(10 * (row["eval/return"] + 10))


def test_nan_is_a_failure_of_the_cell(make_cell, tmp_path: Path, monkeypatch) -> None:
    update = Learner.update

    def broken(self, batch):
        losses = update(self, batch)
        return losses.apply(lambda value: value * float("nan"))

    monkeypatch.setattr(Learner, "update", broken)
    with pytest.raises(FloatingPointError, match="nan or infinite at update 2"):
        run_here(make_cell("gtp_bc"), tmp_path)
