"""The terms of the objectives: published formulas, and the closed form as their minimum."""

from __future__ import annotations

import copy
from typing import get_args

import pytest
import torch

from tests.flow_map.closed_form import (
    MEAN,
    STD,
    FrozenMap,
    GaussianFlowMap,
    GivenTimes,
    on_the_trajectory,
)
from torchrl_gtp.flow_map import (
    Consistency,
    Denoising,
    DyadicTimes,
    FlowMap,
    KarrasGridTimes,
    LinearPathTimes,
    LogNormalTimes,
    MeanFlow,
    MLPBackbone,
    Objective,
    Shortcut,
    SomeRows,
    TermInputs,
    VPSchedule,
    family,
    few_step_sample,
)
from torchrl_gtp.flow_map.family import FamilyName
from torchrl_gtp.flow_map.objectives import Draw
from torchrl_gtp.flow_map.preconditioning import edm_time_weight

PROGRESS = torch.tensor(0.5)


@pytest.fixture
def flow_map():
    torch.manual_seed(0)
    return FlowMap(MLPBackbone(2, hidden_sizes=(32,))).double()


def drawn(term, action, **given):
    """Inputs of a term with random draws, but for those given."""
    draws = {}
    for name, draw in term.draws(action.shape[-1]).items():
        sampler = torch.randn if draw.distribution == "normal" else torch.rand
        draws[name] = sampler(*action.shape[:-1], *draw.shape, dtype=action.dtype)
    return TermInputs(action, {**draws, **given}, PROGRESS)


def errors(term, flow_map, action, teacher=None, **given):
    return term(flow_map, FrozenMap(teacher or flow_map), drawn(term, action, **given))


def test_ddpm_is_the_error_of_the_predicted_noise(flow_map):
    """On x = sqrt(abar) a + sqrt(1 - abar) z, as DDPM writes it."""
    torch.manual_seed(1)
    schedule, action, noise = VPSchedule(), *torch.randn(2, 9, 2, dtype=torch.float64)
    uniform = torch.rand(9, 1, dtype=torch.float64)
    abar = (1 - schedule.betas().double()).cumprod(0)[(5 * uniform).long()]
    x = abar.sqrt() * action + (1 - abar).sqrt() * noise
    t = ((1 - abar) / abar).sqrt()
    denoised = flow_map.denoise(x / abar.sqrt(), t)
    predicted = (x - abar.sqrt() * denoised) / (1 - abar).sqrt()
    got = errors(Denoising(schedule, "noise"), flow_map, action, time=uniform, noise=noise)
    torch.testing.assert_close(got, (predicted - noise).square().sum(-1), rtol=1e-4, atol=1e-6)


def test_flow_matching_is_the_error_of_the_velocity(flow_map):
    """On x = (1 - r) a + r z, whose velocity is z - a."""
    torch.manual_seed(1)
    action, noise = torch.randn(2, 9, 2, dtype=torch.float64)
    uniform = torch.rand(9, 1, dtype=torch.float64) * 0.9 + 0.05
    r = uniform * 3 / 4
    x = (1 - r) * action + r * noise
    velocity = (x - flow_map.denoise(x / (1 - r), r / (1 - r))) / r
    got = errors(
        Denoising(LinearPathTimes(), "velocity"), flow_map, action, time=uniform, noise=noise
    )
    torch.testing.assert_close(got, (velocity - (noise - action)).square().sum(-1))


