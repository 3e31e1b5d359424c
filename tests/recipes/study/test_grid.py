from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from recipes.study.cell import check_steps
from recipes.study.grid import HERE, Cell, make_cells, read_study, selected, study_file

METHODS = sorted(file.stem for file in (HERE / "method").glob("*.yaml"))
STUDIES = sorted(file.stem for file in (HERE / "studies").glob("*.yaml"))


def test_cells_come_seed_by_seed_and_grid_by_grid(write_study) -> None:
    path = write_study(["gtp"])
    study = read_study(path)
    small = {"optim": {"steps": 3}}
    study.grids = [
        type(study.grids[0])(["pointmaze_umaze", "pointmaze_medium"], ["gtp", "bc"], [0, 1]),
        type(study.grids[0])(["pointmaze_large"], ["iql"], [5], small),
    ]
    cells = make_cells(study)
    assert [cell.name for cell in cells] == [
        "pointmaze_umaze/gtp/seed_0",
        "pointmaze_umaze/bc/seed_0",
        "pointmaze_medium/gtp/seed_0",
        "pointmaze_medium/bc/seed_0",
        "pointmaze_umaze/gtp/seed_1",
        "pointmaze_umaze/bc/seed_1",
        "pointmaze_medium/gtp/seed_1",
        "pointmaze_medium/bc/seed_1",
        "pointmaze_large/iql/seed_5",
    ]
    assert [cell.updates for cell in cells[-2:]] == [12, 3]
    assert cells[-1].config.seed == 5
    assert cells[-1].config.dataset == "gtp/pointmaze/large-v0"
    assert [c.method for c in selected(cells, ["*/iql/*", "*umaze/bc/seed_1"])] == ["bc", "iql"]
    with pytest.raises(ValueError, match="matches none of the 9 cells"):
        selected(cells, ["nothing"])


def test_settings_of_a_task_for_one_method_reach_that_method_alone(
    write_study, tmp_path: Path
) -> None:
    task = {
        "dataset": "gtp/pointmaze/umaze-v0",
        "replay_buffer": {"reward_shift": -1.0},
        "study": {"name": "Mine", "methods": {"gtp": {"loss": {"eta": 7.0}}}},
    }
    (tmp_path / "task").mkdir()
    OmegaConf.save(OmegaConf.create(task), tmp_path / "task" / "mine.yaml")
    (tmp_path / "method").mkdir()
    method = {"method": {"label": "Mine"}, "loss": {"lambda_flow": 2.0}}
    OmegaConf.save(OmegaConf.create(method), tmp_path / "method" / "my_gtp.yaml")

    study = read_study(write_study(["gtp", "my_gtp"], tasks=["mine"]))
    gtp, other = (cell.config for cell in make_cells(study, extra=tmp_path))
    assert (gtp.loss.eta, other.loss.eta) == (7.0, 3.0)
    assert (gtp.loss.lambda_flow, other.loss.lambda_flow) == (None, 2.0)
    assert gtp.replay_buffer.reward_shift == other.replay_buffer.reward_shift == -1.0
    assert "methods" not in gtp.study


@pytest.mark.parametrize(("group", "name"), [("method", "gtp"), ("task", "pointmaze_umaze")])
def test_a_file_with_the_name_of_a_shipped_one_is_refused(
    write_study, tmp_path: Path, group: str, name: str
) -> None:
    (tmp_path / group).mkdir()
    own = tmp_path / group / f"{name}.yaml"
    own.write_text((HERE / group / f"{name}.yaml").read_text())
    study = read_study(write_study(["gtp"]))
    with pytest.raises(
        ValueError, match=r"has the name of a file of this project.*Rename"
    ) as error:
        make_cells(study, extra=tmp_path)
    assert str(own) in str(error.value) and str(HERE / group / own.name) in str(error.value)
    # A study that lies beside the shipped files means those.
    assert len(make_cells(study, extra=HERE / "studies" / "..")) == 1


