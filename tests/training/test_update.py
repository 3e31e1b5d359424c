"""One update, the same eagerly, compiled and captured."""

from __future__ import annotations

import math

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import CudaGraphModule
from torch.utils._python_dispatch import TorchDispatchMode
from torchrl.data import Bounded
from torchrl.objectives import SoftUpdate

from tests.objectives.critic_cases import CRITICS, make_critic
from tests.objectives.family_cases import make_member
from tests.objectives.gtp_cases import MODES, make_batch, make_loss
from torchrl_gtp import GTPLoss, TargetUpdate, make_gtp_actor, make_qvalue, paper_options
from torchrl_gtp.objectives import ClippedDoubleQLoss, ConservativeQLoss
from torchrl_gtp.training import Update, constant, cosine, linear, make_optimizer

STEPS = 100


def make_update(loss, **options):
    rates = {name: 0.01 * (i + 1) for i, (_, name, _) in enumerate(targets_of(loss))}
    options.setdefault("num_updates", STEPS)
    options.setdefault("schedules", {"lr": cosine(1.0, 0.1)})
    return Update(loss, make_optimizer(loss, 1e-3), TargetUpdate(loss, rates), **options)


def targets_of(loss):
    return [
        (loss, name.removeprefix("target_").removesuffix("_params"), name)
        for name, _ in loss.named_children()
        if name.startswith("target_")
    ]


def full_update(mode, device="cpu", **options):
    """Every schedule in one run: the doubling curriculum, eta, the flow term and the rate."""
    changes = {"max_weight": 20.0, "eta": 0.0, "semigroup_every": 8}
    loss = make_loss(mode, **{**paper_options(), **changes})
    loss = loss.to(device=device, dtype=torch.float64)
    schedules = {"lr": cosine(1.0, 0.1), "lambda_flow": linear(1.0, 0.5)}
    schedules["lr.actor_network"] = cosine(1.0, 0.2)
    if mode != "bc":
        schedules["eta"] = linear(0.0, 2.0)
    return make_update(loss, schedules=schedules, grad_clip={"actor_network": 5.0}, **options)


def double(data):
    return data.apply(lambda x: x.double() if x.is_floating_point() else x)


def batches_for(update, mode, device="cpu"):
    torch.manual_seed(5)
    data = double(make_batch(64, mode=mode)).to(device)
    for _ in range(STEPS):
        batch = data[torch.randint(64, (16,))]
        batch["loss_noise"] = update.loss_module.draw_noise(batch)
        yield batch


def run(update, mode, call=None, device="cpu"):
    history = [(call or update)(batch).clone() for batch in batches_for(update, mode, device)]
    return torch.stack(history)


def assert_same_run(first, second, histories, atol=1e-10):
    # These count the samples on either side of a threshold, which rounding may cross.
    counts = ("positive_share", "clipped_share")
    histories = [history.exclude(*counts) for history in histories]
    torch.testing.assert_close(*histories, rtol=1e-8, atol=atol)
    assert first.step == second.step == STEPS
    for state, other in zip(
        *(update.loss_module.state_dict().values() for update in (first, second)), strict=True
    ):
        if isinstance(state, torch.Tensor):
            torch.testing.assert_close(state, other, rtol=1e-7, atol=10 * atol)


@pytest.mark.parametrize(
    "mode", ["value", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("bc", "critic"))]
)
def test_compiled_is_eager(mode):
    """Over 100 updates, seven doublings of the grid and all schedules, without a recompilation."""
    eager, traced = full_update(mode), full_update(mode)
    torch.compiler.reset()
    compiled = torch.compile(traced, backend="aot_eager")
    calls = 0

    def call(batch):
        nonlocal calls
        calls += 1
        # The optimiser makes its state in the first call, which is traced again for that.
        with torch.compiler.set_stance("default" if calls < 4 else "fail_on_recompile"):
            return compiled(batch)

    histories = [run(eager, mode), run(traced, mode, call)]
    assert_same_run(eager, traced, histories)
    assert len({loss.item() for loss in histories[0]["loss_flow"]}) == STEPS


@pytest.mark.slow
def test_compiled_by_inductor_is_eager():
    eager, compiled = full_update("critic"), full_update("critic")
    torch.compiler.reset()
    histories = [run(eager, "critic"), run(compiled, "critic", torch.compile(compiled))]
    # Generated code sums in another order, so that values near zero agree in absolute terms only.
    assert_same_run(eager, compiled, histories, atol=1e-8)


