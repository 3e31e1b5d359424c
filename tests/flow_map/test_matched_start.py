"""A start with the mean and the spread of noisy data."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded
from torchrl.envs.utils import ExplorationType, set_exploration_type

from tests.flow_map.closed_form import MEAN, STD, GaussianFlowMap
from torchrl_gtp import NoiseLevels, WarmStartActor, make_gtp_actor
from torchrl_gtp.flow_map import (
    AdaptiveSampler,
    AncestralSampler,
    ConsistencySampler,
    JumpSampler,
    MatchedStart,
    OdeSampler,
)

SAMPLERS = [
    JumpSampler(),
    JumpSampler("linear"),
    JumpSampler(times=(1.0,)),
    JumpSampler(gamma=0.9),
    OdeSampler("euler"),
    OdeSampler("heun", "edm"),
    ConsistencySampler(),
    AdaptiveSampler(),
]


class Narrow(GaussianFlowMap):
    """The exact map from a small level of noise, where data and noise are not far apart."""

    def __init__(self, sigma_max=3.0):
        super().__init__()
        self.noise_levels = NoiseLevels(sigma_max=sigma_max)


def quantiles(number=4001):
    """Standard normal noise of which every moment is right."""
    share = (torch.arange(number, dtype=torch.float64) + 0.5) / number
    return torch.special.ndtri(share).unsqueeze(-1)


def moments_off(sampler, flow_map):
    """How far mean and deviation of one jump are from those of the data."""
    with torch.no_grad():
        action = sampler(flow_map, quantiles(), None, 1)
    return abs(action.mean().item() - MEAN), abs(action.std().item() - STD)


def test_gaussian_data_get_their_mean_and_deviation():
    plain, matched = (moments_off(s, Narrow()) for s in (JumpSampler(), MatchedStart()))
    assert plain[0] > 0.03 and plain[1] > 1e-3
    assert matched[0] < plain[0] / 20
    assert matched[1] < plain[1] / 2
    # The start lacks a share (STD / sigma_max)^2 of the mean, of which STD / sigma_max reaches the
    # action: eight times as much at half the level. Without a matched start it is twice as much.
    closer = moments_off(MatchedStart(), Narrow(1.5))
    assert closer[0] / matched[0] > 6
    assert moments_off(JumpSampler(), Narrow(1.5))[0] / plain[0] < 3


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_it_goes_on_as_the_sampler_from_the_shifted_noise(sampler):
    flow_map, noise = Narrow(), torch.randn(5, 2, dtype=torch.float64)
    level = torch.full((5, 1), 3.0, dtype=torch.float64)
    shifted = noise + flow_map.denoise(1.5 * noise, level) / 3.0
    for stochastic in (True, False):
        torch.manual_seed(0)
        found = MatchedStart(sampler)(flow_map, noise, None, 2, stochastic=stochastic)
        torch.manual_seed(0)
        expected = sampler(flow_map, shifted, None, 2, stochastic=stochastic)
        torch.testing.assert_close(found, expected)
    assert MatchedStart(sampler).evaluations(2) == sampler.evaluations(2) + 1


def test_a_warm_start_stays():
    flow_map, noise = Narrow(), torch.randn(3, 2, dtype=torch.float64)
    start = torch.tensor([[0.0, 0.0], [0.5, -0.5], [0.5, -0.5]], dtype=torch.float64)
    levels = torch.tensor([[3.0], [0.5], [3.0]], dtype=torch.float64)
    options = {"start": start, "start_level": levels}
    found = MatchedStart()(flow_map, noise, None, 2, **options)
    torch.testing.assert_close(found[1], JumpSampler()(flow_map, noise, None, 2, **options)[1])
    cold = MatchedStart()(flow_map, noise, None, 2)
    torch.testing.assert_close(found[[0, 2]], cold[[0, 2]])
    # Without a start a level below starts from noise alone, as it does without a matched start.
    found = MatchedStart()(flow_map, noise, None, 2, start_level=levels)
    expected = JumpSampler()(flow_map, noise, None, 2, start_level=levels)
    torch.testing.assert_close(found[1], expected[1])


def test_a_number_for_the_level_of_a_warm_start_costs_nothing(monkeypatch):
    flow_map, noise = Narrow(), torch.randn(3, 2, dtype=torch.float64)
    start = torch.randn(3, 2, dtype=torch.float64)
    cold = MatchedStart()(flow_map, noise, None, 2)
    for level in (3, 3.0, torch.tensor(3.0)):
        found = MatchedStart()(flow_map, noise, None, 2, start=start, start_level=level)
        torch.testing.assert_close(found, cold)
    monkeypatch.setattr(flow_map, "denoise", None)
    for level in (0.5, 1):
        found = MatchedStart()(flow_map, noise, None, 2, start=start, start_level=level)
        expected = JumpSampler()(flow_map, noise, None, 2, start=start, start_level=level)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "sampler",
    [AncestralSampler(), ConsistencySampler((0.5, 0.1)), "jumps", JumpSampler, MatchedStart(), 3],
)
def test_what_does_not_start_at_sigma_max_is_refused(sampler):
    with pytest.raises(TypeError, match="must be one that starts at sigma_max"):
        MatchedStart(sampler)


def test_in_a_policy():
    torch.manual_seed(0)
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), hidden_sizes=(16,), num_steps=2)
    plain_evaluations = actor.num_evaluations
    actor.sampler = "matched"
    assert actor.sampler == MatchedStart()
    assert actor.num_evaluations == plain_evaluations + 1
    data = TensorDict({"observation": torch.randn(4, 3)}, [4])
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        first, second = actor(data.clone())["action"], actor(data.clone())["action"]
    assert torch.equal(first, second)
    assert actor(data.clone())["action"].isfinite().all()
    warm = WarmStartActor(actor, start_level=0.5)
    data["is_init"] = torch.tensor([[True], [False], [True], [False]])
    data["previous_action"] = torch.zeros(4, 2)
    assert warm(data)["action"].shape == (4, 2)


@pytest.mark.slow
def test_it_compiles_whole():
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), hidden_sizes=(16,))
    flow_map, noise, condition = actor.flow_map, torch.randn(4, 2), torch.randn(4, 3)
    torch.compiler.reset()
    compiled = torch.compile(MatchedStart(), backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        found = compiled(flow_map, noise, condition, 2)
        torch.testing.assert_close(found, MatchedStart()(flow_map, noise, condition, 2))
