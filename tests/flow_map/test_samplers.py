"""Samplers and schedules against the published formulas and the closed form."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from tests.flow_map.closed_form import MEAN, STD, GaussianFlowMap
from torchrl_gtp.flow_map import (
    AncestralSampler,
    ConsistencySampler,
    DyadicTimes,
    JumpSampler,
    LinearPathTimes,
    NoiseLevels,
    OdeSampler,
    PairedLogNormalTimes,
    VPSchedule,
    ancestral_sample,
    edm_preconditioning,
    few_step_sample,
    noise_level,
    path_time,
)
from torchrl_gtp.flow_map.named_samplers import as_sampler

SAMPLERS = {
    "jumps": JumpSampler(),
    "linear_jumps": JumpSampler("linear"),
    "noised_jumps": JumpSampler(gamma=0.9),
    "euler": OdeSampler("euler"),
    "linear_euler": OdeSampler("euler", "linear"),
    "heun": OdeSampler("heun"),
    "linear_heun": OdeSampler("linear_heun", "linear"),
    "edm": OdeSampler("heun", "edm"),
    "ddpm": AncestralSampler(),
    "consistency": ConsistencySampler(),
}


class Counting(GaussianFlowMap):
    """The exact map, counting its evaluations."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def endpoint(self, *args):
        self.count += 1
        return super().endpoint(*args)


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def test_karras_schedule():
    """Arxiv 2206.00364, eq. 5, with EDM's values."""
    expected = [
        (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)
    ]
    levels = NoiseLevels(sigma_max=80.0).karras(18, dtype=torch.float64)
    torch.testing.assert_close(levels, torch.tensor(expected, dtype=torch.float64))
    assert levels[1].item() == pytest.approx(57.586, abs=1e-3)
    position = torch.linspace(0, 1, 18, dtype=torch.float64)
    torch.testing.assert_close(NoiseLevels(sigma_max=80.0).position(levels), position)


def test_edm_preconditioning():
    t = torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64)
    c_skip, c_out, c_in = edm_preconditioning(t, 0.5)
    torch.testing.assert_close(c_skip, 0.25 / (t**2 + 0.25))
    torch.testing.assert_close(c_out, t * 0.5 / (t**2 + 0.25).sqrt())
    torch.testing.assert_close(c_in, 1 / (t**2 + 0.25).sqrt())


@pytest.mark.parametrize("num_levels", [5, 50])
def test_vp_schedule_of_diffusion_ql(num_levels):
    """beta_i = 1 - exp(-beta_min / T - (beta_max - beta_min) (2 i - 1) / (2 T^2))."""
    schedule = VPSchedule(num_levels)
    i = torch.arange(1, num_levels + 1, dtype=torch.float64)
    exponent = -0.1 / num_levels - 0.5 * 9.9 * (2 * i - 1) / num_levels**2
    betas = 1 - exponent.exp()
    torch.testing.assert_close(schedule.betas(), betas.float())
    abar = (1 - betas).cumprod(0)
    expected = torch.cat([((1 - abar) / abar).sqrt().flip(0), torch.zeros(1)])
    times = schedule.times(num_levels, dtype=torch.float64)
    torch.testing.assert_close(times, expected)


def test_published_betas():
    expected = torch.tensor([0.1959, 0.4588, 0.6358, 0.7549, 0.8350])
    torch.testing.assert_close(VPSchedule().betas(), expected, atol=5e-5, rtol=0)