def test_shortcut_is_the_mean_of_two_velocities(flow_map):
    """On the linear path: one step of size 2 d against the mean velocity of two steps of d."""
    torch.manual_seed(1)
    action, noise = torch.randn(2, 9, 2, dtype=torch.float64)
    r_t, r_s = 0.75, 0.25
    levels = [r / (1 - r) for r in (r_t, (r_t + r_s) / 2, r_s)]

    def velocity(x, r, r_end):
        t, s = (torch.full((9, 1), v / (1 - v), dtype=torch.float64) for v in (r, r_end))
        return (x - flow_map(x / (1 - r), t, s) * (1 - r_end)) / (r - r_end)

    x = (1 - r_t) * action + r_t * noise
    first = velocity(x, r_t, 0.5)
    second = velocity(x - 0.25 * first, 0.5, r_s)
    expected = (velocity(x, r_t, r_s) - (first + second) / 2).square().sum(-1)
    got = errors(Shortcut(GivenTimes(*levels)), flow_map, action, noise=noise)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("num_steps", [1, 4, 64])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_the_halves_of_the_smallest_shortcut_are_steps_of_the_denoiser(flow_map, num_steps, share):
    """No term trains half of it; as published they are the flow term's at d = 0."""
    torch.manual_seed(1)
    term, action = Shortcut(DyadicTimes(num_steps)), torch.randn(9, 2, dtype=torch.float64)
    uniform = torch.rand(9, 2, dtype=torch.float64)
    uniform[:, 0] = share  # the largest steps come first
    inputs = drawn(term, action, times=uniform)
    t, u, s = term.time_sampler(uniform, PROGRESS, flow_map.noise_levels)
    size = int(share * (num_steps.bit_length()))
    smallest = size == num_steps.bit_length() - 1
    assert smallest == (num_steps == 1 or share == 0.999)

    def half_jump(noisy, start, end):
        if not smallest:
            return flow_map(noisy, start, end)
        return noisy + (end - start) * (noisy - flow_map.denoise(noisy, start)) / start

    noisy = action + t * inputs.draws["noise"]
    target = half_jump(half_jump(noisy, t, u), u, s)
    difference = flow_map(noisy, t, s) - target
    expected = (difference / (1 - s / t) * (1 + t) / t).square().sum(-1)
    torch.testing.assert_close(term(flow_map, FrozenMap(flow_map), inputs), expected)


def test_mean_flow_is_the_identity_on_the_linear_path(flow_map):
    """Value and gradient of ||U - sg(v - (r - r_s) dU/dr)||^2, as published."""
    torch.manual_seed(1)
    action, noise = torch.randn(2, 9, 2, dtype=torch.float64)
    r, r_s = torch.full((2, 9, 1), 0.0, dtype=torch.float64) + torch.tensor([0.8, 0.3]).reshape(
        -1, 1, 1
    )
    r, r_s = r.double(), r_s.double()
    s = r_s / (1 - r_s)

    def mean_velocity(x, r):
        return (x - flow_map(x / (1 - r), r / (1 - r), s) * (1 - r_s)) / (r - r_s)

    x, v = (1 - r) * action + r * noise, noise - action
    u, rate = torch.func.jvp(mean_velocity, (x, r), (v, torch.ones_like(r)))
    expected = (u - (v - (r - r_s) * rate).detach()).square().sum(-1)
    t = (r / (1 - r))[0].item()
    term = MeanFlow(GivenTimes(t, t, s[0].item()), robust_power=0.0)
    got = errors(term, flow_map, action, noise=noise)
    torch.testing.assert_close(got, expected)
    parameters = list(flow_map.parameters())
    gradients = [torch.autograd.grad(e.sum(), parameters) for e in (got, expected)]
    for ours, published in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, published)


def test_mean_flow_with_equal_times_is_flow_matching(flow_map):
    action, noise = torch.randn(2, 9, 2, dtype=torch.float64)
    mean_flow = errors(MeanFlow(GivenTimes(1.5, 1.5, 1.5), 0.0), flow_map, action, noise=noise)
    denoising = Denoising(GivenTimes(1.5, 0.0, 0.0), "velocity")
    torch.testing.assert_close(mean_flow, errors(denoising, flow_map, action, noise=noise))


