"""Critics, rates and compilation of the recipe, by configuration."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from omegaconf import DictConfig

from recipes.common.checkpoints import load_checkpoint
from recipes.gtp import train as recipe
from torchrl_gtp.objectives.make_critic import CriticKind

MakeConfig = Callable[..., DictConfig]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(checkpoint)["learner"]["loss"]


@pytest.mark.parametrize("kind", [kind for kind in get_args(CriticKind) if kind != "precomputed"])
def test_critics_by_configuration(config: MakeConfig, tmp_path: Path, kind: str) -> None:
    rows = recipe.run(config("bc=false", f"critic.kind={kind}", "optim.steps=2"), tmp_path)
    assert math.isfinite(rows["gtp"].return_mean)
    logged = {file.stem for file in (tmp_path / "gtp" / "scalars" / "train").glob("*.csv")}
    assert {"loss_flow", "loss_qvalue"} <= logged


def test_options_of_a_critic(config: MakeConfig, tmp_path: Path) -> None:
    options = "+critic.options.conservative_weight=0.5"
    run = config("bc=false", "critic.kind=conservative", options, "optim.steps=2")
    recipe.run(run, tmp_path)
    state = weights(tmp_path / "gtp" / "last.pt")
    assert state["critic.conservative_weight"] == 0.5
    with pytest.raises(ValueError, match="for the critics of critic.kind"):
        recipe.run(config("bc=false", options), tmp_path / "other")
    with pytest.raises(ValueError, match="critic.kind=precomputed needs an advantage in the data"):
        recipe.run(config("bc=false", "critic.kind=precomputed"), tmp_path / "fourth")
    with pytest.raises(ValueError, match="kind must be one of"):
        recipe.run(config("bc=false", "critic.kind=sarsa"), tmp_path / "third")


def test_candidates_need_q_networks_of_the_library(config: MakeConfig, tmp_path: Path) -> None:
    changes = ("bc=false", "optim.steps=2", "env.num_candidates=2")
    recipe.run(config(*changes, "critic.kind=truncated_quantiles"), tmp_path / "own")
    with pytest.raises(ValueError, match="env.num_candidates=2: .*no Q-networks of this library"):
        recipe.run(config(*changes, "critic.kind=iql"), tmp_path / "theirs")


def test_rates_by_network(config: MakeConfig, tmp_path: Path) -> None:
    rates = "{actor_network: 0.0, qvalue_network: 1e-3, value_network: 1e-3}"
    averages = "{actor_network: 0.5, qvalue_network: 1.0}"
    cfg = config("compare_bc=true", f"optim.lr={rates}", f"optim.tau={averages}", "optim.steps=2")
    recipe.run(cfg, tmp_path)
    state = weights(tmp_path / "gtp" / "last.pt")
    for key in [key for key in state if key.startswith("target_")]:
        # The actor never moved, and the Q-networks' targets are copies.
        torch.testing.assert_close(state[key], state[key.removeprefix("target_")])


def test_captured_graphs_need_a_gpu(config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="compile.cudagraphs=true needs device=cuda"):
        recipe.run(config("device=cpu", "compile.cudagraphs=true"), tmp_path)


@pytest.mark.slow
def test_compiled_run(config: MakeConfig, tmp_path: Path) -> None:
    rows = recipe.run(config("bc=false", "compile.compile=true", "optim.steps=6"), tmp_path)
    assert math.isfinite(rows["gtp"].return_mean)