@pytest.mark.filterwarnings("ignore:.*CudaGraphModule")
@pytest.mark.parametrize("mode", MODES)
def test_captured_is_eager_on_a_cpu(mode):
    """There is no capture on a CPU: this covers the calling convention."""
    eager, captured = full_update(mode), full_update(mode)
    graph = CudaGraphModule(captured, in_keys=[], out_keys=[], warmup=3)
    assert_same_run(eager, captured, [run(eager, mode), run(captured, mode, graph)])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_captured_goes_on_where_eager_does(mode, compiled):
    """Replays must follow the schedules; the run that is captured only records."""
    eager, captured = full_update(mode, "cuda"), full_update(mode, "cuda")
    call = torch.compile(captured) if compiled else captured
    graph = CudaGraphModule(call, in_keys=[], out_keys=[], warmup=3)
    batches = list(batches_for(eager, mode, "cuda"))
    for batch in batches[:3]:
        graph(batch)
    assert captured.step == 3
    eager.load_state_dict(captured.state_dict())
    eager.loss_module.load_state_dict(captured.loss_module.state_dict())
    for batch in batches[3:]:
        torch.compiler.cudagraph_mark_step_begin()
        got, expected = graph(batch.clone()), eager(batch.clone())
        torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-9)
    assert captured.step == eager.step
    torch.testing.assert_close(captured.loss_module.progress, eager.loss_module.progress)


class NothingRead(TorchDispatchMode):
    """Forbids what would make the host wait, or shapes depend on data."""

    forbidden = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "item", "equal")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.forbidden:
            raise AssertionError(f"{name} reads a tensor")
        if name == "index":
            mask = [i for i in args[1] if i is not None and i.dtype == torch.bool]
            assert not mask, "a boolean index has a shape that depends on data"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_read_from_a_tensor(mode):
    update = full_update(mode, data=double(make_batch(64, mode=mode)), batch_size=8)
    update(TensorDict())  # the optimiser makes its state
    with NothingRead():
        losses = update(TensorDict())
    assert isinstance(losses, TensorDict) and not any(v.requires_grad for v in losses.values())
    with pytest.raises(AssertionError, match="_local_scalar_dense reads"), NothingRead():
        float(losses["loss_flow"])


@pytest.mark.parametrize("name", CRITICS)
def test_critics_can_be_updated_alone(name):
    loss = make_critic(name)
    update = make_update(loss, schedules=None)
    before = {key: value.clone() for key, value in loss.named_parameters()}
    with NothingRead():
        for _ in range(2):
            update(make_batch(8))
    for key, value in loss.named_parameters():
        assert torch.equal(value, before[key]) == key.startswith("actor"), key


def test_tensors_keep_their_addresses():
    """What a captured graph has seen must stay where it is."""
    update = full_update("value", data=double(make_batch(64)), batch_size=8)
    update(TensorDict())

    def addresses():
        state = update.optimizer.state
        return (
            [t.data_ptr() for t in update.loss_module.state_dict().values() if torch.is_tensor(t)],
            [group["lr"].data_ptr() for group in update.optimizer.param_groups],
            [t.data_ptr() for values in state.values() for t in values.values()],
            [rate.data_ptr() for rate in update.target_update.tau.values()],
            update.step.data_ptr(),
        )

    before = addresses()
    update(TensorDict())
    update.loss_module.load_state_dict(update.loss_module.state_dict())
    assert addresses() == before


def test_schedules_follow_the_progress():
    update = make_update(
        make_loss("critic"),
        num_updates=4,
        schedules={"lr": cosine(1.0, 0.5), "eta": linear(0.0, 2.0), "max_weight": constant(3.0)},
    )
    seen = []
    for _ in range(4):
        update(make_batch())
        loss, (group, *_) = update.loss_module, update.optimizer.param_groups
        seen.append([x.item() for x in (loss.progress, loss.eta, loss.max_weight, group["lr"])])
    expected = [
        [p, 2 * p, 3.0, 1e-3 * (0.5 + 0.25 * (1 + math.cos(math.pi * p)))]
        for p in (0.0, 0.25, 0.5, 0.75)
    ]
    torch.testing.assert_close(torch.tensor(seen), torch.tensor(expected))


def test_schedules_stay_at_their_end():
    update = make_update(make_loss("bc"), num_updates=2, schedules={"lr": linear(1.0, 0.0)})
    for _ in range(4):
        update(make_batch(mode="bc"))
    assert update.loss_module.progress == 1.0
    assert update.optimizer.param_groups[0]["lr"] == 0.0


def test_schedules_of_a_critic_inside_the_loss():
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)))
    loss = GTPLoss(actor, critic=ConservativeQLoss(actor, make_qvalue(3, 2)))
    update = Update(
        loss,
        make_optimizer(loss),
        TargetUpdate(loss, 0.01),
        num_updates=2,
        schedules={"critic.conservative_weight": linear(4.0, 0.0)},
    )
    for _ in range(2):
        update(make_batch())
    assert loss.critic.conservative_weight == 2.0