def test_pseudo_huber_over_the_gap(flow_map):
    """Improved consistency training: (sqrt(||x||^2 + c^2) - c) / (t - u), c = 0.00054 sqrt(A)."""
    action, noise = torch.randn(2, 9, 2, dtype=torch.float64)
    times = GivenTimes(1.0, 0.8, 0.0)
    options = {"time_weight": "gap", "robust_power": 0.0, "huber": 0.00054}
    got = errors(Consistency(times, **options), flow_map, action, noise=noise)
    t, u, s = times(torch.zeros(9, 2, dtype=torch.float64), None, None)
    residual = flow_map(action + t * noise, t, s) - flow_map(action + u * noise, u, s)
    bend = 0.00054 * 2**0.5
    expected = ((residual.square().sum(-1) + bend**2).sqrt() - bend) / 0.2
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("term", "minimum"),
    [
        (Denoising(GivenTimes(0.7, 0, 0), "none"), STD**2 * 0.7**2),
        (Denoising(GivenTimes(0.7, 0, 0), "edm"), STD**2 + 0.7**2),
        (Denoising(GivenTimes(0.7, 0, 0), "noise"), STD**2),
        (Denoising(GivenTimes(0.7, 0, 0), "velocity"), STD**2 * 1.7**2),
        (MeanFlow(GivenTimes(0.7, 0.7, 0.7), 0.0), STD**2 * 1.7**2),
    ],
    ids=["none", "edm", "noise", "velocity", "mean_flow"],
)
def test_minimum_of_denoising_is_the_posterior_variance(term, minimum):
    """2 dimensions with the variance STD^2 t^2 / (STD^2 + t^2), under the weight of t = 0.7."""
    torch.manual_seed(0)
    flow_map = GaussianFlowMap()
    action = MEAN + STD * torch.randn(200_000, 2, dtype=torch.float64)
    error = errors(term, flow_map, action).mean()
    assert error.item() == pytest.approx(2 * minimum / (STD**2 + 0.7**2), rel=0.01)
    error.backward()
    assert abs(flow_map.error.grad) < 0.02


EXACT = {
    "shortcut": Shortcut(GivenTimes(2.0, 0.9, 0.3)),
    "shortcut_to_data": Shortcut(GivenTimes(2.0, 0.9, 0.0)),
    "mean_flow": MeanFlow(GivenTimes(2.0, 2.0, 0.3), 0.0),
    "mean_flow_to_data": MeanFlow(GivenTimes(2.0, 2.0, 0.0), 0.0),
    "ctm": Consistency(GivenTimes(2.0, 1.2, 0.3), robust_power=0.0, solver="heun", solver_steps=64),
    "ctm_at_data": Consistency(
        GivenTimes(2.0, 1.2, 0.3), robust_power=0.0, solver="heun", solver_steps=64, at_data=True
    ),
    "consistency": Consistency(GivenTimes(2.0, 1.999, 0.0), robust_power=0.0),
    "semigroup": Consistency(GivenTimes(2.0, 0.9, 0.3), robust_power=0.0, semigroup_every=1),
}


@pytest.mark.parametrize("name", EXACT)
def test_closed_form_is_the_minimum(name):
    """Error and gradient vanish at the exact map, and do not vanish off it."""
    term, teacher = EXACT[name], GaussianFlowMap()
    action, noise, _ = on_the_trajectory(2.0)
    results = {}
    for offset in (0.0, 0.1):
        flow_map = GaussianFlowMap(offset)
        error = errors(term, flow_map, action, teacher, noise=noise).mean()
        error.backward()
        results[offset] = error.item(), flow_map.error.grad.abs().item()
    assert results[0.0][0] < 1e-6 and results[0.0][1] < 1e-3
    assert results[0.1][0] > 1e-3 and results[0.1][1] > 0.01


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), (None, 1)])
def test_error_of_a_u_shrinks_with_the_gap(solver, order):
    """One step errs by O(gap^(p + 1)), in the squared error twice that; eq. 6 is like Euler."""
    action, noise, _ = on_the_trajectory(2.0)
    found = []
    for gap in (0.1, 0.05, 0.025):
        term = Consistency(GivenTimes(2.0, 2.0 - gap, 0.5), robust_power=0.0, solver=solver)
        found.append(errors(term, GaussianFlowMap(), action, noise=noise).mean())
    observed = (torch.stack(found[:-1]) / torch.stack(found[1:])).log2()
    assert (observed - 2 * (order + 1)).abs().max() < 0.3