def test_ancestral_sampler_is_the_ddpm_posterior():
    """Diffusion-QL's sampler in its own variables, from the same noise."""
    flow_map, draws = GaussianFlowMap(), normal(5, 40, 2)
    low, high = torch.full((2, 2), 0.5, dtype=torch.float64) * torch.tensor([[-1.0], [1.0]])
    betas = VPSchedule().betas().double()
    abar = (1 - betas).cumprod(0)
    before = torch.cat([torch.ones(1), abar[:-1]])
    x = draws[0]
    for i in reversed(range(5)):
        t = ((1 - abar[i]) / abar[i]).sqrt().expand(40, 1)
        clean = flow_map.denoise(x / abar[i].sqrt(), t).clamp(low, high)
        mean = betas[i] * before[i].sqrt() / (1 - abar[i]) * clean
        mean = mean + (1 - before[i]) * (1 - betas[i]).sqrt() / (1 - abar[i]) * x
        variance = betas[i] * (1 - before[i]) / (1 - abar[i])
        x = mean + (variance.sqrt() * draws[5 - i] if i else 0.0)
    remaining = iter(draws[1:])
    times = VPSchedule().times(5, dtype=torch.float64)
    got = ancestral_sample(
        flow_map, draws[0], None, times, bounds=(low, high), draw=lambda _: next(remaining)
    )
    torch.testing.assert_close(got, x, rtol=1e-4, atol=1e-5)
    assert got.abs().max() == 0.5


def test_euler_on_the_linear_path_is_euler_in_noise_levels():
    """From x_r = a_t / (1 + t), in steps of equal size in r."""
    flow_map, noise = GaussianFlowMap(), normal(30, 2)
    r = torch.linspace(10 / 11, 0, 11, dtype=torch.float64)
    x = r[0] * noise
    for r_t, r_s in itertools.pairwise(r):
        t = (r_t / (1 - r_t)).expand(30, 1)
        velocity = (x - flow_map.denoise(x / (1 - r_t), t)) / r_t
        x = x + (r_s - r_t) * velocity
    torch.testing.assert_close(OdeSampler("euler", "linear")(flow_map, noise, None, 10), x)


@pytest.mark.parametrize("num_steps", [1, 2, 5, 10])
def test_heun_on_the_linear_path_averages_the_velocities_of_that_path(num_steps):
    """Written for x_r: v = (x - E[a | x]) / r; to r = 0, where v is not defined, by Euler."""
    flow_map, noise = GaussianFlowMap(), normal(30, 2)

    def velocity(x, r):
        t = (r / (1 - r)).expand(30, 1)
        return (x - flow_map.denoise(x / (1 - r), t)) / r

    r = torch.linspace(10 / 11, 0, num_steps + 1, dtype=torch.float64)
    x = r[0] * noise
    for r_t, r_s in itertools.pairwise(r):
        first = velocity(x, r_t)
        euler = x + (r_s - r_t) * first
        x = x + (r_s - r_t) * (first + velocity(euler, r_s)) / 2 if r_s > 0 else euler
    sample = OdeSampler("linear_heun", "linear")(flow_map, noise, None, num_steps)
    torch.testing.assert_close(sample, x)
    edm = OdeSampler("heun", "linear")(flow_map, noise, None, num_steps)
    assert torch.allclose(sample, edm) == (num_steps == 1)


@pytest.mark.parametrize(
    ("sampler", "error"),
    [
        (OdeSampler("heun", "karras"), 0.20),
        (OdeSampler("heun", "linear"), 0.023),
        (OdeSampler("linear_heun", "linear"), 0.068),
        (OdeSampler("heun", "edm"), 0.33),
        (OdeSampler("euler", "linear"), 0.22),
    ],
)
def test_errors_of_five_steps_are_those_of_the_documentation(sampler, error):
    """docs/family.md, "What differs": root mean square in units of the data's deviation."""
    flow_map = GaussianFlowMap()
    flow_map.noise_levels = NoiseLevels()
    # On a Gaussian a solver maps z to b + c z: two points tell both.
    noise = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    (shift, at_one) = sampler(flow_map, noise, None, 5) - JumpSampler()(flow_map, noise, None, 1)
    found = (shift**2 + (at_one - shift) ** 2).sqrt().item() / STD
    assert found == pytest.approx(error, rel=0.03)