@pytest.mark.slow
def test_compiled_with_rows_of_a_dataset_and_a_critic_inside():
    """As compiled = eager above, but with rows gathered inside and a critic object."""
    updates = []
    for _ in range(2):
        torch.manual_seed(0)
        actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), hidden_sizes=(16,), num_steps=2)
        critic = ConservativeQLoss(actor, make_qvalue(3, 2, hidden_sizes=(16,)))
        loss = GTPLoss(actor, critic=critic).double()
        options = {"data": double(make_batch(64)), "batch_size": 8, "num_updates": 20}
        target_update = TargetUpdate(loss, 0.01)
        updates.append(Update(loss, make_optimizer(loss), target_update, **options))
    eager, traced = updates
    torch.compiler.reset()
    compiled = torch.compile(traced, backend="aot_eager")
    for _ in range(20):
        index = torch.randint(64, (8,))
        noise = eager.loss_module.draw_noise(eager.data[index])
        batch = TensorDict({"index": index, "loss_noise": noise})
        torch.testing.assert_close(compiled(batch.clone()), eager(batch), rtol=1e-8, atol=1e-10)


def test_rows_of_a_dataset():
    data = make_batch(64, mode="bc")
    first, second = (
        make_update(make_loss("bc"), data=d, batch_size=b) for d, b in ((data, 8), (None, None))
    )
    index = torch.randint(64, (8,))
    noise = first.loss_module.draw_noise(data[index])
    got = first(TensorDict({"index": index, "loss_noise": noise}))
    expected = second(data[index].set("loss_noise", noise))
    torch.testing.assert_close(got, expected)
    assert (data == make_batch(64, mode="bc")).all()  # nothing is written into the dataset
    torch.manual_seed(0)
    drawn = first(TensorDict())["loss_flow"]
    torch.manual_seed(1)
    assert drawn != first(TensorDict())["loss_flow"]


def test_gradients_are_clipped_network_by_network():
    update = make_update(make_loss("critic"), grad_clip=1e-3)
    update(make_batch())
    for group in update.optimizer.param_groups:
        norm = torch.stack([p.grad.norm() for p in group["params"]]).norm()
        torch.testing.assert_close(norm, torch.tensor(1e-3), rtol=1e-2, atol=0)


def test_clips_and_rates_of_single_networks():
    schedules = {"lr": constant(0.5), "lr.qvalue_network": constant(0.1)}
    update = make_update(make_loss("value"), grad_clip={"actor_network": 1e-3}, schedules=schedules)
    update(make_batch())
    groups = {group["name"]: group for group in update.optimizer.param_groups}
    norms = {
        name: torch.stack([p.grad.norm() for p in group["params"]]).norm().item()
        for name, group in groups.items()
    }
    assert norms["actor_network"] == pytest.approx(1e-3, rel=1e-2)
    assert min(norms["qvalue_network"], norms["value_network"]) > 1e-2
    factors = {n: group["lr"].item() / group["initial_lr"] for n, group in groups.items()}
    expected = {"actor_network": 0.5, "qvalue_network": 0.1, "value_network": 0.5}
    assert factors == pytest.approx(expected)


def test_state_dict_goes_on_as_if_nothing_happened():
    update, other = full_update("value"), full_update("value")
    batches = list(batches_for(update, "value"))
    for batch in batches[:5]:
        update(batch.clone())
    other(batches[7].clone())
    other.load_state_dict(update.state_dict())
    for batch in batches[5:8]:
        torch.testing.assert_close(update(batch.clone()), other(batch.clone()), rtol=0, atol=0)
    assert update.step == other.step == 8


def test_any_target_updater_will_do():
    loss = make_loss("critic")
    update = Update(
        loss, torch.optim.SGD(loss.parameters(), 0.1), SoftUpdate(loss, tau=0.1), num_updates=2
    )
    update(make_batch())
    assert update.state_dict()["target_update"]["initialized"]
    without = make_loss("bc", delay_actor=False)
    assert Update(without, make_optimizer(without), num_updates=1).state_dict()["step"] == 0


def test_rates_of_single_networks():
    loss = make_loss("value")
    names = [group["name"] for group in make_optimizer(loss).param_groups]
    assert names == ["actor_network", "qvalue_network", "value_network"]
    rates = {"actor_network": 1.0, "qvalue_network": 2.0, "value_network": 3.0}
    optimizer = make_optimizer(loss, rates, betas=(0.5, 0.9))
    assert [group["lr"].item() for group in optimizer.param_groups] == [1.0, 2.0, 3.0]
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.9)
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)))
    nested = GTPLoss(actor, critic=ClippedDoubleQLoss(actor, make_qvalue(3, 2)))
    optimizer = make_optimizer(nested, {"actor_network": 1.0, "qvalue_network": 2.0})
    rates = {group["name"]: group["lr"].item() for group in optimizer.param_groups}
    assert rates == {"actor_network": 1.0, "critic.qvalue_network": 2.0}


