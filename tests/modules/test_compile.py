"""The sampler compiled and captured: one compilation for each K, and no K that is ignored."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import CudaGraphModule
from torch._dynamo.testing import CompileCounter
from torchrl.data import Bounded
from torchrl.envs.utils import ExplorationType, set_exploration_type

from torchrl_gtp import CapturedPolicy, WarmStartActor, make_gtp_actor
from torchrl_gtp.modules import actor as actor_module

pytestmark = [
    pytest.mark.filterwarnings("ignore:This module is instantiated on a machine without CUDA"),
    pytest.mark.filterwarnings("ignore:Tensordict is registered in PyTree"),
]


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture(params=[None, 3])
def actor(request):
    torch.manual_seed(0)
    return make_gtp_actor(
        3, Bounded(-1, 1, (2,)), chunk_length=request.param, num_steps=2, hidden_sizes=(16,)
    )


def make_input(actor, *batch, device=None):
    td = TensorDict({"observation": torch.randn(*batch, 3)}, batch_size=batch)
    return td.set("noise", torch.randn(*batch, *actor.event_shape)).to(device)


def test_each_number_of_jumps_compiles_once(actor):
    counter, td = CompileCounter(), make_input(actor, 4)
    policy = torch.compile(actor, backend=counter, fullgraph=True)
    for num_steps, compilations in ((2, 1), (5, 2), (2, 2), (1, 3), (5, 3), (1, 3)):
        actor.num_steps = num_steps
        expected = actor(td.clone())["action"]
        torch.testing.assert_close(policy(td.clone())["action"], expected)
        assert counter.frame_count == compilations


def test_number_of_jumps_of_one_call_compiles_once(actor):
    counter, td = CompileCounter(), make_input(actor, 4)
    policy = torch.compile(actor, backend=counter, fullgraph=True)
    for num_steps, compilations in ((2, 1), (5, 2), (3, 3), (2, 3), (3, 3), (5, 3)):
        expected = actor(td.clone(), num_steps=num_steps)["action"]
        torch.testing.assert_close(policy(td.clone(), num_steps=num_steps)["action"], expected)
        assert counter.frame_count <= compilations
    assert actor.num_steps == 2


def test_level_of_a_warm_start_is_no_constant(actor):
    counter, td = CompileCounter(), make_input(actor, 4)
    start = torch.rand(4, *actor.event_shape)
    sample = torch.compile(actor.sample, backend=counter, fullgraph=True)
    for level in (0.5, 1.0, 0.0, 20.0):
        for shape in ((), (4, 1)):
            options = {"start": start, "start_level": torch.full(shape, level)}
            expected = actor.sample(td["observation"], td["noise"], **options)
            action = sample(td["observation"], td["noise"], **options)
            torch.testing.assert_close(action, expected)
    assert counter.frame_count == 2  # one for each shape


def test_compiled_draws_differ_and_follow_the_exploration_type(actor):
    td = make_input(actor, 4).exclude("noise")
    policy = torch.compile(actor, backend="eager", fullgraph=True)
    assert not torch.equal(policy(td.clone())["action"], policy(td.clone())["action"])
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert torch.equal(policy(td.clone())["action"], actor(td.clone())["action"])


def test_warm_start_policy_compiles_once_after_the_first_step(actor):
    """The first step has no action before, which is another structure of the input."""
    counter, td = CompileCounter(), make_input(actor, 4)
    policy = WarmStartActor(actor, 0.5)
    compiled = torch.compile(policy, backend=counter, fullgraph=True)
    td["is_init"] = torch.ones(4, 1, dtype=torch.bool)
    expected = td.clone()
    for step in range(4):
        torch.testing.assert_close(compiled(td)["action"], policy(expected)["action"])
        td["is_init"] = expected["is_init"] = torch.tensor([[step == 1]]).expand(4, 1).clone()
        policy.start_level.fill_(0.1 * step)
        assert counter.frame_count == min(step + 1, 2)


@pytest.mark.slow
def test_inductor(actor):
    td = make_input(actor, 4)
    policy = torch.compile(actor, fullgraph=True)
    for num_steps in (2, 3, 2):
        actor.num_steps = num_steps
        expected = actor(td.clone())["action"]
        torch.testing.assert_close(policy(td.clone())["action"], expected, rtol=1e-4, atol=1e-5)


def test_number_of_jumps_is_fixed_by_a_capture(actor, monkeypatch):
    """A capture records one K; a change that the graph would ignore is an error."""
    td = make_input(actor, 4)
    actor(td)
    actor.num_steps = 3
    with monkeypatch.context() as patch:
        patch.setattr(actor_module, "is_capturing", lambda device: True)
        actor(td, num_steps=1)  # an argument does not freeze the attribute
        actor.num_steps = 2
        actor(td)
    with pytest.raises(RuntimeError, match="num_steps=4 would have no effect.*num_steps=2"):
        actor.num_steps = 4
    actor.num_steps = 2
    assert actor(td, num_steps=4)["action"].shape == td["noise"].shape
    for clone in (copy.deepcopy(actor), pickle.loads(pickle.dumps(actor))):
        clone.num_steps = 4
        assert clone.num_steps == 4


def test_sampler_is_fixed_by_a_capture(actor, monkeypatch):
    td = make_input(actor, 4)
    actor.sampler = "heun"
    with monkeypatch.context() as patch:
        patch.setattr(actor_module, "is_capturing", lambda device: True)
        actor(td)
    actor.sampler = "heun"
    with pytest.raises(RuntimeError, match="sampler=.*would have no effect.*CapturedPolicy"):
        actor.sampler = "euler"
    clone = copy.deepcopy(actor)
    clone.sampler = "euler"
    assert clone.num_evaluations == clone.num_steps


@pytest.mark.skipif(torch.cuda.is_available(), reason="passes through without CUDA only")
def test_graph_module_passes_through(actor):
    td = make_input(actor, 4)
    expected = actor(td.clone())["action"]
    assert torch.equal(CudaGraphModule(actor)(td.clone())["action"], expected)


@pytest.mark.parametrize("compiled", [False, True])
def test_captured_policy_follows_the_number_of_jumps(actor, compiled, monkeypatch):
    if compiled:
        compile = torch.compile
        monkeypatch.setattr(torch, "compile", lambda f, **kw: compile(f, backend="eager", **kw))
    policy, td = CapturedPolicy(actor, compile=compiled), make_input(actor, 4)
    for num_steps, graphs in ((2, 1), (5, 2), (2, 2)):
        actor.num_steps = num_steps
        expected = actor(td.clone())["action"]
        torch.testing.assert_close(policy(td.clone())["action"], expected)
        assert policy.num_graphs == graphs
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        expected = actor(td.exclude("noise"))["action"]
        torch.testing.assert_close(policy(td.exclude("noise"))["action"], expected)
    assert policy.num_graphs == 3
    assert policy(make_input(actor, 7))["action"].shape[0] == 7  # another shape, another graph
    assert policy.num_graphs == 4
    policy.clear()
    assert policy.num_graphs == 0


def test_captured_policy_keeps_other_entries_and_copies(actor):
    policy, td = CapturedPolicy(actor), make_input(actor, 4)
    td["other"] = torch.ones(4)
    out = policy(td)
    assert out is td and set(td.keys()) == {"observation", "noise", "other", "action"}
    for clone in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert clone.num_graphs == 0
        torch.testing.assert_close(clone(td.exclude("action"))["action"], td["action"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_capture_notices_a_change(actor):
    actor = actor.to("cuda")
    policy, td = CudaGraphModule(actor, warmup=2), make_input(actor, 4, device="cuda")
    for _ in range(4):
        with torch.no_grad():
            action = policy(td.exclude("noise"))["action"]
    assert action.isfinite().all()
    with pytest.raises(RuntimeError, match="would have no effect"):
        actor.num_steps = 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
def test_captured_policy_on_a_gpu(actor, compiled):
    actor = actor.to("cuda").requires_grad_(False)
    policy = CapturedPolicy(actor, compile=compiled)
    for num_steps in (2, 3):
        actor.num_steps = num_steps
        for _ in range(4):  # warm-up, capture, replays
            td = make_input(actor, 4, device="cuda")
            expected = actor(td.clone())["action"]
            action = policy(td)["action"]
            torch.testing.assert_close(action, expected, rtol=1e-4, atol=1e-5)
    assert policy.num_graphs == 2