@pytest.mark.parametrize("num_steps", [2, 5, 18])
def test_the_edm_sampler_is_the_published_one(num_steps):
    """Arxiv 2206.00364, algorithm 1: t_i by eq. 5 for i < N with t_{N-1} = sigma_min, t_N = 0."""
    flow_map, noise = GaussianFlowMap(), normal(30, 2)
    flow_map.noise_levels = NoiseLevels(sigma_max=80.0)
    first, last = 80 ** (1 / 7), 0.002 ** (1 / 7)
    t = [(first + i / (num_steps - 1) * (last - first)) ** 7 for i in range(num_steps)] + [0.0]

    def derivative(x, sigma):
        return (x - flow_map.denoise(x, torch.full((30, 1), sigma, dtype=torch.float64))) / sigma

    x = t[0] * noise
    for i in range(num_steps):
        d = derivative(x, t[i])
        x_next = x + (t[i + 1] - t[i]) * d
        if t[i + 1] != 0:
            x_next = x + (t[i + 1] - t[i]) * (d + derivative(x_next, t[i + 1])) / 2
        x = x_next
    sampler = OdeSampler("heun", "edm")
    torch.testing.assert_close(sampler(flow_map, noise, None, num_steps), x)
    assert sampler.evaluations(num_steps) == 2 * num_steps - 1


def test_change_of_variables_of_the_linear_path():
    t = torch.tensor([0.0, 0.25, 1.0, 9.0], dtype=torch.float64)
    torch.testing.assert_close(noise_level(path_time(t)), t)
    action, noise, r = normal(4, 2), normal(4, 2), path_time(t)[:, None]
    on_path = (1 - r) * action + r * noise
    torch.testing.assert_close(on_path, (action + t[:, None] * noise) / (1 + t[:, None]))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_evaluations_are_counted_right(name, num_steps):
    flow_map, sampler = Counting(), SAMPLERS[name]
    sampler(flow_map, normal(3, 2), None, num_steps)
    assert flow_map.count == sampler.evaluations(num_steps)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("shape", [(), (6,), (2, 3)])
def test_shapes(name, shape):
    sample = SAMPLERS[name](GaussianFlowMap(), normal(*shape, 2), None, 3)
    assert sample.shape == (*shape, 2) and sample.isfinite().all()


@pytest.mark.parametrize(
    ("name", "num_steps", "tolerance"),
    [("jumps", 1, 0.02), ("linear_jumps", 4, 0.02), ("noised_jumps", 1, 0.02),
     ("noised_jumps", 3, 0.02), ("euler", 100, 0.05), ("heun", 40, 0.02),
     ("linear_heun", 160, 0.02), ("edm", 40, 0.02),
     ("consistency", 1, 0.02), ("consistency", 3, 0.02)],
)  # fmt: skip
def test_samplers_reproduce_the_data(name, num_steps, tolerance):
    torch.manual_seed(0)
    flow_map = GaussianFlowMap()
    flow_map.noise_levels = NoiseLevels(sigma_max=80.0)
    sample = SAMPLERS[name](flow_map, normal(100_000, 1), None, num_steps)
    assert sample.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert sample.std().item() == pytest.approx(STD, rel=tolerance)


def test_ancestral_steps_approach_the_data():
    """The posterior's variance is that of a known action, which leaves out O(1 / T)."""
    torch.manual_seed(0)
    found = []
    for num_levels in (25, 200):
        sampler = AncestralSampler(VPSchedule(num_levels), clip=False)
        sample = sampler(GaussianFlowMap(), normal(50_000, 1), None, num_levels)
        assert sample.mean().item() == pytest.approx(MEAN, abs=0.01)
        found.append(1 - sample.std().item() / STD)
    assert 0 < found[1] < 0.04 and found[1] < found[0] / 4


@pytest.mark.parametrize(
    "name", ["jumps", "linear_jumps", "euler", "linear_euler", "heun", "linear_heun", "edm"]
)
def test_warm_starts(name):
    """From a level of 0 nothing changes; rows of one batch may differ."""
    start, noise = normal(3, 2), normal(3, 2)
    level = torch.tensor([[0.0], [1.0], [10.0]], dtype=torch.float64)
    flow_map, sampler = GaussianFlowMap(), SAMPLERS[name]
    sample = sampler(flow_map, noise, None, 80, start=start, start_level=level)
    torch.testing.assert_close(sample[0], start[0])
    exact = flow_map(start + level * noise, level, torch.zeros_like(level)).detach()
    assert (sample - exact).abs().max() < 0.1


