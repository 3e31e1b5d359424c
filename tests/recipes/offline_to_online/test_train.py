from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image
from tensordict import TensorDict

from recipes.common.checkpoints import load_checkpoint
from recipes.gtp.learner import Learner
from recipes.offline_to_online import train as recipe
from recipes.offline_to_online.summarize import main
from recipes.offline_to_online.training import OfflineToOnlineRun
from tests.recipes.conftest import TINY

MakeConfig = Callable[..., DictConfig]
FOLDER = Path(recipe.__file__).parent
# 4 updates offline, 3 turns of the collector with 2 updates each: 10 updates.
TINY_ONLINE = [
    *TINY,
    "dataset=gtp/pointmaze/umaze-v0",
    "optim.steps=4",
    "online.num_envs=2",
    "online.frames=80",
    "online.initial_frames=40",
    "online.frames_per_batch=20",
    "online.updates_per_batch=2",
    "online.buffer_size=60",
    "online.num_candidates=1",
    "online.action_noise=0",
    "env.num_candidates=1",
    "env.eval_interval=4",
]


@pytest.fixture
def config(datasets: Path) -> Iterator[MakeConfig]:
    threads = torch.get_num_threads()

    def make(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(FOLDER), version_base="1.3"):
            return compose("offline_to_online", overrides=[*TINY_ONLINE, *overrides])

    yield make
    torch.set_num_threads(threads)


def test_the_sampler_is_that_of_the_published_figures(config: MakeConfig) -> None:
    assert config().actor.sampler == "jumps"


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    lines = (folder / "gtp" / "scalars" / f"{name}.csv").read_text().splitlines()
    return [(int(step), float(value)) for step, value in (line.split(",") for line in lines)]


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    update = Learner.update

    def update_and_interrupt(self, batch):
        losses = update(self, batch)
        if self.step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return losses

    monkeypatch.setattr(Learner, "update", update_and_interrupt)


def test_both_phases_leave_curves_checkpoints_and_results(
    config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = recipe.run(config("seed=3"), tmp_path)
    assert list(rows) == ["behaviour", "offline", "online"]
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["seed"], results["updates"], results["offline_updates"]) == (3, 10, 4)
    assert results["env_steps"] == 80
    assert results["results"]["online"]["updates_per_second"] > 0
    assert [step for step, _ in scalars(tmp_path, "eval/return")] == [4, 8]
    # Logged after 2, 4, ... updates: no step before the switch, 40 + 20 + 20 after it.
    assert scalars(tmp_path, "train/env_steps")[:2] == [(2, 0), (4, 0)]
    assert dict(scalars(tmp_path, "train/env_steps"))[6] == 40
    assert dict(scalars(tmp_path, "train/env_steps"))[10] == 80
    assert load_checkpoint(tmp_path / "gtp" / "offline.pt")["learner"]["step"] == 4
    last = load_checkpoint(tmp_path / "gtp" / "last.pt")
    assert (last["learner"]["step"], last["frames"]) == (10, 80)
    assert (tmp_path / "learning_curves.png").exists()
    assert "GTP, before the switch" in (tmp_path / "results.md").read_text()

    main([str(tmp_path), "--picture", str(tmp_path / "curves.png")])
    assert min(Image.open(tmp_path / "curves.png").size) > 300
    header, _, row = capsys.readouterr().out.splitlines()[-3:]
    assert "return before" in header
    assert [cell.strip() for cell in row.split("|")][1] == "3"
    before = results["results"]["offline"]["return_mean"]
    assert f"| {before:,.1f} ±" in " ".join(row.split())


