from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from recipes.common.checkpoints import load_checkpoint
from recipes.common.options import keyword_defaults
from recipes.gtp import train as recipe
from recipes.gtp.training import Run
from tests.recipes.conftest import TINY
from torchrl_gtp import CandidateActor, GTPLoss, NoiseLevels, make_gtp_actor, make_qvalue
from torchrl_gtp.flow_map import JumpSampler, MatchedStart

MakeConfig = Callable[..., DictConfig]
CONFIG = Path(recipe.__file__).with_name("config.yaml")
MEAN_FLOW = "loss.objective={_target_: recipes.study.learners.family_objective, name: mean_flow}"
ROOT = Path(recipe.__file__).parents[2]


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    lines = (folder / "scalars" / f"{name}.csv").read_text().splitlines()
    return [(int(step), float(value)) for step, value in (line.split(",") for line in lines)]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(checkpoint)["learner"]["loss"]


def assert_same_weights(first: Path, second: Path) -> None:
    first_weights, second_weights = weights(first), weights(second)
    assert first_weights.keys() == second_weights.keys()
    for name, value in first_weights.items():
        assert torch.equal(value, second_weights[name]), name


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sends SIGINT to this process after the given update."""

    def arm(step: int) -> None:
        update = recipe.Learner.update

        def update_and_interrupt(self, batch):
            losses = update(self, batch)
            if self.step == step:
                os.kill(os.getpid(), signal.SIGINT)
            return losses

        monkeypatch.setattr(recipe.Learner, "update", update_and_interrupt)

    return arm


def test_comparison_writes_everything(
    config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = recipe.run(config("compare_bc=true", "seed=3"), tmp_path)

    results = json.loads((tmp_path / "results.json").read_text())
    assert results["dataset"] == "gtp/pointmaze/umaze-v0"
    assert (results["seed"], results["updates"]) == (3, 6)
    assert list(results["results"]) == ["behaviour", "gtp_bc", "gtp"] == list(rows)
    for key, row in results["results"].items():
        assert 0 <= row["success_rate"] <= 1
        assert row["return_mean"] >= 0
        assert row["normalized_score"] is not None
        assert row["episodes"] == (5 if key == "behaviour" else 3)
    assert results["results"]["gtp"]["updates_per_second"] > 0
    assert results["results"]["gtp"]["milliseconds_per_action"] > 0

    table = (tmp_path / "results.md").read_text()
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == [
        "behaviour data",
        "GTP-BC",
        "GTP",
    ]
    printed = capsys.readouterr().out
    assert table in printed
    for picture in ("learning_curves.png", "paths.png"):
        assert str(tmp_path / picture) in printed
        assert min(Image.open(tmp_path / picture).size) > 300

    assert [step for step, _ in scalars(tmp_path / "gtp", "train/loss_qvalue")] == [2, 4, 6]
    assert [step for step, _ in scalars(tmp_path / "gtp", "eval/return")] == [3, 6]
    assert not (tmp_path / "gtp_bc" / "scalars" / "train" / "loss_qvalue.csv").exists()
    for method in ("gtp_bc", "gtp"):
        assert load_checkpoint(tmp_path / method / "last.pt")["learner"]["step"] == 6
        assert load_checkpoint(tmp_path / method / "best.pt")["learner"]["step"] in (3, 6)
    assert "steps: 6" in (tmp_path / "config.yaml").read_text()


@pytest.mark.filterwarnings("ignore:No target network updater")
def test_options_reach_the_library(config: MakeConfig, tmp_path: Path) -> None:
    cfg = config(
        "bc=true",
        "replay_buffer.storage=memmap",
        "replay_buffer.normalize_observations=true",
        "actor.noise_levels.sigma_max=3",
        "actor.num_steps_train=3",
        "actor.sigma_data=0.25",
        "loss.lambda_flow=2",
        "loss.value_network=true",
    )
    buffer = recipe.make_buffer(cfg)
    assert buffer[:]["observation"].std(0).tolist() == pytest.approx([1.0] * 4, abs=1e-2)
    loss = recipe.make_loss(cfg, buffer, bc=True)
    assert not loss.has_critic
    loss = recipe.make_loss(cfg, buffer, bc=False)
    assert loss.has_value_network
    assert loss.lambda_flow == 2
    actor = loss.target_actor()
    assert actor.num_steps == 3
    assert actor.flow_map.noise_levels.sigma_max == 3
    assert actor.flow_map.sigma_data == 0.25

    # Normalised observations are drawn in the coordinates of the maze.
    raw = recipe.make_buffer(config())
    for drawn, expected in zip(
        recipe.behaviour_paths(buffer)[0], recipe.behaviour_paths(raw)[0], strict=True
    ):
        torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-4)


def test_candidates_in_evaluation(config: MakeConfig, tmp_path: Path) -> None:
    cfg = config("env.num_candidates=4", "compare_bc=true", "optim.steps=2", "env.eval_interval=0")
    rows = recipe.run(cfg, tmp_path)
    assert set(rows) == {"behaviour", "gtp_bc", "gtp"}
    loss = recipe.make_loss(cfg, recipe.make_buffer(cfg), bc=False)
    policy = recipe.Learner(loss, cfg.optim).policy(3, num_candidates=4, temperature=0.5)
    assert isinstance(policy, CandidateActor)
    assert (policy.num_candidates, policy.temperature, policy.actor.num_steps) == (4, 0.5, 3)


@pytest.mark.filterwarnings("ignore:No target network updater")
def test_sigma_data_is_measured_by_default(config: MakeConfig) -> None:
    buffer = recipe.make_buffer(config())
    actor = recipe.make_loss(config(), buffer, bc=True).target_actor()
    expected = buffer[:]["action"].square().mean().sqrt().item()
    assert actor.flow_map.sigma_data.item() == pytest.approx(expected)


def test_reward_scale_and_shift(config: MakeConfig) -> None:
    raw = recipe.make_buffer(config())
    cfg = config("replay_buffer.reward_scale=4", "replay_buffer.reward_shift=-2")
    transformed = recipe.make_buffer(cfg)
    expected = 4 * raw[:]["next", "reward"] - 2
    torch.testing.assert_close(transformed[:]["next", "reward"], expected)
    # The table shows the environment's own rewards.
    assert recipe.behaviour_results(transformed) == recipe.behaviour_results(raw)


@pytest.mark.parametrize(
    ("group", "target", "recipe_only", "filled_by_recipe", "chosen"),
    [
        (
            "loss",
            GTPLoss,
            {"gamma", "value_network"},
            {
                "actor_network",
                "qvalue_network",
                "value_network",
                "critic",
                "denoiser_network",
                "progress",
                "reduction",
                "sync_advantage",
            },
            {"eta"},
        ),
        (
            "actor",
            make_gtp_actor,
            {"num_steps_train", "num_steps_eval"},
            {
                "observation_dim",
                "action_spec",
                "observation_keys",
                "action_key",
                "noise_key",
                "num_steps",
                "chunk_length",
            },
            {"sampler", "sigma_data", "noise_levels", "activation"},
        ),
        (
            "critic",
            make_qvalue,
            {"kind", "options"},
            {
                "observation_dim",
                "action_dim",
                "chunk_length",
                "num_quantiles",
                "observation_keys",
                "action_key",
            },
            {"activation"},
        ),
    ],
)
def test_config_lists_every_option_with_the_default_of_the_library(
    group: str,
    target: Callable,
    recipe_only: set[str],
    filled_by_recipe: set[str],
    chosen: set[str],
) -> None:
    options = instantiate(OmegaConf.load(CONFIG)[group], _convert_="all")
    defaults = keyword_defaults(target)
    assert set(options) - recipe_only == set(defaults) - filled_by_recipe
    for name in set(options) - recipe_only - chosen:
        value = tuple(options[name]) if isinstance(options[name], list) else options[name]
        assert value == defaults[name], name


def test_default_noise_levels_are_those_of_the_library() -> None:
    assert instantiate(OmegaConf.load(CONFIG).actor.noise_levels) == NoiseLevels()


def test_policies_sample_from_a_matched_start(config: MakeConfig) -> None:
    cfg = config()
    loss = recipe.make_loss(cfg, recipe.make_buffer(cfg), bc=True)
    assert loss.target_actor().sampler == MatchedStart()
    cfg = config("loss.lambda_flow=0", "actor.sampler=jumps")
    loss = recipe.make_loss(cfg, recipe.make_buffer(cfg), bc=True)
    assert loss.target_actor().sampler == JumpSampler()


@pytest.mark.parametrize("stop_in", ["gtp_bc", "gtp"])
def test_resumed_run_equals_uninterrupted_run(
    config: MakeConfig,
    tmp_path: Path,
    interrupt_at: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stop_in: str,
) -> None:
    options = ["optim.lr_schedule={actor_network: cosine}", "checkpoint.interval=0"]
    options += ["optim.grad_clip={actor_network: 1, qvalue_network: 2}"]
    if hasattr(torch.optim, "Muon"):
        # One hidden layer has no weights between two.
        options += ["optim.muon_lr={actor_network: 0.02}", "actor.hidden_sizes=[16, 16]"]
    options += ["compare_bc=true" if stop_in == "gtp_bc" else "compare_bc=false"]
    recipe.run(config(*options), tmp_path / "whole")

    interrupt_at(4)
    with pytest.raises(SystemExit) as stop:
        recipe.run(config(*options), tmp_path / "parts")
    monkeypatch.undo()
    assert stop.value.code == 130
    assert f"resume={tmp_path / 'parts'}" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "parts" / stop_in / "last.pt")["learner"]["step"] == 4
    assert not (tmp_path / "parts" / "results.json").exists()

    torch.manual_seed(12345)
    cfg = recipe.resumed_config(tmp_path / "parts", [f"resume={tmp_path / 'parts'}"])
    recipe.run(cfg, tmp_path / "parts")
    for method in {stop_in, "gtp"}:
        assert_same_weights(
            tmp_path / "whole" / method / "last.pt", tmp_path / "parts" / method / "last.pt"
        )
        for name in ("train/loss_flow", "eval/return"):
            whole = scalars(tmp_path / "whole" / method, name)
            assert scalars(tmp_path / "parts" / method, name) == whole
    whole = json.loads((tmp_path / "whole" / "results.json").read_text())["results"]["gtp"]
    parts = json.loads((tmp_path / "parts" / "results.json").read_text())["results"]["gtp"]
    assert parts["return_mean"] == whole["return_mean"]


def test_resume_takes_overrides(config: MakeConfig, tmp_path: Path) -> None:
    recipe.run(config("bc=true", "env.eval_interval=0"), tmp_path)
    cfg = recipe.resumed_config(tmp_path, [f"resume={tmp_path}", "optim.steps=8"])
    assert cfg.bc
    assert (cfg.optim.steps, cfg.replay_buffer.batch_size) == (8, 16)
    recipe.run(cfg, tmp_path)
    assert load_checkpoint(tmp_path / "gtp_bc" / "last.pt")["learner"]["step"] == 8


@pytest.mark.parametrize("override", ["loss.eta=2", "optim.lr=0.1", "bc=false"])
def test_resume_refuses_to_change_what_was_trained(
    config: MakeConfig, tmp_path: Path, override: str
) -> None:
    recipe.run(config("bc=true", "env.eval_interval=0"), tmp_path)
    with pytest.raises(ValueError, match="a resumed run may only change"):
        recipe.resumed_config(tmp_path, [override])
    assert recipe.resumed_config(tmp_path, ["bc=true", "optim.steps=9"]).optim.steps == 9


@pytest.fixture
def former_run(config: MakeConfig, tmp_path: Path) -> Callable[..., None]:
    """Makes a run whose config is changed afterwards, as another version would have written it."""

    def make(change: Callable[[dict], object]) -> None:
        recipe.run(config("bc=true", "env.eval_interval=0", "optim.steps=2"), tmp_path)
        state = load_checkpoint(tmp_path / "gtp_bc" / "last.pt")
        change(state["config"])
        torch.save(state, tmp_path / "gtp_bc" / "last.pt")

    return make


def test_a_run_older_than_some_fields_gets_their_defaults(
    former_run: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def forget(config: dict) -> None:
        del config["compile"], config["env"]["candidate_selection"], config["actor"]["sampler"]
        del config["replay_buffer"]["reward_transform"], config["loss"]["semigroup_every"]
        # What was never listed, or stands for something else, is no field that is gone.
        config["replay_buffer"]["prefetch"] = None
        config["actor"]["noise_levels"]["_target_"] = "torchrl_gtp.NoiseLevels"
        del config["actor"]["noise_levels"]["rho"]

    former_run(forget)
    cfg = recipe.resumed_config(tmp_path, [f"resume={tmp_path}", "optim.steps=4"])
    printed = capsys.readouterr().out
    assert "env.candidate_selection=softmax, " in printed and "actor.sampler=jumps" in printed
    assert "replay_buffer.reward_transform=None" in printed and "compile={" in printed
    assert "rho" not in printed and "batch_size" not in printed
    assert (cfg.actor.sampler, cfg.replay_buffer.batch_size) == ("jumps", 16)
    # It trained without, before there was this field.
    assert cfg.loss.semigroup_every is None
    recipe.run(cfg, tmp_path)
    assert load_checkpoint(tmp_path / "gtp_bc" / "last.pt")["learner"]["step"] == 4
    with pytest.raises(ValueError, match="trained with"):
        recipe.resumed_config(tmp_path, ["actor.sampler=heun"])


def test_fields_that_there_are_no_more_are_a_clear_error(
    former_run: Callable[..., None], tmp_path: Path
) -> None:
    former_run(lambda config: (config["env"].update(fps=30), config.update(tag="old")))
    with pytest.raises(ValueError, match=r"does not know: tag=old, env\.fps=30\. Go on with"):
        recipe.resumed_config(tmp_path, [])


def test_resume_without_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        recipe.resumed_config(tmp_path, [])


def test_folder_of_another_run_is_not_overwritten(config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "gtp").mkdir()
    (tmp_path / "gtp" / "last.pt").touch()
    with pytest.raises(FileExistsError, match="holds a run already"):
        recipe.run(config(), tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "gtp"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+loss.lamda_flow=2", r"Unknown option loss\.lamda_flow.*Did you mean loss\.lambda_flow"),
        ("+loss.reduction=none", r"Unknown option loss\.reduction"),
        ("+actor.depth=2", r"Unknown option actor\.depth"),
        ("+critic.depth=2", r"Unknown option critic\.depth"),
        ("optim.lr_schedule=linear", r"optim\.lr_schedule must be 'constant' or 'cosine'"),
        ("optim.lr_schedule={actor_network: linear}", r"optim\.lr_schedule must be 'constant' or"),
        ("optim.grad_clip={actor: 1.0}", r"optim\.grad_clip names .*'actor'.*'actor_network'"),
        ("optim.muon_lr={actor: 0.02}", r"optim\.muon_lr names .*'actor'.*'actor_network'"),
        ("loss.lambda_flow=0", r"A matched start asks the denoiser.* Set actor\.sampler=jumps"),
        (MEAN_FLOW, r"A matched start asks the denoiser.* has no term 'flow'"),
        ("dataset=gtp/pointmaze/large-v0", r"python -m torchrl_gtp\.data\.point_maze large$"),
    ],
)
def test_bad_config_is_a_clear_error(
    config: MakeConfig, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        recipe.run(config(override), tmp_path / "run")
    assert not list((tmp_path).glob("run/*/last.pt"))


def test_nan_loss_stops_the_run(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = recipe.Learner.update
    monkeypatch.setattr(
        recipe.Learner, "update", lambda self, batch: update(self, batch) * float("nan")
    )
    with pytest.raises(FloatingPointError, match=r"loss_flow.*at update 2 of GTP"):
        recipe.run(config(), tmp_path)


def test_best_checkpoint_keeps_the_best_evaluation(
    config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    returns = iter([1.0, 5.0, 2.0, 0.0])
    evaluate = Run.evaluate

    def scripted(self, num_episodes, seed):
        result = evaluate(self, num_episodes, seed)
        return type(result)(torch.full_like(result.returns, next(returns)), None, result.paths)

    monkeypatch.setattr(Run, "evaluate", scripted)
    recipe.run(config("env.eval_interval=2"), tmp_path)
    assert load_checkpoint(tmp_path / "gtp" / "best.pt")["learner"]["step"] == 4


def test_tensorboard(config: MakeConfig, tmp_path: Path) -> None:
    recipe.run(config("bc=true", "logger.backend=tensorboard", "env.eval_interval=0"), tmp_path)
    assert list((tmp_path / "gtp_bc").glob("events.out.tfevents.*"))


def test_command_line_ends_cleanly_on_ctrl_c_and_resumes(datasets: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "recipes" / "gtp" / "train.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    endless = [*TINY, "bc=true", "optim.steps=1000000", "env.eval_interval=0"]
    process = subprocess.Popen(
        [*command, *endless, f"hydra.run.dir={tmp_path / 'run'}"],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    checkpoint = tmp_path / "run" / "gtp_bc" / "last.pt"
    deadline = time.monotonic() + 60
    while not checkpoint.exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert f"resume={tmp_path / 'run'}" in output
    assert "Traceback" not in output
    stopped_at = load_checkpoint(checkpoint)["learner"]["step"]
    assert stopped_at >= 2

    finished = subprocess.run(
        [*command, f"resume={tmp_path / 'run'}", f"optim.steps={stopped_at + 3}"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "GTP-BC" in finished.stdout
    assert load_checkpoint(checkpoint)["learner"]["step"] == stopped_at + 3
    assert (tmp_path / "run" / "results.json").exists()
    # All outputs are in the run's own folder.
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