def test_jumps_with_fresh_noise_are_those_of_ctm():
    """Arxiv 2310.02279, algorithm 3: a jump beyond the level, and noise back to it."""
    flow_map, noise, draws = GaussianFlowMap(error=0.1), normal(6, 2), normal(2, 6, 2)
    times, gamma = torch.tensor([10.0, 2.0, 0.5, 0.0], dtype=torch.float64), 0.6
    action = 10 * noise
    for t, s, fresh in zip([10.0, 2.0], [2.0, 0.5], draws, strict=True):
        level = torch.full((6, 1), t, dtype=torch.float64)
        action = flow_map(action, level, torch.full_like(level, 0.8 * s)) + 0.6 * s * fresh
    level = torch.full((6, 1), 0.5, dtype=torch.float64)
    expected = flow_map(action, level, torch.zeros_like(level))
    remaining = iter(draws)
    got = few_step_sample(flow_map, noise, None, times, gamma=gamma, draw=lambda _: next(remaining))
    torch.testing.assert_close(got, expected)


def test_a_warm_start_from_below_a_level_leaves_its_jumps_and_their_noise_out():
    """Rows of one batch may start above, at and below the levels; from 0 nothing changes."""
    torch.manual_seed(0)
    start, noise = normal(4, 2), normal(4, 2)
    level = torch.tensor([[0.0], [0.1], [0.2], [5.0]], dtype=torch.float64)
    flow_map, sampler = GaussianFlowMap(), JumpSampler(times=(1.0, 0.2), gamma=0.9)
    torch.manual_seed(1)
    sample = sampler(flow_map, noise, None, 3, start=start, start_level=level)
    once = flow_map(start + level * noise, level, torch.zeros_like(level)).detach()
    torch.testing.assert_close(sample[:3], once[:3])
    assert not torch.isclose(sample[3], once[3]).any()


@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_the_ends_of_gamma_are_deterministic_jumps_and_consistency_sampling(num_steps):
    flow_map, noise = GaussianFlowMap(error=0.1), normal(6, 2)

    def sampled(sampler, **options):
        torch.manual_seed(0)
        return sampler(flow_map, noise, None, num_steps, **options)

    assert torch.equal(sampled(JumpSampler(gamma=1.0)), sampled(ConsistencySampler()))
    jumps = sampled(JumpSampler())
    assert torch.equal(sampled(JumpSampler(gamma=0.9), stochastic=False), jumps)
    assert torch.equal(sampled(JumpSampler(gamma=0.9)), jumps) == (num_steps == 1)


def test_fresh_noise_covers_what_a_jump_gets_wrong():
    """The first of two jumps halves the spread; with gamma the second one sees most of it again."""

    class Narrow(GaussianFlowMap):
        def forward(self, action_t, t, s, condition=None):
            reached = super().forward(action_t, t, s)
            return torch.where(t > 5, MEAN + 0.5 * (reached - MEAN), reached)

    torch.manual_seed(0)
    flow_map, noise = Narrow(), normal(100_000, 1)
    middle = flow_map.noise_levels.jump_times(2)[1].item()
    for gamma in (0.0, 0.9):
        sample = JumpSampler(gamma=gamma)(flow_map, noise, None, 2)
        # The variance at the level between, of which the second jump keeps the share that is due.
        jumped = 0.25 * (STD**2 + (1 - gamma**2) * middle**2)
        expected = STD * ((jumped + gamma**2 * middle**2) / (STD**2 + middle**2)) ** 0.5
        assert sample.std().item() == pytest.approx(expected, rel=0.01)
    assert expected > 1.5 * 0.5 * STD


@pytest.mark.parametrize("name", ["ddpm", "consistency", "noised_jumps"])
def test_without_noise_on_the_way_the_sample_is_a_function(name):
    noise, flow_map = normal(8, 2), GaussianFlowMap()
    first, second = (SAMPLERS[name](flow_map, noise, None, 4, stochastic=False) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, SAMPLERS[name](flow_map, noise, None, 4))


