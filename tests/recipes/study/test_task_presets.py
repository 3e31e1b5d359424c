"""The presets of the tasks: what they say exists, and is what was published."""

from __future__ import annotations

import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torchrl.objectives
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from minari.dataset.minari_dataset import parse_dataset_id
from omegaconf import DictConfig, OmegaConf

import torchrl_gtp
from recipes.gtp import train as recipe
from torchrl_gtp.data import reference_scores
from torchrl_gtp.flow_map import ConsistencySampler
from torchrl_gtp.modules.action_gradient import ActionGradient

ROOT = Path(recipe.__file__).parents[2]
FOLDER = ROOT / "recipes" / "study"
NAMES = sorted(p.stem for p in (FOLDER / "task").glob("*.yaml") if not p.stem.startswith("_"))
# Those of the study of all tasks.
METHODS = {
    method
    for grid in OmegaConf.load(FOLDER / "studies" / "gpu.yaml").grids
    for method in grid.methods
}
TORCHRL_LOSSES = {"iql": "IQLLoss", "td3_bc": "TD3BCLoss", "cql": "CQLLoss", "bc": "BCLoss"}
# Diffusion-QL's eta, gradient clip, max-Q backup and learning rate of the actor, by D4RL's names.
DIFFUSION_QL = {
    "halfcheetah-medium": (1.0, 9.0, False, 3e-4),
    "hopper-medium": (1.0, 9.0, False, 3e-4),
    "walker2d-medium": (1.0, 1.0, False, 3e-4),
    "halfcheetah-medium-replay": (1.0, 2.0, False, 3e-4),
    "hopper-medium-replay": (1.0, 4.0, False, 3e-4),
    "walker2d-medium-replay": (1.0, 4.0, False, 3e-4),
    "halfcheetah-medium-expert": (1.0, 7.0, False, 3e-4),
    "hopper-medium-expert": (1.0, 5.0, False, 3e-4),
    "walker2d-medium-expert": (1.0, 5.0, False, 3e-4),
    "antmaze-umaze": (0.5, 2.0, False, 3e-4),
    "antmaze-umaze-diverse": (2.0, 3.0, True, 3e-4),
    "antmaze-medium-play": (2.0, 2.0, True, 1e-3),
    "antmaze-medium-diverse": (3.0, 1.0, True, 3e-4),
    "antmaze-large-play": (4.5, 10.0, True, 3e-4),
    "antmaze-large-diverse": (3.5, 7.0, True, 3e-4),
    "pen-human": (0.15, 7.0, False, 3e-5),
    "pen-cloned": (0.1, 8.0, False, 3e-5),
    "kitchen-complete": (0.005, 9.0, False, 3e-4),
    "kitchen-partial": (0.005, 10.0, False, 3e-4),
    "kitchen-mixed": (0.005, 10.0, False, 3e-4),
}
# Tasks without published values have those of the nearest task, by the first word of a preset.
STAND_IN = {
    "hopper": (1.0, 5.0, False, 3e-4),
    "halfcheetah": (1.0, 7.0, False, 3e-4),
    **dict.fromkeys(("pen", "door", "hammer", "relocate"), (0.15, 7.0, False, 3e-5)),
}
# eta, gn, T, max_q_backup, lr of its offline.py.
CONSISTENCY_AC = {
    "halfcheetah-medium": (1.0, 9.0, 2, False, 3e-4),
    "hopper-medium": (0.1, 9.0, 2, False, 3e-4),
    "walker2d-medium": (1.0, 1.0, 5, False, 3e-4),
    "halfcheetah-medium-replay": (1.0, 2.0, 2, False, 3e-4),
    "hopper-medium-replay": (0.1, 4.0, 2, False, 3e-4),
    "walker2d-medium-replay": (0.1, 4.0, 5, False, 3e-4),
    "halfcheetah-medium-expert": (1.0, 7.0, 2, False, 3e-4),
    "hopper-medium-expert": (1.0, 5.0, 2, False, 3e-4),
    "walker2d-medium-expert": (1.0, 5.0, 2, False, 3e-4),
    "antmaze-umaze": (0.01, 2.0, 2, False, 3e-4),
    "antmaze-umaze-diverse": (0.01, 3.0, 2, True, 3e-4),
    "antmaze-medium-play": (0.01, 2.0, 2, True, 1e-3),
    "antmaze-medium-diverse": (0.01, 1.0, 2, True, 3e-4),
    "antmaze-large-play": (4.5, 10.0, 2, True, 3e-4),
    "antmaze-large-diverse": (3.5, 2.0, 2, True, 3e-4),
    "pen-human": (0.01, 7.0, 2, False, 3e-5),
    "pen-cloned": (0.01, 8.0, 2, False, 3e-5),
    "kitchen-complete": (0.5, 2.0, 2, False, 3e-4),
    "kitchen-partial": (0.5, 2.0, 2, False, 3e-4),
    "kitchen-mixed": (0.5, 2.0, 2, False, 3e-4),
}
STAND_IN_AC = {
    "hopper": (1.0, 5.0, 2, False, 3e-4),
    "halfcheetah": (1.0, 7.0, 2, False, 3e-4),
    **dict.fromkeys(("pen", "door", "hammer", "relocate"), (0.01, 7.0, 2, False, 3e-5)),
}
# By the first word of a preset: an environment, the dimensions of its action and D4RL's horizon.
ENVIRONMENTS = {
    "hopper": ("Hopper-v5", 3, 1000),
    "halfcheetah": ("HalfCheetah-v5", 6, 1000),
    "walker2d": ("Walker2d-v5", 6, 1000),
    "antmaze_umaze": ("AntMaze_UMaze-v4", 8, 700),
    "antmaze_medium": ("AntMaze_Medium-v4", 8, 1000),
    "antmaze_large": ("AntMaze_Large-v4", 8, 1000),
    "pen": ("AdroitHandPen-v1", 24, 100),
    "door": ("AdroitHandDoor-v1", 28, 200),
    "hammer": ("AdroitHandHammer-v1", 26, 200),
    "relocate": ("AdroitHandRelocate-v1", 30, 200),
    "kitchen": ("FrankaKitchen-v1", 9, 280),
}