def test_a_task_has_what_the_shipped_suites_share(write_study, tmp_path: Path) -> None:
    # Quotes, commas and blanks mean something to Hydra.
    folder = tmp_path / "it's mine, all"
    (folder / "task").mkdir(parents=True)
    task = {
        "defaults": ["_antmaze", "_mine", "_self_"],
        "dataset": "mine/antmaze/round-v0",
        "study": {"name": "Round maze"},
    }
    OmegaConf.save(OmegaConf.create(task), folder / "task" / "antmaze_round.yaml")
    OmegaConf.save(OmegaConf.create({"env": {"max_steps": 123}}), folder / "task" / "_mine.yaml")
    study = read_study(write_study(["iql"], tasks=["antmaze_round", "antmaze_umaze"]))
    study.overrides = {}
    mine, shipped = (cell.config for cell in make_cells(study, extra=folder))
    assert (mine.dataset, mine.env.max_steps) == ("mine/antmaze/round-v0", 123)
    assert mine.env.reference_scores == shipped.env.reference_scores == [0, 1]
    assert mine.study.suite == shipped.study.suite
    assert mine.loss == shipped.loss and mine.replay_buffer == shipped.replay_buffer


def test_overrides_as_documented(write_study) -> None:
    overrides = ["workers=2", "only=[*/gtp/*,umaze*]", "overrides.optim.steps=7"]
    study = read_study(write_study(["gtp"]), overrides)
    assert (study.workers, study.only) == (2, ["*/gtp/*", "umaze*"])
    assert {cell.updates for cell in make_cells(study)} == {7}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["workers"], r"EQUAL[\s\S]*needs quotes of its own"),
        (["~workers"], "not of the form field=value"),
        (["folder=a,b"], "needs quotes of its own"),
        (["wokers=2"], "wokers"),
        (["workers=many"], "workers"),
        (["grids.0.seeds=[]"], "no cell"),
        (["grids.0.methods=[gpt]"], "There are: .*gtp"),
        (["grids.0.tasks=[nowhere]"], "There are: .*pointmaze_umaze"),
        (["overrides.optim.stps=2"], "stps"),
        (["grids.0.seeds=[0,0]"], "listed twice"),
    ],
)
def test_errors_say_what_is_accepted(write_study, overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_cells(read_study(write_study(["gtp"]), overrides))


def test_unknown_study(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="smoke"):
        study_file("smok")


@cache
def cells_of(name: str) -> list[Cell]:
    """The cells of a study's file with the first seed of each grid."""
    study = read_study(study_file(name))
    for grid in study.grids:
        grid.seeds = grid.seeds[:1]
    return make_cells(study)


@pytest.mark.parametrize("name", STUDIES)
def test_methods_of_a_study_have_equal_budgets(name: str) -> None:
    by_task: dict[str, set[str]] = {}
    for cell in cells_of(name):
        c = cell.settings
        budget = (c["optim"]["steps"], c["replay_buffer"]["batch_size"])
        budget += (c["env"]["final_episodes"], c["actor"]["hidden_sizes"])
        budget += (c["critic"]["hidden_sizes"],)
        # There IDQL has the network of its publication (docs/study.md).
        if name not in ("smoke", "gpu"):
            budget += (c["actor"]["backbone"], c["actor"]["dropout"])
        by_task.setdefault(cell.task, set()).add(str(budget))
    assert {task: len(budgets) for task, budgets in by_task.items()} == dict.fromkeys(by_task, 1)


@pytest.mark.parametrize("name", STUDIES)
def test_all_cells_of_a_study_take_their_steps(name: str) -> None:
    checked = set()
    for cell in cells_of(name):
        actor, final = cell.settings["actor"], cell.settings["final"]
        steps = [actor["num_steps_train"], actor["num_steps_eval"], *final["num_steps"]]
        if (cell.method, *steps) not in checked:
            check_steps(cell.config)
        checked.add((cell.method, *steps))
    assert checked
