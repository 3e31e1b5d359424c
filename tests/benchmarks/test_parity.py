"""The comparison with published programs, as far as it goes without one of them."""

from __future__ import annotations

import csv
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.parity.__main__ import main
from benchmarks.parity.adapters import ConsistencyEndpoint, NoisePrediction
from benchmarks.parity.comparison import Comparison, Row, relative_difference
from benchmarks.parity.draws import recorded, replayed, take_chain
from benchmarks.parity.networks import make_actor
from benchmarks.parity.peers import PEERS, check_checkout, commit_of, import_from
from benchmarks.parity.report import write_csv, write_markdown
from torchrl_gtp import FlowMap
from torchrl_gtp.flow_map import AncestralSampler, VPSchedule


class StandIn(nn.Module):
    """The interface of the published diffusion networks, on rows alone as theirs are."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2 + 1 + 3, 2)

    def forward(self, x, time, state):
        assert time.dtype == torch.long and time.ndim == 1
        return self.layer(torch.cat([x, time.to(x.dtype)[:, None], state], dim=1))


class ConsistencyStandIn(nn.Module):
    """The interface of the published consistency model, with any end point."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2 + 1 + 3, 2)

    def predict_consistency(self, state, action, t):
        assert t.shape == (len(action), 1)
        return action + (t - 0.002) * self.layer(torch.cat([action, t, state], dim=1)).tanh()


# The adapters -------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma_data", [1.0, 0.5])
def test_denoiser_is_that_of_the_published_network(sigma_data):
    """D = a_t - t eps(x_t) at x_t = a_t / sqrt(1 + t^2), at each level of the schedule."""
    torch.manual_seed(0)
    schedule, network = VPSchedule(5), StandIn().double()
    backbone = NoisePrediction(network, schedule, sigma_data).double()
    flow_map = FlowMap(backbone, sigma_data=sigma_data).double()
    action, observation = torch.randn(8, 2).double(), torch.randn(8, 3).double()
    levels = schedule.times(5, dtype=torch.float64).flip(0)[1:]
    for index, t in enumerate(backbone.levels):
        torch.testing.assert_close(t, levels[index], rtol=1e-6, atol=0)
        times = torch.full((8,), index)
        eps = network(action / (1 + t**2).sqrt(), times, observation)
        got = flow_map.denoise(action, t.expand(8, 1), observation)
        torch.testing.assert_close(got, action - t * eps, rtol=1e-12, atol=1e-12)


def test_adapter_takes_more_batch_dimensions_and_passes_the_gradient():
    torch.manual_seed(0)
    schedule, network = VPSchedule(3), StandIn()
    flow_map = FlowMap(NoisePrediction(network, schedule), sigma_data=1.0)
    action, observation = torch.randn(4, 8, 2), torch.randn(8, 3).expand(4, 8, 3)
    # Each row has a level of its own.
    t = schedule.times(3)[torch.randint(3, (4, 8, 1))]
    got = flow_map.denoise(action, t, observation)
    rows = flow_map.denoise(action[2], t[2], observation[2])
    torch.testing.assert_close(got[2], rows)
    got.sum().backward()
    assert network.layer.weight.grad.abs().sum() > 0


def test_consistency_function_is_the_published_one():
    torch.manual_seed(0)
    network = ConsistencyStandIn().double()
    flow_map = FlowMap(ConsistencyEndpoint(network), sigma_data=0.5).double()
    action, observation = torch.randn(8, 2).double(), torch.randn(8, 3).double()
    for level in (0.002, 0.3, 2.0, 80.0):
        t = torch.full((8, 1), level).double()
        got = flow_map(action, t, torch.zeros_like(t), observation)
        expected = network.predict_consistency(observation, action, t)
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


# The random numbers -------------------------------------------------------------------------


def test_draws_are_taken_down_and_given_again():
    """A sampler of the published form, and ours around the same network, on the same numbers."""
    torch.manual_seed(0)
    schedule, network = VPSchedule(3), StandIn()
    observation, levels = torch.randn(6, 3), NoisePrediction(network, schedule).levels
    betas = schedule.betas()
    kept = torch.cumprod(1 - betas, 0)
    before = torch.cat([torch.ones(1), kept[:-1]])
    with recorded(coin=0.3) as record, torch.no_grad():
        assert np.random.uniform() == 0.3
        x = torch.randn((6, 2))
        for i in (2, 1, 0):
            eps = network(x, torch.full((6,), i), observation)
            clean = (x / kept[i].sqrt() - levels[i] * eps).clamp(-1, 1)
            mean = betas[i] * before[i].sqrt() * clean
            mean = mean + (1 - before[i]) * (1 - betas[i]).sqrt() * x
            spread = (betas[i] * (1 - before[i]) / (1 - kept[i]).clamp_min(1e-20)).sqrt()
            x = mean / (1 - kept[i]) + spread * torch.randn_like(x) * (i > 0)
    assert len(record) == 4
    start, further = take_chain(iter(record), 3, num_drawn=3)
    assert len(further) == 2

    flow_map = FlowMap(NoisePrediction(network, schedule), sigma_data=1.0)
    with replayed(further), torch.no_grad():
        ours = AncestralSampler(schedule)(
            flow_map, start, observation, 3, bounds=(torch.tensor(-1.0), torch.tensor(1.0))
        )
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-5)


def test_samples_of_one_observation_stay_together():
    noise = torch.arange(12.0).reshape(6, 2)  # two observations, three samples each
    start, (further,) = take_chain(iter([noise, noise]), 2, num_drawn=1).for_batch(2)
    assert start[1, 2].tolist() == further[2, 1].tolist() == [10.0, 11.0]