def test_batches_change_at_the_switch(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: set[tuple[float, ...]] = set()
    shares = []
    update = Learner.update

    def count(self, batch):
        rows = [tuple(row) for row in batch["observation"].tolist()]
        shares.append(sum(row in known for row in rows))
        return update(self, batch)

    monkeypatch.setattr(Learner, "update", count)
    cfg = config("online.offline_fraction=0.25")
    observations = recipe.make_buffer(cfg)[:]["observation"].tolist()
    known.update(tuple(row) for row in observations)
    recipe.run(cfg, tmp_path)
    assert shares == [16] * 4 + [4] * 6


def test_collected_time_outs_are_no_terminations(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    close = OfflineToOnlineRun.close

    def keep(self):
        runs.append(self)
        close(self)

    monkeypatch.setattr(OfflineToOnlineRun, "close", keep)
    # The time limit of the environment is 300 steps, the dataset's own.
    cfg = config(
        "online.num_envs=1",
        "online.frames=640",
        "online.initial_frames=320",
        "online.frames_per_batch=320",
        "online.buffer_size=1000",
        "replay_buffer.reward_scale=4",
        "replay_buffer.reward_shift=-2",
    )
    recipe.run(cfg, tmp_path)
    online = runs[0].replay.online[:]
    assert len(online) == 640
    ends = online["next", "truncated"].squeeze(-1).nonzero().squeeze(-1).tolist()
    assert ends == [299, 599]
    assert online["next", "done"].squeeze(-1).nonzero().squeeze(-1).tolist() == ends
    assert not online["next", "terminated"].any()
    for end in ends:
        # The last transition ends where its episode did, not where the next one starts.
        before, after = online["observation"][end], online["next", "observation"][end]
        assert (after[:2] - before[:2]).norm() < 0.1
        assert (online["observation"][end + 1, 2:] == 0).all()
    # Rewards of 0 and 1 are transformed as in the dataset.
    assert set(online["next", "reward"].flatten().tolist()) <= {-2.0, 2.0}


@pytest.mark.parametrize("num_candidates", [1, 3])
def test_collector_acts_on_the_policy_that_updates_change(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_candidates: int
) -> None:
    policies = []
    collect = OfflineToOnlineRun.collect

    def record(self):
        mine = dict(self.learner.loss.target_actor().named_parameters())
        acting = self.collector.policy
        acting = acting.actor if num_candidates > 1 else acting
        policies.append([value.clone() for value in acting.parameters()])
        for name, value in acting.named_parameters():
            assert torch.equal(value, mine[name]), name
        collect(self)

    monkeypatch.setattr(OfflineToOnlineRun, "collect", record)
    recipe.run(config(f"online.num_candidates={num_candidates}"), tmp_path)
    assert len(policies) == 4
    first, last = policies[0], policies[-1]
    assert any(not torch.equal(a, b) for a, b in zip(first, last, strict=True))


def test_noise_of_exploration(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exploring, acting = [], []
    collect = OfflineToOnlineRun.collect

    def record(self):
        observations = TensorDict({"observation": torch.zeros(500, 4)}, [500])
        exploring.append(self.collector.policy(observations.copy())["action"])
        acting.append(self.policy()(observations.copy())["action"])
        collect(self)

    monkeypatch.setattr(OfflineToOnlineRun, "collect", record)
    recipe.run(config("online.action_noise=5"), tmp_path)
    assert (exploring[0].abs() <= 1).all()
    # So much noise ends at the bounds; evaluation has none of it.
    assert (exploring[0].abs() == 1).float().mean() > 0.7
    assert (acting[0].abs() == 1).float().mean() < 0.5


@pytest.mark.parametrize("stop", [3, 7])
def test_resume(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    interrupt_at(monkeypatch, stop)
    with pytest.raises(SystemExit) as end:
        recipe.run(config("checkpoint.interval=0"), tmp_path)
    monkeypatch.undo()
    assert end.value.code == 130
    before = load_checkpoint(tmp_path / "gtp" / "last.pt")
    assert before["learner"]["step"] == stop
    assert before["frames"] == (0 if stop == 3 else 60)
    assert (before["online"] is None) == (stop == 3)

    cfg = recipe.resumed_config(tmp_path, [f"resume={tmp_path}"], recipe.RESUMABLE, recipe.CONFIGS)
    recipe.run(cfg, tmp_path)
    after = load_checkpoint(tmp_path / "gtp" / "last.pt")
    assert (after["learner"]["step"], after["frames"]) == (10, 80)
    assert (tmp_path / "results.json").exists()
    if stop == 7:
        # The ring holds 60: the newest 20 have taken the place of the oldest, the rest stayed.
        former = before["online"]["_storage"]["_storage"]["action"]
        now = after["online"]["_storage"]["_storage"]["action"]
        assert torch.equal(former[20:60], now[20:60])
        assert not torch.equal(former[:20], now[:20])


def test_resume_in_the_offline_phase_equals_an_uninterrupted_run(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe.run(config(), tmp_path / "whole")
    interrupt_at(monkeypatch, 2)
    with pytest.raises(SystemExit):
        recipe.run(config(), tmp_path / "parts")
    monkeypatch.undo()
    torch.manual_seed(99)
    parts = tmp_path / "parts"
    recipe.run(
        recipe.resumed_config(parts, [f"resume={parts}"], recipe.RESUMABLE, recipe.CONFIGS), parts
    )
    whole, resumed = (
        load_checkpoint(folder / "gtp" / "last.pt")["learner"]["loss"]
        for folder in (tmp_path / "whole", parts)
    )
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


@pytest.mark.parametrize(
    "override", ["optim.steps=5", "online.frames=100", "online.offline_fraction=0"]
)
def test_resume_refuses_to_change_what_was_trained(
    config: MakeConfig, tmp_path: Path, override: str
) -> None:
    recipe.run(config("env.eval_interval=0"), tmp_path)
    with pytest.raises(ValueError, match="a resumed run may only change"):
        recipe.resumed_config(tmp_path, [override], recipe.RESUMABLE, recipe.CONFIGS)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bc=true", "cloning has no use"),
        ("online.frames_per_batch=25", "must be a multiple of online.num_envs=2"),
        ("online.frames=90", r"online\.frames=90 must be a positive multiple"),
        ("online.initial_frames=0", r"online\.initial_frames=0 must be a positive multiple"),
        ("online.initial_frames=100", r"initial_frames=100 must be at most online\.frames=80"),
        ("online.updates_per_batch=0", r"online\.updates_per_batch must be at least 1, got 0"),
        ("optim.steps=-1", r"optim\.steps must be at least 0, got -1"),
        ("online.offline_fraction=2", r"online\.offline_fraction must lie in \[0, 1\]"),
        ("online.action_noise=-1", r"online\.action_noise must be finite and at least 0"),
        ("online.buffer_size=0", r"online\.buffer_size must be at least 1"),
        ("+loss.lamda_flow=2", r"Did you mean loss\.lambda_flow"),
    ],
)
def test_bad_config_is_a_clear_error(
    config: MakeConfig, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        recipe.run(config(override), tmp_path / "run")
    assert not list(tmp_path.glob("run/*/last.pt"))


def test_folder_of_another_run_is_not_overwritten(config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "gtp").mkdir()
    (tmp_path / "gtp" / "last.pt").touch()
    with pytest.raises(FileExistsError, match="holds a run already"):
        recipe.run(config(), tmp_path)


def test_from_scratch(config: MakeConfig, tmp_path: Path) -> None:
    rows = recipe.run(config("optim.steps=0", "online.offline_fraction=0"), tmp_path)
    assert load_checkpoint(tmp_path / "gtp" / "offline.pt")["learner"]["step"] == 0
    assert rows["online"].episodes == 3


def test_command_line(datasets: Path, tmp_path: Path) -> None:
    root = FOLDER.parents[1]
    command = [sys.executable, str(FOLDER / "train.py"), *TINY_ONLINE]
    result = subprocess.run(
        [*command, f"hydra.run.dir={tmp_path / 'run'}"],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert "GTP, after online training" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
