"""Draws by advantage weight: no bias, and the life of a replay buffer."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import (
    LazyMemmapStorage,
    LazyTensorStorage,
    ReplayBuffer,
    TensorDictReplayBuffer,
)

from torchrl_gtp.data import AdvantageWeightedSampler, load_minari

WEIGHTS = torch.tensor([0.5, 0.0, 1.0, 8.0, 2.5, 100.0, 0.03], dtype=torch.float64)


def make_data(num, start=0):
    return TensorDict({"x": torch.arange(start, start + num)}, [num])


def make_buffer(num=7, capacity=20, **options):
    batch_size = options.pop("batch_size", 64)
    prefetch = options.pop("prefetch", None)
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(capacity),
        sampler=AdvantageWeightedSampler(**options),
        batch_size=batch_size,
        prefetch=prefetch,
        generator=torch.Generator().manual_seed(0),
    )
    if num:
        buffer.extend(make_data(num))
    return buffer


def factors(buffer, key):
    """What the sampler emits for each transition; NaN for those it never drew."""
    batch = buffer.sample()
    values = torch.full((len(buffer),), torch.nan, dtype=torch.float64)
    values[batch["index"]] = batch[key].double()
    return values


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_expectation_is_the_weighted_mean(alpha):
    """sum_i p_i c_i l_i = mean_i w_i l_i, an exact sum with the factors that are emitted."""
    weights = WEIGHTS.clone()
    weights[6] = 0.3  # else it would hardly be drawn
    buffer = make_buffer(alpha=alpha, batch_size=20_000)
    buffer.update_priority(torch.arange(7), weights)
    losses = torch.linspace(-1, 2, 7, dtype=torch.float64)
    p = weights**alpha / (weights**alpha).sum()
    c = factors(buffer, "remaining_weight")
    assert torch.equal(c.isnan(), p == 0)
    mean = (p * c * losses)[p > 0].sum()
    torch.testing.assert_close(mean, (weights * losses).mean(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_sampling_weight_takes_any_weights(alpha):
    """sum_i p_i r_i v_i l_i = mean_i v_i l_i for fresh weights v, though w is old."""
    weights = WEIGHTS.clone()
    weights[1] = 0.2
    buffer = make_buffer(alpha=alpha, batch_size=50_000)
    buffer.update_priority(torch.arange(7), weights)
    fresh, losses = torch.rand(7, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    p = weights**alpha / (weights**alpha).sum()
    r = factors(buffer, "sampling_weight")
    mean = (p * r * fresh * losses).sum()
    torch.testing.assert_close(mean, (fresh * losses).mean(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_mean_of_draws(alpha):
    """A batch mean of c_i l_i lies within 4 standard errors of mean_i w_i l_i."""
    buffer = make_buffer(alpha=alpha, batch_size=40_000)
    buffer.update_priority(torch.arange(7), WEIGHTS)
    losses = torch.linspace(-1, 2, 7)
    batch = buffer.sample()
    terms = batch["remaining_weight"] * losses[batch["index"]]
    error = terms.std() / len(terms) ** 0.5
    assert (terms.mean() - (WEIGHTS * losses).mean()).abs() < 4 * error
    share = torch.bincount(batch["index"], minlength=7) / len(terms)
    expected = WEIGHTS**alpha / (WEIGHTS**alpha).sum()
    torch.testing.assert_close(share.double(), expected, atol=0.011, rtol=0)


def test_alpha_moves_the_weight_between_draws_and_loss():
    buffer = make_buffer(alpha=1.0)
    buffer.update_priority(torch.arange(7), WEIGHTS)
    batch = buffer.sample()
    torch.testing.assert_close(
        batch["remaining_weight"], WEIGHTS.mean().float().expand(64), rtol=1e-5, atol=0
    )
    buffer.sampler.alpha = 0.0
    batch = buffer.sample()
    torch.testing.assert_close(batch["remaining_weight"], WEIGHTS[batch["index"]].float())
    assert (batch["sampling_weight"] == 1).all()


def test_new_and_overwritten_transitions_have_the_default_weight():
    buffer = make_buffer(4, capacity=6, default_weight=2.0)
    sampler = buffer.sampler
    buffer.update_priority(torch.arange(4), torch.tensor([5.0, 6.0, 7.0, 8.0]))
    buffer.extend(make_data(3, 4))  # positions 4, 5 and, overwritten, 0
    buffer.sample()
    assert sampler.weights.tolist() == [2, 6, 7, 8, 2, 2]
    buffer.add(make_data(1, 7)[0])  # position 1
    buffer.sample()
    assert sampler.weights.tolist() == [2, 2, 7, 8, 2, 2]
    buffer.extend(make_data(2, 8))
    buffer.update_priority(torch.tensor([2]), 9.0)  # right after the write, before a draw
    assert sampler.weights.tolist() == [2, 2, 9, 2, 2, 2]


def test_growth_keeps_the_weights():
    buffer = make_buffer(1, capacity=1000)
    buffer.update_priority(torch.tensor([0]), 7.0)
    for start in range(1, 500, 7):
        buffer.extend(make_data(7, start))
        buffer.sample()
    weights = buffer.sampler.weights
    assert len(weights) == len(buffer) and weights[0] == 7 and (weights[1:] == 1).all()


def test_weight_of_incoming_data():
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(10),
        sampler=AdvantageWeightedSampler(),
        priority_key="weight",
        batch_size=8,
    )
    data = make_data(3).set("weight", torch.tensor([0.0, 3.0, 0.0]).unsqueeze(-1))
    buffer.extend(data)
    assert (buffer.sample()["index"] == 1).all()


def test_emptied_buffer_starts_anew():
    buffer = make_buffer()
    buffer.update_priority(torch.arange(7), WEIGHTS)
    buffer.empty()
    with pytest.raises(RuntimeError, match="empty"):
        buffer.sample()
    buffer.extend(make_data(3))
    buffer.sample()
    assert buffer.sampler.weights.tolist() == [1, 1, 1]


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_update_from_a_loss(alpha):
    """One number for each row of a batch; the last of equal indices counts."""
    buffer = make_buffer(alpha=alpha)
    batch = buffer.sample()
    weight = torch.rand(64, 1, requires_grad=True)
    buffer.update_priority(batch["index"], weight)
    expected = torch.ones(7, dtype=torch.float64)
    for i, value in zip(batch["index"].tolist(), weight.flatten().tolist(), strict=True):
        expected[i] = value
    torch.testing.assert_close(buffer.sampler.weights, expected)
    buffer.sampler.update_weight(torch.tensor([3]), 0.25)
    assert buffer.sampler.weights[3] == 0.25
    buffer.mark_update(torch.tensor([3]))
    assert buffer.sampler.weights[3] == 1


@pytest.mark.parametrize("storage", [LazyTensorStorage, LazyMemmapStorage])
def test_storage_of_two_dimensions(storage):
    """Two environments: TorchRL stores [time, environment]."""
    buffer = TensorDictReplayBuffer(
        storage=storage(12, ndim=2), sampler=AdvantageWeightedSampler(alpha=0.5), batch_size=32
    )
    buffer.extend(TensorDict({"x": torch.arange(8).view(2, 4)}, [2, 4]))
    batch = buffer.sample()
    assert batch["index"].shape == (32, 2)
    everywhere = torch.cartesian_prod(torch.arange(4), torch.arange(2))
    weights = torch.arange(8.0)
    buffer.update_priority(everywhere, weights)
    batch = buffer.sample()
    row = 2 * batch["index"][:, 0] + batch["index"][:, 1]
    assert (row > 0).all()  # the transition of weight 0 is not drawn
    share = weights.sqrt().sum() / 8
    torch.testing.assert_close(batch["remaining_weight"], weights[row].sqrt() * share)
    for bad in ([0, 2], [-1, 0], [4, 0]):
        with pytest.raises(IndexError, match="indices must lie in the storage|out of range"):
            buffer.update_priority(torch.tensor([bad]), 1.0)
    # Two more times and, around the end of the ring, the first two again.
    buffer.extend(TensorDict({"x": torch.arange(8, 16).view(2, 4)}, [2, 4]))
    buffer.sample()
    assert buffer.sampler.weights.tolist() == [1, 1, 1, 1, 4, 5, 6, 7, 1, 1, 1, 1]


@pytest.mark.parametrize("way", ["state_dict", "dumps", "sampler_dumps", "pickle", "deepcopy"])
def test_checkpoints_and_copies(way, tmp_path):
    buffer = make_buffer(alpha=0.5)
    buffer.update_priority(torch.arange(7), WEIGHTS)
    if way == "deepcopy":
        sampler = copy.deepcopy(buffer.sampler)
    elif way == "pickle":
        sampler = pickle.loads(pickle.dumps(buffer.sampler))
    else:
        other = make_buffer(0 if way != "sampler_dumps" else 7, alpha=1.0)
        if way == "state_dict":
            state = buffer.state_dict()
            other.load_state_dict(state)
        elif way == "dumps":
            buffer.dumps(tmp_path)
            other.loads(tmp_path)
        else:
            buffer.sampler.dumps(tmp_path / "sampler")
            other.sampler.loads(tmp_path / "sampler")
        sampler = other.sampler
    assert torch.equal(sampler.weights, WEIGHTS) and sampler.alpha == 0.5
    one, two = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    buffer.sampler._rng, sampler._rng = one, two
    index, info = buffer.sampler.sample(buffer.storage, 50)
    same, same_info = sampler.sample(buffer.storage, 50)
    assert torch.equal(index, same)
    assert torch.equal(info["remaining_weight"], same_info["remaining_weight"])
    sampler.update_weight(torch.tensor([0]), 77.0)
    assert buffer.sampler.weights[0] == WEIGHTS[0]  # nothing is shared


def test_generator_of_the_buffer_is_used():
    draws = [make_buffer().sample()["index"] for _ in range(2)]
    assert torch.equal(*draws)
    buffer = make_buffer()
    buffer.set_rng(torch.Generator().manual_seed(5))
    assert not torch.equal(buffer.sample()["index"], draws[0])


def test_prefetch_and_threads():
    """Draws and updates at once leave a consistent tree."""
    buffer = make_buffer(500, capacity=500, alpha=0.5, prefetch=3)
    errors = []

    def update():
        try:
            for step in range(60):
                index = torch.randint(500, (32,))
                buffer.update_priority(index, torch.rand(32) + step)
        except Exception as err:
            errors.append(err)

    def draw():
        try:
            for _ in range(60):
                batch = buffer.sample()
                assert batch["remaining_weight"].isfinite().all()
        except Exception as err:
            errors.append(err)

    threads = [threading.Thread(target=target) for target in (update, update, draw)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    # The factors of one more batch fit the weights: no update was lost in the tree.
    weights = buffer.sampler.weights
    index, info = buffer.sampler.sample(buffer.storage, 1000)
    importance = (weights**0.5).sum() / 500 / weights[index] ** 0.5
    torch.testing.assert_close(info["sampling_weight"], importance.float())


def test_plain_buffer_gives_the_factors_as_info():
    buffer = ReplayBuffer(
        storage=LazyTensorStorage(5),
        sampler=AdvantageWeightedSampler(remaining_weight_key="w", sampling_weight_key="r"),
        batch_size=4,
    )
    buffer.extend(make_data(5))
    _, info = buffer.sample(return_info=True)
    assert info["w"].shape == info["r"].shape == (4,)


def test_read_only_dataset(make_dataset):
    make_dataset()
    buffer = load_minari(
        "test/small-v0", batch_size=100, sampler=AdvantageWeightedSampler(alpha=0.5)
    )
    weights = torch.zeros(len(buffer))
    weights[[2, 5]] = torch.tensor([1.0, 4.0])
    buffer.update_priority(torch.arange(len(buffer)), weights)
    batch = buffer.sample()
    assert set(batch["index"].tolist()) == {2, 5}
    factor = dict(zip(batch["index"].tolist(), batch["remaining_weight"].tolist(), strict=True))
    total = 1 + 2
    assert factor[2] == pytest.approx(total / len(buffer))
    assert factor[5] == pytest.approx(2 * total / len(buffer))


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_bad_weights(weight):
    buffer = make_buffer()
    before = buffer.sampler.weights
    with pytest.raises(ValueError, match="weights must be finite and at least 0, got"):
        buffer.update_priority(torch.tensor([0, 1]), torch.tensor([1.0, weight]))
    assert torch.equal(buffer.sampler.weights, before)


@pytest.mark.parametrize("index", [7, -2, 1000])
def test_index_out_of_range(index):
    buffer = make_buffer()
    with pytest.raises(IndexError, match=f"index {index} is out of range.*7 transitions"):
        buffer.update_priority(torch.tensor([0, index]), torch.tensor([5.0, 1.0]))
    assert buffer.sampler.weights.tolist() == [1] * 7
    buffer.update_priority(torch.tensor([-1, 2]), torch.tensor([5.0, 3.0]))  # -1: not stored
    assert buffer.sampler.weights.tolist() == [1, 1, 3, 1, 1, 1, 1]


def test_other_errors():
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="alpha is the share"):
            AdvantageWeightedSampler(alpha)
        with pytest.raises(ValueError, match="alpha is the share"):
            make_buffer().sampler.alpha = alpha
    with pytest.raises(ValueError, match="default_weight must be finite and positive"):
        AdvantageWeightedSampler(default_weight=0.0)
    with pytest.raises(RuntimeError, match="replay buffer is empty|empty"):
        make_buffer(0).sample()
    buffer = make_buffer()
    with pytest.raises(ValueError, match=r"one for each of the 2 indices, got the shape \(3,\)"):
        buffer.update_priority(torch.tensor([0, 1]), torch.ones(3))
    buffer.update_priority(torch.arange(7), 0.0)
    with pytest.raises(RuntimeError, match="All 7 weights are 0"):
        buffer.sample()
    buffer.sampler.alpha = 0.0  # uniform draws need no positive weight
    assert (buffer.sample()["remaining_weight"] == 0).all()