@pytest.mark.parametrize(("shape", "num_jumps"), [((10,), 3), ((10, 4), 10), ((3,), 1), ((), 1)])
def test_some_rows_are_compared_with_two_jumps_and_the_others_as_ever(flow_map, shape, num_jumps):
    torch.manual_seed(1)
    times = LogNormalTimes()
    action, noise = torch.randn(2, *shape, 2, dtype=torch.float64)
    uniform, middle = torch.rand(*shape, 3, dtype=torch.float64).split([2, 1], -1)
    rank = torch.rand(*shape, 1, dtype=torch.float64)
    given = {"times": uniform, "noise": noise, "middle": middle, "row_rank": rank}
    teacher = FlowMap(MLPBackbone(2, hidden_sizes=(32,))).double()
    got = errors(Consistency(times, semigroup_every=4), flow_map, action, teacher, **given)
    expected = errors(Consistency(times), flow_map, action, teacher, times=uniform, noise=noise)
    t, _, s = times(uniform, PROGRESS, flow_map.noise_levels)
    lowest = s.clamp_min(flow_map.noise_levels.sigma_min)
    level = lowest * (t / lowest) ** middle
    noisy = action + t * noise
    target = teacher(teacher(noisy, t, level), level, s)
    square = (flow_map(noisy, t, s) - target).square() * edm_time_weight(t, flow_map.sigma_data)
    error = square.sum(-1)
    jumped = (error / (error / 2 + 0.01)).detach()
    blocks = rank.flatten().split(4)
    rows = torch.tensor([4 * i + block.argmax() for i, block in enumerate(blocks)])
    assert len(rows) == num_jumps
    expected.view(-1)[rows] = jumped.view(-1)[rows]
    assert (got > 0).all()
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(("shape", "num_rows"), [((10,), 3), ((10, 4), 10), ((3,), 1), ((), 1)])
def test_a_term_on_some_rows_has_its_errors_there_and_none_elsewhere(flow_map, shape, num_rows):
    torch.manual_seed(1)
    term = Consistency(semigroup_every=2)
    some = SomeRows(term, every=4)
    inputs = drawn(some, torch.randn(*shape, 2, dtype=torch.float64))
    rank = inputs.draws["chosen_rank"]
    blocks = rank.flatten().split(4)
    rows = torch.tensor([4 * i + block.argmax() for i, block in enumerate(blocks)])
    got = some(flow_map, FrozenMap(flow_map), inputs)
    flat = {name: draw.reshape(-1, draw.shape[-1])[rows] for name, draw in inputs.draws.items()}
    chosen = inputs._replace(action=inputs.action.reshape(-1, 2)[rows], draws=flat)
    assert got.shape == shape and len(rows) == num_rows == int((got > 0).sum())
    torch.testing.assert_close(got.flatten()[rows], term(flow_map, FrozenMap(flow_map), chosen))


def test_some_rows_take_conditions_and_padding_with_them():
    torch.manual_seed(1)
    flow_map = FlowMap(MLPBackbone(2, condition_dim=3, hidden_sizes=(32,))).double()
    some = SomeRows(Denoising(), every=3)
    valid = torch.tensor([[True, False], [True, True], [False, True]]).repeat(3, 1)
    inputs = drawn(some, torch.randn(9, 2, dtype=torch.float64))._replace(
        condition=torch.randn(9, 3, dtype=torch.float64), valid=valid
    )
    everywhere = Denoising()(flow_map, FrozenMap(flow_map), inputs)
    got = some(flow_map, FrozenMap(flow_map), inputs)
    rows = got.nonzero().flatten()
    assert len(rows) == 3
    torch.testing.assert_close(got[rows], everywhere[rows])


