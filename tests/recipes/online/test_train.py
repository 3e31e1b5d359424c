from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image
from tensordict import TensorDict
from torchrl.data import Bounded

from recipes.common.checkpoints import load_checkpoint
from recipes.gtp.train import resumed_config
from recipes.online import train as recipe
from recipes.online.learner import DipoLearner, make_action_gradient, make_networks
from recipes.online.training import OnlineRun

pytest.importorskip("gymnasium.envs.classic_control")

MakeConfig = Callable[..., DictConfig]
FOLDER = Path(recipe.__file__).parent
# 20 random steps and an update, then 12 turns of one step and one update.
TINY = [
    "online.frames=32",
    "online.initial_frames=20",
    "online.buffer_size=40",
    "online.batch_size=8",
    "action_gradient.num_steps=2",
    "actor.num_levels=3",
    "actor.hidden_sizes=[16]",
    "critic.hidden_sizes=[16]",
    "env.num_envs=2",
    "env.eval_interval=6",
    "env.eval_episodes=2",
    "env.final_episodes=3",
    "env.max_steps=5",
    "logger.interval=4",
    "checkpoint.interval=5",
]


@pytest.fixture
def config() -> Iterator[MakeConfig]:
    threads = torch.get_num_threads()

    def make(*overrides: str, tiny: bool = True) -> DictConfig:
        with initialize_config_dir(str(FOLDER), version_base="1.3"):
            return compose("config", overrides=[*(TINY if tiny else []), *overrides])

    yield make
    torch.set_num_threads(threads)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[OnlineRun]:
    """The runs that a test made, to look into them afterwards."""
    kept: list[OnlineRun] = []
    close = OnlineRun.close

    def keep(self):
        kept.append(self)
        close(self)

    monkeypatch.setattr(OnlineRun, "close", keep)
    return kept


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> list[TensorDict]:
    """The newest transitions after each turn of the collector, before they can change."""
    kept: list[TensorDict] = []
    collect = OnlineRun.collect

    def keep(self):
        before = self.frames
        collect(self)
        kept.append(self.buffer[before : self.frames].clone())

    monkeypatch.setattr(OnlineRun, "collect", keep)
    return kept