def test_draws_must_be_asked_for_in_the_same_order():
    with pytest.raises(ValueError, match="All 0 draws are used up"), replayed([]):
        torch.randn((2,))
    with pytest.raises(ValueError, match=r"shape \(2,\), but \(3,\) is"), replayed([torch.ones(2)]):
        torch.randn_like(torch.zeros(3))
    with pytest.raises(ValueError, match="1 of 1 draws were not"), replayed([torch.ones(2)]):
        pass
    assert torch.randn(2, 3).shape == (2, 3)


# The table ----------------------------------------------------------------------------------


def test_relative_difference():
    assert relative_difference(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == 0.1
    assert relative_difference(0.0, 0.0) == 0.0 and relative_difference(1.0, 0.0) == float("inf")
    with pytest.raises(ValueError, match=r"the shape \(1,\), theirs \(2,\)"):
        relative_difference(torch.ones(1), torch.ones(2))
    with pytest.raises(ValueError, match="not finite"):
        relative_difference(float("nan"), 1.0)


def test_table(tmp_path):
    comparison = Comparison()
    comparison.add("critic loss", "qvalue_loss", 1.0, 1.0)
    comparison.add("sampler", "AncestralSampler", 1.0 + 2e-16, 1.0)
    comparison.add("critic loss", "qvalue_loss", 1.5, 1.0)
    comparison.add("critic loss", "qvalue_loss", 1.25, 1.0)
    assert comparison.rows[0] == Row("critic loss", "qvalue_loss", 0.5, settings=3)

    peer = PEERS["dipo"]
    write_csv(comparison.rows, tmp_path / "a" / "dipo.csv", peer, "c6d8d1b")
    with (tmp_path / "a" / "dipo.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first["quantity"] == "critic loss" and float(first["relative_difference"]) == 0.5
    assert first["settings"] == "3" and first["commit"] == "c6d8d1b"
    assert float(second["relative_difference"]) == comparison.rows[1].difference

    path = tmp_path / "b" / "dipo.md"
    text = write_markdown(comparison.rows, path, peer, "c6d8d1b", "python -m benchmarks.parity")
    assert path.read_text() == text
    head, _, titles, _, *lines = text.splitlines()
    assert head.startswith("DIPO, `BellmanTimeHut/DIPO` c6d8d1b: `python -m benchmarks.parity`, 20")
    assert f"torch {torch.__version__}" in head and "torchrl_gtp" in head
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (titles, *lines)]
    assert cells == [
        ["quantity", "ours", "relative difference"],
        ["critic loss", "`qvalue_loss`", "5e-01"],
        ["sampler", "`AncestralSampler`", "2e-16"],
    ]


# The checkouts ------------------------------------------------------------------------------


def test_a_peer_is_needed(tmp_path, capsys):
    for arguments, message in (
        (["diffusion_ql"], "--peer must name a checkout of Diffusion-QL. Make one: git clone"),
        (["dipo", "--peer", str(tmp_path / "none")], "none is no folder. It must be a checkout"),
        (["idql", "--peer", str(tmp_path)], "is no checkout of IDQL: it lacks jaxrl5/agents/"),
        (["td3", "--peer", str(tmp_path)], "invalid choice: 'td3'"),
    ):
        with pytest.raises(SystemExit) as exited:
            main(arguments)
        assert exited.value.code == 2
        assert message in capsys.readouterr().err
    assert torch.get_default_dtype() == torch.float32


def test_checkout_with_its_files_is_accepted(tmp_path):
    for name in PEERS["dipo"].files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    check_checkout(PEERS["dipo"], tmp_path)


def test_commit(tmp_path):
    assert commit_of(tmp_path) == "unknown commit"
    (tmp_path / "file").write_text("a")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "file"], [*identity, "commit", "-q", "-m", "a"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert head.startswith(commit_of(tmp_path)) and len(commit_of(tmp_path)) >= 7
    (tmp_path / "file").write_text("b")
    assert commit_of(tmp_path).endswith("-dirty")


def test_import_leaves_no_names_behind(tmp_path, monkeypatch):
    """Two checkouts with a package of one name, of which neither replaces what is imported."""
    here = sys.modules.setdefault("parity_agents", type(sys)("parity_agents"))
    monkeypatch.setitem(sys.modules, "parity_agents", here)
    path, found = list(sys.path), []
    for name in ("one", "two"):
        package = tmp_path / name / "parity_agents"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise ImportError('not needed')")
        (package / "learner.py").write_text(
            f"from parity_logs.logger import logger\nNAME = {name!r}, logger"
        )
        stubs = {
            "parity_agents": {"__path__": [str(package)]},
            "parity_logs": {"__path__": []},
            "parity_logs.logger": {"logger": None},
        }
        (module,) = import_from(tmp_path / name, "parity_agents.learner", stubs=stubs)
        found.append(module.NAME)
    assert found == [("one", None), ("two", None)]
    assert sys.modules["parity_agents"] is here and "parity_logs" not in sys.modules
    assert "parity_agents.learner" not in sys.modules and sys.path == path


def test_actor_around_a_published_network_samples_within_its_bounds():
    backbone = NoisePrediction(_ThreeActions(), VPSchedule(2))
    actor = make_actor(backbone, AncestralSampler(VPSchedule(2)), 2)
    assert actor.sample(torch.randn(4, 5)).abs().max() <= 1


class _ThreeActions(nn.Module):
    def forward(self, x, time, state):
        return 0.1 * x