@cache
def composed(name: str) -> DictConfig:
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        return compose(f"task/{name}")["task"]


def load(name: str) -> dict[str, Any]:
    return OmegaConf.to_container(composed(name), resolve=True)


def environment(name: str) -> tuple[str, int, int]:
    return next(value for key, value in ENVIRONMENTS.items() if name.startswith(key))


# A number, or one for each of some networks.
BY_NETWORK = [f"optim.{name}" for name in ("lr", "lr_schedule", "grad_clip", "tau", "tau_interval")]


def leaves(mapping: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in mapping.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and path not in ("env.kwargs", "actor.sampler", *BY_NETWORK):
            found.update(leaves(value, f"{path}."))
        else:
            found[path] = value
    return found


def loss_arguments() -> set[str]:
    losses = [torchrl_gtp.GTPLoss, getattr(torchrl_gtp, "QGradientLoss", torchrl_gtp.GTPLoss)]
    named = {key for loss in losses for key in inspect.signature(loss).parameters}
    # The Q-gradient's own, which the class of that name brings.
    return named | {"q_weight", "q_normalization"}


def published_name(name: str) -> str:
    """The task of D4RL's whose settings a preset takes."""
    return name.replace("_", "-").removesuffix("-like").removesuffix("-tails")


OURS = [name for name in NAMES if not name.startswith("pointmaze")]


def test_every_suite_is_there():
    suites = {}
    for name in OURS:
        suites.setdefault(load(name)["study"]["suite"], []).append(name)
    assert {suite: len(names) for suite, names in suites.items()} == {
        "Gym": 9,
        "AntMaze": 6,
        "Adroit": 12,
        "Kitchen": 3,
        "Gym-like": 8,
        "AntMaze-like": 4,
        "AntMaze-with-tails-like": 1,
        "Adroit-like": 3,
    }


@pytest.mark.parametrize("name", NAMES)
def test_schema(name):
    preset = load(name)
    assert set(preset) <= {"dataset", "env", "optim", "replay_buffer", "study"}
    parse_dataset_id(preset["dataset"])
    fields = leaves(OmegaConf.to_container(OmegaConf.load(ROOT / "recipes/gtp/config.yaml")))
    fields |= leaves(
        {"final": OmegaConf.to_container(OmegaConf.load(FOLDER / "cell.yaml"))["final"]}
    )
    methods = preset["study"].pop("methods", {})
    study = preset.pop("study")
    assert set(study) <= {"name", "suite", "note", "source", "reference_scores"}
    assert study["name"] and study["suite"]
    assert set(leaves(preset)) <= set(fields)
    assert set(methods) <= METHODS
    for method, overrides in methods.items():
        for field in leaves(overrides):
            if field.startswith("method.learner.options."):
                loss = getattr(torchrl.objectives, TORCHRL_LOSSES[method])
                assert field.rpartition(".")[2] in inspect.signature(loss).parameters
            elif field.startswith("method.learner.action_gradient."):
                assert field.rpartition(".")[2] in inspect.signature(ActionGradient).parameters
            elif field.startswith("loss.") and field not in fields:
                assert field.removeprefix("loss.") in loss_arguments(), field
            else:
                assert field in fields, field


@pytest.mark.parametrize("method", sorted(METHODS))
def test_methods_say_how_they_differ_from_their_publication(method):
    assert OmegaConf.load(FOLDER / "method" / f"{method}.yaml").method.note


@pytest.mark.parametrize("name", NAMES)
def test_methods_name_the_source_of_their_settings(name):
    """Also those without settings of their own: one line says where theirs are from."""
    study = load(name)["study"]
    named = {field.removeprefix("methods.") for field in study["source"] if "methods." in field}
    others, colon, _ = study["source"]["methods"].partition(":")
    same_on_all_tasks = set(re.findall(r"\w+", others))
    assert colon and named.isdisjoint(same_on_all_tasks)
    assert named | same_on_all_tasks == METHODS
    assert set(study["methods"]) <= named


@pytest.mark.parametrize("name", OURS)
def test_settings_name_their_source_and_like_sets_say_so(name):
    preset = load(name)
    study = preset["study"]
    groups = {field.partition(".")[0] for field in study["source"]}
    assert groups <= {"dataset", "reference_scores", "env", "replay_buffer", "methods"}
    assert {"dataset", "env.max_steps", "env.final_episodes"} <= set(study["source"])
    for field in leaves({"replay_buffer": preset.get("replay_buffer", {})}):
        known = study["source"].keys() | {"replay_buffer.reward_shift"}  # goes with the scale
        assert field in known or field == "replay_buffer.clip_actions"
    assert name.endswith("_like") == preset["dataset"].startswith("like/")
    assert name.endswith("_like") == study["suite"].endswith("-like")
    assert ("not D4RL" in study["note"]) == name.endswith("_like")


@pytest.mark.parametrize(
    ("name", "data", "environment_differs"),
    [
        ("door_expert_like", "public agent", "sign of the reach term"),
        ("door_human_like", "human demonstrations", "sign of the reach term"),
        ("pen_expert_like", "public agent", "where the pen drops"),
    ],
)
def test_notes_of_adroit_name_the_data_and_the_environment(
    name: str, data: str, environment_differs: str
) -> None:
    """Data that are not D4RL's, in an environment whose rewards are not D4RL's either."""
    study = load(name)["study"]
    assert all(part in study["note"] for part in ("-like", data, environment_differs, "evaluation"))
    assert "off D4RL's scale" in study["note"]
    assert ("agent" in study["note"] + study["source"]["dataset"]) == (data == "public agent")
    # What the suite says of tasks with Minari's data does not hold here.
    assert "Minari" not in study["note"]


@pytest.mark.parametrize("name", OURS)
def test_reference_scores_are_those_of_the_table(name):
    preset = load(name)
    task = published_name(name)
    assert tuple(preset["study"]["reference_scores"]) == reference_scores(task)


@pytest.mark.parametrize("task", ENVIRONMENTS)
def test_horizon_and_arguments_fit_the_environment(task):
    robotics = pytest.importorskip("gymnasium_robotics")
    gym.register_envs(robotics)
    env_id, action_dim, horizon = ENVIRONMENTS[task]
    spec = gym.spec(env_id)
    # Gymnasium-Robotics gives the pen twice the steps that D4RL gives it.
    assert spec.max_episode_steps == (200 if task == "pen" else horizon)
    env = gym.make(spec).unwrapped
    assert env.action_space.shape == (action_dim,)
    accepted = inspect.signature(type(env).__init__).parameters
    for preset in (load(name) for name in OURS if name.startswith(task)):
        assert preset["env"]["max_steps"] == horizon
        assert set(preset["env"].get("kwargs") or {}) <= set(accepted)
        keys = preset.get("replay_buffer", {}).get("observation_keys")
        assert keys is None or set(keys) <= set(env.observation_space.spaces)
    env.close()


@pytest.mark.parametrize("name", OURS)
def test_diffusion_ql_as_published(name):
    settings = load(name)["study"]["methods"]["diffusion_ql"]
    published = DIFFUSION_QL.get(published_name(name))
    eta, clip, max_q_backup, lr = published or STAND_IN[name.partition("_")[0]]
    action_dim = environment(name)[1]
    # Theirs is the mean over the dimensions of the action, ours the sum.
    assert settings["loss"]["q_weight"] == pytest.approx(eta * action_dim)
    assert settings["loss"].get("num_backup_samples", 1) == (10 if max_q_backup else 1)
    assert settings["optim"]["grad_clip"]["actor_network"] == pytest.approx(clip * action_dim)
    assert settings["optim"]["grad_clip"]["qvalue_network"] == clip
    assert settings["optim"].get("lr", {}).get("actor_network", 3e-4) == lr


@pytest.mark.parametrize("name", OURS)
def test_consistency_ac_as_published(name):
    settings = load(name)["study"]["methods"]["consistency_ql"]
    published = CONSISTENCY_AC.get(published_name(name))
    eta, clip, num_steps, max_q_backup, lr = published or STAND_IN_AC[name.partition("_")[0]]
    # Also, its errors are multiplied by 100.
    factor = environment(name)[1] / 100
    assert settings["loss"]["q_weight"] == pytest.approx(eta * factor)
    assert settings["optim"]["grad_clip"]["actor_network"] == pytest.approx(clip * factor)
    assert settings["optim"]["grad_clip"]["qvalue_network"] == clip
    assert settings["loss"].get("num_backup_samples", 1) == (10 if max_q_backup else 1)
    assert settings["actor"] == {"num_steps_train": num_steps, "num_steps_eval": num_steps}
    assert settings["optim"].get("lr", {}).get("actor_network", 3e-4) == lr


@pytest.mark.parametrize("name", NAMES)
def test_consistency_ac_with_its_schedule_has_the_same_settings(name):
    """But for the levels of its sampler, where there are published ones."""
    methods = load(name)["study"]["methods"]
    settings, usual = methods["consistency_ql_published"], methods["consistency_ql"]
    if name.startswith("pointmaze"):
        assert settings == usual
        return
    actor = {key: value for key, value in settings["actor"].items() if key != "sampler"}
    num_steps = usual["actor"]["num_steps_eval"]
    assert {**settings, "actor": actor} == {**usual, "final": {"num_steps": [num_steps]}}
    sampler = instantiate(settings["actor"]["sampler"])
    assert sampler == ConsistencySampler(np.linspace(2.0, 80.0, num_steps)[::-1])


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("antmaze")])
def test_notes_of_antmaze_name_both_rewards(name):
    study = load(name)["study"]
    others = {
        method
        for method, settings in study["methods"].items()
        if settings.get("replay_buffer") == {"reward_scale": 1.0, "reward_shift": -1.0}
    }
    assert others == {"idql", "iql", "td3_bc"}
    assert "IDQL, IQL and TD3+BC see rewards of r - 1" in study["note"]
    assert "all other methods 4 (r - 0.5)" in study["note"]