def test_dyadic_times_divide_the_path():
    times = DyadicTimes(8)(torch.rand(5_000, 2, dtype=torch.float64), None, NoiseLevels())
    r_t, r_u, r_s = (path_time(time) * 4 / 3 for time in times)
    size = r_t - r_s
    torch.testing.assert_close(r_u, (r_t + r_s) / 2)
    exponent = -size.log2()
    torch.testing.assert_close(exponent, exponent.round(), atol=1e-6, rtol=0)
    assert set(exponent.round().flatten().tolist()) == {0.0, 1.0, 2.0, 3.0}
    torch.testing.assert_close(r_s / size, (r_s / size).round(), atol=1e-6, rtol=0)


def test_paired_times_are_logit_normal_on_the_linear_path():
    torch.manual_seed(0)
    levels = NoiseLevels(sigma_max=1e4)
    times = PairedLogNormalTimes()(torch.rand(200_000, 2, dtype=torch.float64), None, levels)
    apart = times.s < times.t
    assert apart.double().mean().item() == pytest.approx(0.25, abs=0.005)
    logits = torch.cat([path_time(time[apart]).logit() for time in (times.t, times.s)])
    assert logits.mean().item() == pytest.approx(-0.4, abs=0.02)
    assert logits.std().item() == pytest.approx(1.0, abs=0.02)
    # The larger of two standard normal draws has the mean 1 / sqrt(pi), also where s = t.
    larger = path_time(times.t).logit().mean().item()
    assert larger == pytest.approx(-0.4 + 1 / math.sqrt(math.pi), abs=0.02)


@pytest.mark.parametrize("value", [0.0, 1.0 - 1e-7, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "sampler", [LinearPathTimes(), DyadicTimes(), PairedLogNormalTimes(), VPSchedule()]
)
def test_extreme_draws_give_finite_times(sampler, dtype, value):
    """A draw of 0 or, after rounding, of 1."""
    draws, levels = torch.full((3, 2), value, dtype=dtype), NoiseLevels()
    t = sampler.start(draws[:, :1], torch.tensor(0.5), levels)
    # DDPM's levels are its own, the last 12.45; the others end at sigma_max.
    largest = 12.5 if isinstance(sampler, VPSchedule) else levels.sigma_max
    # Draws of half precision, which losses do not make, may give times of single precision.
    assert t.dtype in (dtype, torch.promote_types(dtype, torch.float32))
    assert t.isfinite().all() and (t > 0).all() and (t <= largest).all()
    if not isinstance(sampler, (LinearPathTimes, VPSchedule)):
        t, u, s = sampler(draws, torch.tensor(0.5), levels)
        assert (s >= 0).all() and (u >= s).all() and (t >= u).all() and (t <= largest).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: as_sampler("rk4"), ValueError, "sampler must be one of"),
        (lambda: as_sampler(3), TypeError, "sampler must be one of"),
        (lambda: OdeSampler("rk4"), ValueError, "method must be"),
        (lambda: JumpSampler("cosine"), ValueError, "spacing must be one of"),
        (lambda: JumpSampler("edm"), ValueError, r"one of \('karras', 'linear'\), got 'edm'"),
        (lambda: OdeSampler(spacing="cosine"), ValueError, r"\('karras', 'linear', 'edm'\)"),
        (lambda: JumpSampler(gamma=1.1), ValueError, "gamma must lie in"),
        (lambda: JumpSampler(gamma=math.nan), ValueError, "gamma must lie in"),
        (
            lambda: few_step_sample(GaussianFlowMap(), normal(1, 2), None, normal(3), gamma=-0.1),
            ValueError,
            "gamma must lie in",
        ),
        (lambda: VPSchedule(0), ValueError, "num_levels must be at least 1"),
        (lambda: VPSchedule(beta_min=0.0), ValueError, "beta_min"),
        (lambda: VPSchedule(5).times(6), ValueError, "num_steps must lie in \\[1, 5\\]"),
        (lambda: DyadicTimes(6), ValueError, "power of two"),
        (lambda: PairedLogNormalTimes(equal_share=1.0), ValueError, "equal_share"),
        (
            lambda: AncestralSampler()(GaussianFlowMap(), normal(1, 2), None, 2, start_level=1.0),
            ValueError,
            "no warm start",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