class GivenErrors:
    """A term whose errors are what was drawn, in draws of two shapes."""

    def draws(self, action_dim):
        return {"coin": Draw("uniform", ()), "table": Draw("normal", (2, 3))}

    def __call__(self, flow_map, teacher, inputs):
        return inputs.draws["coin"] + inputs.draws["table"].sum((-1, -2))


@pytest.mark.parametrize("shape", [(8,), (4, 2), ()])
def test_some_rows_take_draws_of_any_shape(flow_map, shape):
    torch.manual_seed(0)
    inputs = TermInputs(
        torch.zeros(*shape, 2),
        {
            "coin": torch.rand(shape),
            "table": torch.randn(*shape, 2, 3),
            "chosen_rank": torch.rand(*shape, 1),
        },
        PROGRESS,
    )
    got = SomeRows(GivenErrors(), every=4)(flow_map, FrozenMap(flow_map), inputs)
    everywhere = GivenErrors()(flow_map, FrozenMap(flow_map), inputs)
    assert got.shape == shape and int((got != 0).sum()) == (2 if shape else 1)
    assert torch.equal(got[got != 0], everywhere[got != 0])


def test_some_rows_speak_for_their_term():
    term = Consistency(solver="heun")
    assert Objective({"consistency": SomeRows(term, 4)}).needs_denoiser
    assert not Objective({"shortcut": SomeRows(Shortcut(), 4)}).follows_denoiser
    with pytest.raises(ValueError, match="no term has an ODE solver"):
        Objective({"shortcut": Shortcut()}, trained_denoiser=True)


@pytest.mark.parametrize("end", ["data", "uniform", "cubic", "log_uniform"])
def test_two_jumps_at_the_ends_of_the_noise_levels(flow_map, end):
    draws = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    uniform = torch.cartesian_prod(draws, draws)
    term = Consistency(LogNormalTimes(end=end), semigroup_every=1)
    action = torch.randn(9, 2)
    for middle in (0.0, 1.0):
        inputs = {"times": uniform, "middle": torch.full((9, 1), middle, dtype=torch.float64)}
        error = errors(term, flow_map, action.double(), **inputs)
        error.sum().backward()
        assert error.isfinite().all()
        assert all(parameter.grad.isfinite().all() for parameter in flow_map.parameters())


def test_frozen_jump_to_the_data_passes_the_gradient_on():
    flow_map, teacher = GaussianFlowMap(0.1), GaussianFlowMap()
    term = Consistency(GivenTimes(2.0, 1.0, 0.5), robust_power=0.0, solver="heun", at_data=True)
    errors(term, flow_map, torch.zeros(4, 2, dtype=torch.float64), teacher).sum().backward()
    assert flow_map.error.grad.abs() > 0 and teacher.error.grad is None


