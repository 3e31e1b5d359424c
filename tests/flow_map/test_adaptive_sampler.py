"""As many jumps as a tolerance asks for: the same eagerly, compiled, and sample by sample."""

from __future__ import annotations

import pytest
import torch

from tests.flow_map.closed_form import GaussianFlowMap
from torchrl_gtp.flow_map import AdaptiveSampler, FlowMap, JumpSampler, MLPBackbone
from torchrl_gtp.flow_map.named_samplers import as_sampler

MODES = pytest.mark.parametrize("skip_finished", [False, True])


class ErringFlowMap(GaussianFlowMap):
    """The last jump errs in proportion to the level it starts from, and to the condition."""

    def forward(self, action_t, t, s, condition=None):
        return super().forward(action_t, t, s) + torch.where(s > 0, 0.0, condition * t / 10)


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def count_rows(flow_map):
    """Counts the samples that a map is evaluated on."""
    rows = []
    flow_map.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    return rows


@MODES
def test_exact_map_stops_after_the_first_comparison(skip_finished):
    flow_map, noise = GaussianFlowMap(), normal(20, 2)
    sampler = AdaptiveSampler(1e-6, skip_finished)
    action, evaluations = sampler.sample_with_evaluations(flow_map, noise, None, 16)
    assert evaluations.unique().tolist() == [1 + 2]
    torch.testing.assert_close(action, flow_map(10 * noise, *levels(20)))


def levels(num_samples):
    zero = torch.zeros(num_samples, 1, dtype=torch.float64)
    return zero + 10.0, zero


@MODES
def test_each_sample_gets_the_first_number_of_jumps_that_suffices(skip_finished):
    torch.manual_seed(0)
    flow_map, noise = ErringFlowMap(), normal(50, 2)
    condition = torch.logspace(-4, 1, 50, dtype=torch.float64)[:, None]
    sampler = AdaptiveSampler(0.05, skip_finished)
    action, evaluations = sampler.sample_with_evaluations(flow_map, noise, condition, 10)
    by_number = {k: JumpSampler()(flow_map, noise, condition, k) for k in (1, 2, 5, 10)}
    spent = {1: 1, 2: 3, 5: 8, 10: 18}
    expected, costs = by_number[10].clone(), torch.full_like(evaluations, 18)
    for coarse, fine in ((5, 10), (2, 5), (1, 2)):
        moved = (by_number[fine] - by_number[coarse]).square().mean(-1, keepdim=True).sqrt()
        expected = torch.where(moved <= 0.05, by_number[fine], expected)
        costs = torch.where(moved <= 0.05, spent[fine], costs)
    assert set(costs.flatten().tolist()) == {3, 8, 18}
    assert torch.equal(evaluations, costs)
    torch.testing.assert_close(action, expected)


def test_finished_samples_are_not_evaluated_again():
    flow_map, condition = ErringFlowMap(), torch.tensor([[0.0], [0.0], [9.0]]).double()
    rows = count_rows(flow_map)
    noise = normal(3, 2)
    sampler = AdaptiveSampler(0.05, skip_finished=True)
    evaluations = sampler.sample_with_evaluations(flow_map, noise, condition, 4)[1]
    assert rows == [3, 3, 3, 1, 1, 1, 1] and evaluations.flatten().tolist() == [3, 3, 7]
    rows.clear()
    sampler(flow_map, noise[:2], condition[:2], 4)
    assert rows == [2, 2, 2]


@MODES
def test_a_sample_does_not_depend_on_its_batch(skip_finished):
    torch.manual_seed(0)
    flow_map, noise = ErringFlowMap(), normal(12, 2)
    condition = torch.logspace(-4, 1, 12, dtype=torch.float64)[:, None]
    sampler = AdaptiveSampler(0.05, skip_finished)
    together = sampler.sample_with_evaluations(flow_map, noise, condition, 8)
    assert len(together[1].unique()) > 1
    for i in range(12):
        alone = sampler.sample_with_evaluations(flow_map, noise[i], condition[i], 8)
        for one, of_all in zip(alone, together, strict=True):
            torch.testing.assert_close(one, of_all[i])


@MODES
@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_without_a_choice_there_is_no_comparison(num_steps, skip_finished):
    flow_map, noise, condition = ErringFlowMap(), normal(5, 2), normal(5, 1)
    sampler = AdaptiveSampler(1e-9, skip_finished)
    action, evaluations = sampler.sample_with_evaluations(flow_map, noise, condition, num_steps)
    torch.testing.assert_close(action, JumpSampler()(flow_map, noise, condition, num_steps))
    assert evaluations.unique().tolist() == [num_steps] == [sampler.evaluations(num_steps)]


