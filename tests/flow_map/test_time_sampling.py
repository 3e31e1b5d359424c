"""Samplers of (t, u, s): order, ranges, schedule and distribution."""

from __future__ import annotations

import pytest
import torch

from torchrl_gtp.flow_map import KarrasGridTimes, LogNormalTimes, NoiseLevels

LEVELS = NoiseLevels(sigma_max=80.0)


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    "sampler",
    [
        KarrasGridTimes(),
        LogNormalTimes(),
        LogNormalTimes(end="cubic"),
        LogNormalTimes(end="uniform"),
        LogNormalTimes(end="data"),
        LogNormalTimes(mean=-8.0, std=3.0),  # many levels at the lower bound
    ],
)
def test_times_are_ordered_and_in_range(sampler, progress):
    torch.manual_seed(0)
    times = sampler(torch.rand(50, 40, 2), torch.tensor(progress), LEVELS)
    t, u, s = times
    assert t.shape == u.shape == s.shape == (50, 40, 1)
    assert (t > u).all() and (u >= s).all() and (s >= 0).all()
    assert t.min() >= LEVELS.sigma_min * (1 - 1e-5) and t.max() <= LEVELS.sigma_max * (1 + 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "sampler",
    [
        KarrasGridTimes(),
        KarrasGridTimes(log_normal=(-1.1, 2.0), end="data"),
        KarrasGridTimes(1, 149, growth="square_root"),
        LogNormalTimes(last_gap=1e-3),
        LogNormalTimes(last_gap=1e-3, end="cubic"),
    ],
)
def test_half_precision_tells_neighbours_apart(sampler, progress, dtype):
    torch.manual_seed(0)
    uniform, progress = torch.rand(5000, 2).to(dtype), torch.tensor(progress, dtype=dtype)
    for levels in (LEVELS, NoiseLevels()):
        t, u, s = sampler(uniform, progress, levels)
        assert (t > u).all() and (u >= s).all() and (s >= 0).all()
        expected = sampler(uniform.float(), progress.float(), levels)
        for time, precise in zip((t, u, s), expected, strict=True):
            assert time.dtype == torch.float32 and torch.equal(time, precise)
        assert torch.equal(sampler.start(uniform[..., :1], progress, levels), t)


def test_karras_grid_draws_neighbours_uniformly_and_reaches_both_ends():
    torch.manual_seed(0)
    times = KarrasGridTimes(first=4, last=4)(
        torch.rand(20_000, 2, dtype=torch.float64), torch.tensor(0.0), LEVELS
    )
    nodes = torch.cat([LEVELS.karras(5, dtype=torch.float64), torch.zeros(1)])
    node = [(time - nodes).abs().argmin(-1) for time in times]
    for time, index in zip(times, node, strict=True):
        torch.testing.assert_close(nodes[index].unsqueeze(-1), time)
    assert torch.equal(node[1], node[0] + 1)
    shares = torch.bincount(node[0], minlength=6) / 20_000
    torch.testing.assert_close(
        shares, torch.tensor([0.25, 0.25, 0.25, 0.25, 0.0, 0.0]), atol=0.02, rtol=0
    )
    # From u at node 1 the end is one of the nodes 2, 3, 4 and the data, equally often.
    ends = torch.bincount(node[2][node[1] == 1], minlength=6).double()
    torch.testing.assert_close(
        ends / ends.sum(), torch.tensor([0, 0, 1, 1, 1, 1]).double() / 4, atol=0.03, rtol=0
    )


@pytest.mark.parametrize(("progress", "gap"), [(0.0, 0.5), (0.5, 0.1), (1.0, 0.02), (7.0, 0.02)])
def test_the_gap_shrinks_geometrically(progress, gap):
    times = LogNormalTimes()(torch.rand(10, 2), torch.tensor(progress), LEVELS)
    torch.testing.assert_close(times.u, times.t * (1 - gap))


def test_log_normal_moments_and_log_uniform_ends():
    torch.manual_seed(0)
    wide = NoiseLevels(sigma_min=1e-6, sigma_max=1e6)
    t, u, s = LogNormalTimes()(torch.rand(100_000, 2), torch.tensor(1.0), wide)
    assert t.log().mean() == pytest.approx(-1.2, abs=0.02)
    assert t.log().std() == pytest.approx(1.2, abs=0.02)
    position = (s.log() - u.log()) / (torch.tensor(1e-6).log() - u.log())
    assert position.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("end", "power"), [("uniform", 1), ("cubic", 3)])
def test_ends_are_uniform_in_a_root(end, power):
    torch.manual_seed(0)
    _, u, s = LogNormalTimes(end=end)(torch.rand(100_000, 2), torch.tensor(1.0), LEVELS)
    root = ((s / u) ** (1 / power)).sort(0).values.squeeze(-1)
    torch.testing.assert_close(root, torch.linspace(0, 1, 100_000), atol=0.01, rtol=0)


def test_data_end_is_a_consistency_model():
    times = LogNormalTimes(end="data")(torch.rand(10, 2), torch.tensor(1.0), LEVELS)
    assert (times.s == 0).all()


@pytest.mark.parametrize(
    "options",
    [
        {"first_gap": 0.0},
        {"last_gap": 1.0},
        {"end": "nowhere"},
        {"std": -1.0},
        {"mean": float("nan")},
    ],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="must"):
        LogNormalTimes(**options)


def test_grid_needs_a_power_of_two():
    with pytest.raises(ValueError, match="power of two, got 30 / 10"):
        KarrasGridTimes(10, 30)


@pytest.mark.parametrize("sampler", [KarrasGridTimes(), LogNormalTimes()])
def test_start_alone_is_the_first_of_the_three(sampler):
    uniform, progress = torch.rand(9, 2), torch.tensor(0.4)
    t = sampler(uniform, progress, LEVELS).t
    torch.testing.assert_close(sampler.start(uniform[..., :1], progress, LEVELS), t)


@pytest.mark.parametrize("sampler", [KarrasGridTimes(), LogNormalTimes()])
def test_draws_at_the_ends_of_the_unit_interval_give_times_in_range(sampler):
    last = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))
    uniform = torch.cartesian_prod(*[torch.stack([torch.tensor(0.0), last])] * 2)
    t, u, s = sampler(uniform, torch.tensor(1.0), LEVELS)
    assert (t > u).all() and (u >= s).all() and (s >= 0).all()
    assert (t >= LEVELS.sigma_min * (1 - 1e-5)).all() and (t <= 80.001).all()