def test_a_run_leaves_curves_checkpoints_and_results(
    config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = recipe.run(config("seed=3"), tmp_path)
    assert list(rows) == ["behaviour", "dipo"]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["env"] == "Pendulum-v1"
    assert (results["seed"], results["updates"], results["env_steps"]) == (3, 13, 32)
    for row in results["results"].values():
        assert row["episodes"] == 3
        # Of Pendulum: 5 steps, each of a reward from -16.3 to 0.
        assert -82 < row["return_mean"] < 0
    assert results["results"]["dipo"]["milliseconds_per_action"] > 0
    curves = tmp_path / "dipo" / "scalars"
    lines = (curves / "train" / "env_steps.csv").read_text().splitlines()
    # Logged after 4, 8, 12 updates, and with the evaluations after 6 and 12.
    assert [tuple(map(float, line.split(","))) for line in lines[:2]] == [(4, 23), (6, 25)]
    assert len((curves / "eval" / "return.csv").read_text().splitlines()) == 2
    assert (curves / "train" / "loss_qvalue.csv").exists()
    assert load_checkpoint(tmp_path / "dipo" / "best.pt")["learner"]["step"] in (6, 12)
    assert load_checkpoint(tmp_path / "dipo" / "last.pt")["frames"] == 32
    assert min(Image.open(tmp_path / "learning_curves.png").size) > 300
    assert "| random actions" in capsys.readouterr().out
    with pytest.raises(FileExistsError, match="holds a run already"):
        recipe.run(config(), tmp_path)


@pytest.mark.parametrize("store", [True, False])
def test_stored_improved_actions_move_and_those_taken_stay(
    config: MakeConfig,
    tmp_path: Path,
    runs: list[OnlineRun],
    collected: list[TensorDict],
    store: bool,
) -> None:
    recipe.run(config(f"action_gradient.store={store}"), tmp_path)
    data, before = runs[0].buffer[:], torch.cat(collected)
    assert data.shape == before.shape == (32,)
    assert torch.equal(before["improved_action"], before["action"])
    assert torch.equal(data["action"], before["action"])
    moved = (data["improved_action"] != data["action"]).any(-1)
    # 13 batches of 8: nearly all transitions were drawn.
    assert moved.sum() > 20 if store else not moved.any()
    assert (data["improved_action"].abs() <= 1).all()


def test_where_improvement_starts(config: MakeConfig) -> None:
    spec = Bounded(-1, 1, (2,))
    _, loss = make_networks(config(), 3, spec, torch.device("cpu"))
    batch = TensorDict({"observation": torch.randn(4, 3), "action": torch.zeros(4, 2)}, [4])
    batch["improved_action"] = torch.full((4, 2), 0.5)
    options = {"num_steps": 1, "learning_rate": 0.01, "max_grad_norm": 0.1}
    for from_improved, start in ((True, 0.5), (False, 0.0)):
        improve = make_action_gradient(loss, "", options, 2, from_improved=from_improved)
        assert improve.max_grad_norm == pytest.approx(0.2)
        improved = improve(batch.clone())["improved_action"]
        # Adam's first step is as long as its rate.
        assert ((improved - start).abs() <= 0.0101).all()
        assert (improved != start).any()


def test_policy_reads_improved_actions_and_critics_those_taken(config: MakeConfig) -> None:
    actor, loss = make_networks(config(), 3, Bounded(-1, 1, (2,)), torch.device("cpu"))
    ends = torch.zeros(8, 1, dtype=torch.bool)
    data = {"observation": torch.randn(8, 3), "action": torch.rand(8, 2)}
    following = {"observation": torch.randn(8, 3), "reward": torch.randn(8, 1)}
    data["next"] = {**following, "done": ends, "terminated": ends.clone()}
    batch = TensorDict({**data, "improved_action": torch.rand(8, 2)}, [8])

    def losses(changed: str) -> tuple[float, float]:
        torch.manual_seed(0)
        other = batch.clone()
        if changed:
            other[changed] = -other[changed]
        out = loss(other)
        return out["loss_flow"].item(), out["loss_qvalue"].item()

    flow, qvalue = losses("")
    assert losses("improved_action")[0] != flow
    assert losses("improved_action")[1] == qvalue
    assert losses("action")[0] == flow
    assert losses("action")[1] != qvalue
    assert actor.num_steps == 3


def test_current_policy_collects_and_is_evaluated(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []
    collect = OnlineRun.collect

    def record(self):
        acting = dict(self.collector.policy.named_parameters())
        current = self.learner.loss.actor_network_params.flatten_keys()
        for name, value in acting.items():
            assert torch.equal(value, current[name]), name
        assert self.policy() is self.collector.policy
        weights.append({name: value.clone() for name, value in acting.items()})
        collect(self)

    monkeypatch.setattr(OnlineRun, "collect", record)
    recipe.run(config(), tmp_path)
    assert any(not torch.equal(weights[0][name], value) for name, value in weights[-1].items())


def test_first_steps_are_random(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collecting, calls = [], []
    collect = OnlineRun.collect

    def record(self):
        if not collecting:
            self.actor.register_forward_hook(
                lambda *_: calls.append(self.frames) if collecting[-1] else None
            )
        collecting.append(True)
        collect(self)
        collecting.append(False)

    monkeypatch.setattr(OnlineRun, "collect", record)
    recipe.run(config(), tmp_path)
    assert calls == list(range(20, 32))


def test_time_limit_is_no_termination(
    config: MakeConfig, tmp_path: Path, runs: list[OnlineRun]
) -> None:
    recipe.run(
        config("online.initial_frames=420", "online.frames=421", "online.buffer_size=500"),
        tmp_path,
    )
    data = runs[0].buffer[:]
    assert data["next", "truncated"].squeeze(-1).nonzero().squeeze(-1).tolist() == [199, 399]
    assert not data["next", "terminated"].any()
    # The last transition ends where its episode did: Pendulum turns by at most 0.4 a step.
    angle = [
        torch.atan2(o[:, 1], o[:, 0]) for o in (data["observation"], data["next"]["observation"])
    ]
    turned = (angle[1] - angle[0] + torch.pi).remainder(2 * torch.pi) - torch.pi
    assert turned.abs().max() < 0.41
    assert (data["action"].abs() <= 1).all() and data["action"].abs().max() > 0.9


def test_several_environments_and_turns(
    config: MakeConfig, tmp_path: Path, runs: list[OnlineRun]
) -> None:
    cfg = config("online.num_envs=2", "online.frames_per_batch=4", "online.updates_per_batch=3")
    recipe.run(cfg, tmp_path)
    assert (runs[0].frames, runs[0].learner.step) == (32, 12)


def test_resume(
    config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runs: list[OnlineRun],
    collected: list[TensorDict],
) -> None:
    update = DipoLearner.update

    def update_and_interrupt(self, batch):
        losses = update(self, batch)
        if self.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return losses

    with monkeypatch.context() as patch:
        patch.setattr(DipoLearner, "update", update_and_interrupt)
        with pytest.raises(SystemExit) as end:
            recipe.run(config(), tmp_path)
    assert end.value.code == 130
    state = load_checkpoint(tmp_path / "dipo" / "last.pt")
    assert (state["learner"]["step"], state["frames"]) == (4, 23)

    cfg = resumed_config(tmp_path, [f"resume={tmp_path}"], recipe.RESUMABLE, [recipe.CONFIG])
    recipe.run(cfg, tmp_path)
    resumed = runs[1]
    assert (resumed.learner.step, resumed.frames) == (13, 32)
    assert resumed.collector.init_random_frames == 0
    assert len(resumed.buffer) == 32
    assert torch.equal(resumed.buffer[:]["action"], torch.cat(collected)["action"])
    with pytest.raises(ValueError, match="a resumed run may only change"):
        resumed_config(tmp_path, ["online.frames=40"], recipe.RESUMABLE, [recipe.CONFIG])


class OtherSpaces(gym.Env):
    """An environment of which only the spaces are looked at."""

    def __init__(self, **spaces: Any) -> None:
        self.observation_space = spaces.get("observation", Box(-1, 1, (3,)))
        self.action_space = spaces.get("action", Box(-1, 1, (1,)))

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


@pytest.mark.parametrize(
    ("spaces", "message"),
    [
        ({"action": Box(-np.inf, np.inf, (1,))}, "without bounds"),
        ({"action": Box(np.array([-1.0, 0.0]), np.array([1.0, np.inf]))}, "without bounds"),
        ({"action": Box(-1, 1, (2, 2))}, "vectors of continuous numbers"),
        ({"observation": Dict(position=Box(-1, 1, (2,)))}, "read one vector"),
        ({"observation": Box(0, 255, (8, 8, 3), np.uint8)}, "read one vector"),
        ({}, "has no time limit: set env.max_steps"),
    ],
)
def test_environments_that_do_not_fit(
    config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spaces: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))
    gym.register("Other-v0", lambda: OtherSpaces(**spaces), disable_env_checker=True)
    with pytest.raises(ValueError, match=message):
        recipe.run(config("env.id=Other-v0", "env.max_steps=null"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("env.id=CartPole-v1", r"env\.id=CartPole-v1 has the actions Discrete\(2\)"),
        ("online.initial_frames=100", r"initial_frames=100 must be at most online\.frames=32"),
        ("+actor.hidden_size=[8]", r"Did you mean actor\.hidden_sizes"),
        ("+actor.num_steps=5", r"Unknown option actor\.num_steps"),
        ("+critic.hidden_size=[8]", r"Did you mean critic\.hidden_sizes"),
        ("+loss.num_qvalue_net=3", r"Did you mean loss\.num_qvalue_nets"),
        ("+loss.eta=3", r"Unknown option loss\.eta"),
        ("+action_gradient.steps=5", r"Did you mean action_gradient\.num_steps"),
        ("action_gradient.num_steps=0", "num_steps must be at least 1, got 0"),
    ],
)
def test_bad_config_is_a_clear_error(
    config: MakeConfig, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        recipe.run(config(override), tmp_path / "run")
    assert not list(tmp_path.glob("run/*/last.pt"))


@pytest.mark.parametrize(
    ("task", "env", "action_norm", "grad_norm", "steps", "interval"),
    [
        ("hopper", "Hopper", 0.3, 1.0, 20, 1),
        ("walker2d", "Walker2d", 0.08, 2.0, 20, 1),
        ("ant", "Ant", 0.1, 0.8, 20, 1),
        ("halfcheetah", "HalfCheetah", 0.08, 2.0, 40, {"actor_network": 2}),
        ("humanoid", "Humanoid", 0.1, 2.0, 20, 1),
    ],
)
def test_published_tasks(
    config: MakeConfig,
    task: str,
    env: str,
    action_norm: float,
    grad_norm: float,
    steps: int,
    interval,
) -> None:
    """The table of the published README."""
    cfg = config(f"task={task}", tiny=False)
    assert cfg.env.id == f"{env}-v5"
    assert cfg.action_gradient.max_grad_norm == action_norm
    # The policy's error is the sum over the dimensions of the action, the published one the mean.
    pytest.importorskip("mujoco")
    space = gym.make(cfg.env.id).action_space
    assert cfg.optim.grad_clip.qvalue_network == grad_norm
    assert cfg.optim.grad_clip.actor_network == pytest.approx(grad_norm * space.shape[0])
    assert cfg.action_gradient.num_steps == steps
    assert cfg.optim.tau_interval == interval
    assert (cfg.actor.num_levels, cfg.action_gradient.learning_rate) == (100, 0.03)
    assert recipe.make_schedule(cfg).updates == cfg.online.frames - 10_000 + 1


def test_command_line_without_a_task(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "train.py"), "~task", "env.id=Pendulum-v1", *TINY]
    result = subprocess.run(
        [*command, f"hydra.run.dir={tmp_path / 'run'}"],
        env={**os.environ, "PYTHONPATH": str(FOLDER.parents[1]), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert "| DIPO" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