@MODES
@pytest.mark.parametrize("shape", [(), (6,), (2, 3), (0,)])
def test_shapes_and_warm_starts(shape, skip_finished):
    """Rows of one batch start from levels of their own; at a level of 0 nothing changes."""
    flow_map, noise, start = ErringFlowMap(), normal(*shape, 2), normal(*shape, 2)
    condition = torch.ones(*shape, 1, dtype=torch.float64)
    sampler = AdaptiveSampler(0.01, skip_finished)
    for level in (0.0, torch.tensor(0.0), torch.zeros(*shape, 1)):
        action, evaluations = sampler.sample_with_evaluations(
            flow_map, noise, condition, 8, start=start, start_level=level
        )
        torch.testing.assert_close(action, start)
        assert evaluations.shape == (*shape, 1) and (evaluations == 3).all()
    assert sampler(flow_map, noise, condition, 8).shape == (*shape, 2)


@MODES
@pytest.mark.parametrize("shape", [(6,), (2, 3)])
def test_what_is_broadcast_counts_as_repeated(shape, skip_finished):
    """A start, level, noise or condition of all samples, expanded or of fewer dimensions."""
    torch.manual_seed(0)
    flow_map, sampler = ErringFlowMap(), AdaptiveSampler(0.05, skip_finished)
    condition = torch.logspace(-4, 1, 6, dtype=torch.float64).reshape(*shape, 1)
    noise, start, level = normal(2), normal(2), torch.tensor([2.0], dtype=torch.float64)

    def sample(condition, noise, start, level):
        return sampler.sample_with_evaluations(
            flow_map, noise, condition, 8, start=start, start_level=level
        )

    expanded = [each.expand(*shape, len(each)) for each in (noise, start, level)]
    expected = sample(condition, *(each.clone() for each in expanded))
    assert expected[0].shape == (*shape, 2) and len(expected[1].unique()) > 1
    for inputs in (
        expanded,
        (noise, start, level),
        (noise, expanded[1][:1], level),
        (expanded[0].clone(), start, 2.0),
    ):
        before = [each.clone() for each in inputs[:2]]
        torch.testing.assert_close(sample(condition, *inputs), expected)
        assert all(map(torch.equal, inputs, before))


@MODES
def test_what_lies_beyond_the_bounds_is_no_change(skip_finished):
    flow_map, noise = ErringFlowMap(), normal(4, 2) + 100
    condition = torch.full((4, 1), 5.0, dtype=torch.float64)
    sampler, bound = AdaptiveSampler(0.05, skip_finished), torch.ones(2, dtype=torch.float64)
    free = sampler.sample_with_evaluations(flow_map, noise, condition, 4)
    bounded = sampler.sample_with_evaluations(flow_map, noise, condition, 4, bounds=(-bound, bound))
    assert (free[1] == 7).all() and (bounded[1] == 3).all() and (bounded[0] > 1).all()


@MODES
def test_gradients_pass(skip_finished):
    flow_map = ErringFlowMap()
    condition = torch.tensor([[0.0], [5.0]], dtype=torch.float64, requires_grad=True)
    AdaptiveSampler(0.05, skip_finished)(flow_map, normal(2, 2), condition, 4).sum().backward()
    assert condition.grad.abs().min() > 0 and flow_map.error.grad.abs() > 0


@pytest.mark.parametrize(
    ("skip_finished", "backend"),
    [
        (False, "eager"),
        (True, "eager"),
        pytest.param(False, "inductor", marks=pytest.mark.slow),
    ],
)
def test_compiled_as_one_graph_it_gives_the_same(skip_finished, backend):
    torch.compiler.reset()
    torch.manual_seed(0)
    flow_map = FlowMap(MLPBackbone(action_dim=2, condition_dim=3, hidden_sizes=(16,)))
    noise, condition, bound = torch.randn(64, 2), torch.randn(64, 3), torch.ones(2)
    sampler = AdaptiveSampler(0.1, skip_finished)

    @torch.no_grad()
    def act(noise, condition):
        return sampler.sample_with_evaluations(
            flow_map, noise, condition, 4, bounds=(-bound, bound)
        )

    expected = act(noise, condition)
    assert expected[1].unique().tolist() == [3, 7]
    got = torch.compile(act, backend=backend, fullgraph=True)(noise, condition)
    torch.testing.assert_close(got, expected)
    torch.compiler.reset()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@MODES
def test_captured_in_a_cuda_graph_it_gives_the_same(skip_finished):
    torch.manual_seed(0)
    flow_map = FlowMap(MLPBackbone(action_dim=2, condition_dim=3, hidden_sizes=(16,))).cuda()
    noise = torch.randn(64, 2, device="cuda")
    condition = torch.randn(64, 3, device="cuda")
    sampler = AdaptiveSampler(0.02, skip_finished)

    @torch.no_grad()
    def act():
        return sampler.sample_with_evaluations(flow_map, noise, condition, 8)

    act()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = act()
    noise.normal_()
    graph.replay()
    expected = act()
    assert len(expected[1].unique()) > 1
    torch.testing.assert_close(got, expected)


def test_the_name_gives_the_defaults():
    assert as_sampler("adaptive") == AdaptiveSampler()


@pytest.mark.parametrize("tolerance", [0.0, -0.1, float("inf"), float("nan")])
def test_bad_tolerances(tolerance):
    with pytest.raises(ValueError, match="tolerance must be"):
        AdaptiveSampler(tolerance)