@pytest.mark.parametrize("name", get_args(FamilyName))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.05), (torch.bfloat16, 0.4)])
def test_half_precision_has_the_errors_of_single_precision(name, dtype, tolerance):
    """At the smallest levels as well, whose weights and gaps are beyond half precision."""
    torch.manual_seed(0)
    objective, _, noise_levels = family(name)
    precise = FlowMap(MLPBackbone(2, hidden_sizes=(32,)), noise_levels=noise_levels)
    half = copy.deepcopy(precise).to(dtype)
    for term in objective.terms.values():
        inputs = drawn(term, torch.rand(2000, 2) * 2 - 1)
        inputs = inputs._replace(progress=torch.tensor(0.0))
        rounded = TermInputs(
            inputs.action.to(dtype),
            {**inputs.draws, "noise": inputs.draws["noise"].to(dtype)},
            inputs.progress.to(dtype),
        )
        expected = term(precise, FrozenMap(precise), inputs).mean().item()
        error = term(half, FrozenMap(half), rounded)
        assert error.dtype == torch.float32 and error.isfinite().all()
        assert error.mean().item() == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize(
    "term",
    [
        Denoising(),
        Consistency(),
        Consistency(huber=0.1),
        Consistency(semigroup_every=2),
        Shortcut(),
        MeanFlow(),
    ],
    ids=lambda term: type(term).__name__,
)
def test_padded_dimensions_do_not_enter_the_error(flow_map, term):
    torch.manual_seed(0)
    inputs = drawn(term, torch.randn(9, 2, dtype=torch.float64))
    valid = torch.tensor([True, False]).expand(9, 2)
    inputs = inputs._replace(valid=valid)
    # The closed form has no path from one dimension to another, as a network has.
    separable = GaussianFlowMap(0.1)
    for teacher in (separable, GaussianFlowMap()):
        expected = term(separable, FrozenMap(teacher), inputs)
        padded = inputs._replace(action=torch.where(valid, inputs.action, 1e3))
        torch.testing.assert_close(term(separable, FrozenMap(teacher), padded), expected)
        counted = padded._replace(valid=~valid)
        assert ((term(separable, FrozenMap(teacher), counted) - expected).abs() > 0).all()
    assert term(flow_map, FrozenMap(flow_map), inputs).isfinite().all()


@pytest.mark.parametrize("num_padded", [0, 1, 5])
@pytest.mark.parametrize(
    ("make", "scale"),
    [
        (lambda power: Consistency(GivenTimes(2.0, 1.2, 0.3), robust_power=power), 0.01),
        (lambda power: MeanFlow(GivenTimes(2.0, 2.0, 0.3), robust_power=power), 0.001),
    ],
    ids=["consistency", "mean_flow"],
)
def test_the_robust_weight_does_not_depend_on_padding(make, scale, num_padded):
    """1 / (error + 0.01), with the mean error of the two dimensions that are not padded."""
    torch.manual_seed(0)
    valid = (torch.arange(2 + num_padded) < 2).expand(9, -1)
    action = torch.randn(9, 2 + num_padded, dtype=torch.float64)
    inputs = drawn(make(1.0), action)._replace(valid=valid)
    flow_map, teacher = GaussianFlowMap(0.1), FrozenMap(GaussianFlowMap())
    plain, robust = (make(power)(flow_map, teacher, inputs) for power in (0.0, 1.0))
    torch.testing.assert_close(robust, plain / (plain / 2 + scale))


@pytest.mark.parametrize("num_padded", [0, 3])
def test_the_bend_of_the_pseudo_huber_distance_does_not_depend_on_padding(num_padded):
    torch.manual_seed(0)
    valid = (torch.arange(2 + num_padded) < 2).expand(9, -1)
    times = GivenTimes(2.0, 1.2, 0.3)
    plain, bent = (Consistency(times, robust_power=0.0, huber=huber) for huber in (None, 0.3))
    action = torch.randn(9, 2 + num_padded, dtype=torch.float64)
    inputs = drawn(plain, action)._replace(valid=valid)
    flow_map, teacher = GaussianFlowMap(0.1), FrozenMap(GaussianFlowMap())
    error, bend = plain(flow_map, teacher, inputs), 0.3 * 2**0.5
    expected = (error + bend**2).sqrt() - bend
    torch.testing.assert_close(bent(flow_map, teacher, inputs), expected)


def test_the_gradient_of_the_pseudo_huber_distance_is_that_of_half_a_robust_power():
    """With huber^2 in the place of 0.01, but for the factor 1 / (2 sqrt(A))."""
    torch.manual_seed(0)
    gradients = []
    inputs = drawn(Consistency(), torch.randn(9, 5, dtype=torch.float64))
    for options in ({"huber": 0.1, "robust_power": 0.0}, {"robust_power": 0.5}):
        flow_map = GaussianFlowMap(0.1)
        term = Consistency(GivenTimes(2.0, 1.2, 0.3), **options)  # 0.1^2 = 0.01
        term(flow_map, FrozenMap(GaussianFlowMap()), inputs).sum().backward()
        gradients.append(flow_map.error.grad)
    torch.testing.assert_close(gradients[0], gradients[1] / (2 * 5**0.5))