def test_umaze_is_evaluated_from_start_to_goal_of_its_data():
    """The other way round the goal-conditioned data would say nothing of the path."""
    gym.register_envs(pytest.importorskip("gymnasium_robotics"))
    kwargs = load("antmaze_umaze")["env"]["kwargs"]
    env = gym.make("AntMaze_UMaze-v4", **kwargs).unwrapped
    start, goal = env.maze.unique_reset_locations, env.maze.unique_goal_locations
    assert [env.maze.cell_xy_to_rowcol(cell[0]).tolist() for cell in (start, goal)] == [
        [3, 1],
        [1, 1],
    ]
    assert not env.continuing_task
    env.close()


def test_the_page_of_the_tasks_shows_the_presets():
    page = (ROOT / "docs" / "tasks.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    table = {row[0].strip("`"): row[1:] for row in rows if row and row[0].strip("`") in NAMES}
    assert set(table) == set(OURS)
    for name, (dataset, reward, horizon, episodes, scores, _) in table.items():
        preset = load(name)
        assert dataset.strip("`") == preset["dataset"]
        scale = preset.get("replay_buffer", {}).get("reward_scale", 1.0)
        assert reward == ("4 (r - 0.5)" if scale == 4 else "r")
        assert int(horizon) == preset["env"]["max_steps"]
        assert int(episodes) == preset["env"]["final_episodes"]
        shown = [float(score) for score in scores.split(",")]
        assert shown == pytest.approx(preset["study"]["reference_scores"], rel=1e-3)