def test_distillation_trains_the_actor_alone():
    """The frozen denoiser has no group of the optimiser, and no rate is asked for it."""
    loss = make_member("consistency_distillation", "critic")
    optimizer = make_optimizer(loss, {"actor_network": 3e-4, "qvalue_network": 1e-3})
    assert [group["name"] for group in optimizer.param_groups] == [
        "actor_network",
        "qvalue_network",
    ]
    update = Update(loss, optimizer, TargetUpdate(loss, 0.1), num_updates=3, grad_clip=1.0)
    before = {name: value.clone() for name, value in loss.named_parameters()}
    for _ in range(3):
        assert all(value.isfinite() for value in update(make_batch()).values())
    for name, value in loss.named_parameters():
        assert torch.equal(value, before[name]) == name.startswith("denoiser"), name


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("mode", "key"),
    [
        ("bc", "action"),
        ("critic", "observation"),
        ("critic", ("next", "observation")),
        ("value", ("next", "reward")),
    ],
)
def test_a_dataset_that_is_not_finite_is_refused(mode, key, value):
    data = make_batch(64, mode=mode)
    data[key][5] = value
    with pytest.raises(ValueError, match="but .* is not in 1 of 64 rows, the first at 5"):
        make_update(make_loss(mode), data=data, batch_size=8)


def test_what_no_loss_reads_of_a_dataset_need_not_be_finite():
    data = make_batch(64)
    nan = float("nan")
    data["unread"] = torch.full((64,), nan)
    data["next", "terminated"][:3], data["next", "done"][:3] = True, True
    data["next", "observation"][:3] = nan  # a placeholder beyond a true end
    data["shifted_valid"] = torch.arange(64) % 2 == 0
    for key in ("observation", "action", ("next", "reward"), ("next", "observation")):
        data[key][1::2] = nan
    update = make_update(make_loss(), data=data, batch_size=32)
    for _ in range(3):
        assert all(value.isfinite() for value in update(TensorDict()).values())
    assert all(parameter.isfinite().all() for parameter in update.loss_module.parameters())


def test_padded_actions_of_a_dataset_need_not_be_finite():
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), chunk_length=4, hidden_sizes=(16,))
    loss = GTPLoss(actor)
    loss.set_keys(pad_mask="action_is_pad")
    padded = torch.arange(4).expand(20, 4) >= 1 + torch.arange(20)[:, None] % 5
    action = torch.rand(20, 4, 2).masked_fill(padded[..., None], float("nan"))
    data = TensorDict(
        {"observation": torch.randn(20, 3), "action": action, "action_is_pad": padded}, [20]
    )
    update = make_update(loss, data=data, batch_size=8)
    assert all(value.isfinite() for value in update(TensorDict()).values())
    data["action"][3] = float("nan")
    with pytest.raises(ValueError, match="'action' is not in 1 of 20 rows, the first at 3"):
        make_update(loss, data=data, batch_size=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_updates": 0}, "num_updates must be at least 1"),
        ({"grad_clip": 0.0}, "grad_clip must be positive"),
        ({"grad_clip": {"actor_network": -1.0}}, "grad_clip must be positive"),
        ({"grad_clip": {"actor": 1.0}}, "grad_clip names the networks .'actor'.*'actor_network'"),
        ({"schedules": {"lr.actor": constant(1.0)}}, "schedules names the networks .'actor'"),
        ({"schedules": {"progress": constant(1.0)}}, "schedules names .'progress'"),
        ({"schedules": {"beta": constant(1.0)}}, "schedules names .'beta'.*'eta'.*'lr'"),
        ({"batch_size": 4}, "belong together"),
        ({"data": make_batch(4, 2), "batch_size": 4}, "one batch dimension"),
        ({"data": make_batch(4)[:0], "batch_size": 4}, "at least one row"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_update(make_loss("critic"), **options)


def test_a_scheduled_rate_must_be_a_tensor():
    loss = make_loss("bc")
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
    with pytest.raises(ValueError, match="must be a tensor, got 0.001"):
        Update(loss, optimizer, num_updates=1, schedules={"lr": cosine(1.0)})
    with pytest.raises(ValueError, match=r"each of the networks \['actor_network'\], got \['q'\]"):
        make_optimizer(loss, {"q": 1.0})