def test_improved_consistency_times_follow_the_discrete_log_normal():
    """p(t_i) is proportional to erf at its ends (arXiv 2310.14189, section 3.5)."""
    torch.manual_seed(0)
    levels = GaussianFlowMap().noise_levels
    sampler = KarrasGridTimes(first=10, last=10, log_normal=(-1.1, 2.0), end="data")
    times = sampler(torch.rand(400_000, 2, dtype=torch.float64), PROGRESS, levels)
    grid = levels.karras(11, dtype=torch.float64)
    cdf = torch.special.erf((grid.log() + 1.1) / (2.0 * 2**0.5))
    expected = (cdf[:-1] - cdf[1:]) / (cdf[0] - cdf[-1])
    index = (times.t - grid[:-1]).abs().argmin(-1)
    found = index.bincount(minlength=10) / 400_000
    torch.testing.assert_close(found.double(), expected, atol=3e-3, rtol=0)
    torch.testing.assert_close(times.u.squeeze(-1), grid[index + 1])
    assert not times.s.any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Denoising(time_weight="gap"), "time_weight must be one of"),
        (lambda: Consistency(time_weight="snr"), "time_weight must be one of"),
        (lambda: Consistency(robust_power=2.0), "robust_power must lie in"),
        (lambda: Consistency(huber=0.0), "huber must be positive"),
        (lambda: Consistency(solver="rk4"), "solver must be"),
        (lambda: Consistency(solver_steps=0), "solver_steps must be at least 1"),
        (lambda: SomeRows(Denoising(), 0), "every must be an integer of at least 1, got 0"),
        (lambda: SomeRows(Denoising(), 2.0), "every must be an integer"),
        (lambda: SomeRows(SomeRows(Denoising(), 2), 4), "take its term, and every=8"),
        (lambda: Consistency(semigroup_every=0), "semigroup_every must be an integer of at least"),
        (lambda: Consistency(semigroup_every=2.5), "semigroup_every must be an integer"),
        (
            lambda: Consistency(time_weight="gap", semigroup_every=8),
            "goes with a time_weight other than 'gap'",
        ),
        (lambda: MeanFlow(robust_power=-1.0), "robust_power must lie in"),
        (lambda: Objective({}), "at least one term"),
        (lambda: Objective({"flow": Denoising()}, "frozen"), "teacher must be"),
        (lambda: KarrasGridTimes(log_normal=(0.0, 0.0)), "log_normal must be"),
        (lambda: KarrasGridTimes(end="noise"), "end must be"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("term", [Consistency, Shortcut, MeanFlow])
@pytest.mark.parametrize("sampler", [VPSchedule(), LinearPathTimes(), LogNormalTimes, "log_normal"])
def test_a_term_of_three_times_needs_a_sampler_of_three(term, sampler):
    with pytest.raises(TypeError, match=r"time_sampler must give \(t, u, s\) by a method __call__"):
        term(sampler)


@pytest.mark.parametrize("sampler", [VPSchedule, "log_normal", None, lambda uniform: uniform])
def test_a_denoising_term_needs_a_sampler_of_t(sampler):
    with pytest.raises(TypeError, match="time_sampler must give t by a method start"):
        Denoising(sampler)


def test_jumps_of_the_closed_form_agree_with_the_oracle():
    """The oracle of these tests is itself a flow map: jumps compose."""
    noise = torch.randn(50, 2, dtype=torch.float64)
    levels = GaussianFlowMap().noise_levels
    one, five = (
        few_step_sample(GaussianFlowMap(), noise, None, levels.jump_times(k, dtype=torch.float64))
        for k in (1, 5)
    )
    torch.testing.assert_close(one, five)
