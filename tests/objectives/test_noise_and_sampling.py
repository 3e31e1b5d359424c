"""Random numbers that come with the batch, and draws that are not uniform."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded, LazyTensorStorage, TensorDictReplayBuffer

from tests.objectives.critic_cases import CRITICS, make_critic
from tests.objectives.gtp_cases import MODES, SIZES, make_batch, make_loss
from torchrl_gtp import GTPLoss, TargetUpdate, make_gtp_actor, make_qvalue
from torchrl_gtp.data import AdvantageWeightedSampler
from torchrl_gtp.objectives import TruncatedQuantileLoss

LOSSES = {
    **{mode: lambda mode=mode, **options: make_loss(mode, **options) for mode in MODES},
    **{name: lambda name=name, **options: make_critic(name, **options) for name in CRITICS},
    "nested critic": lambda **options: make_nested(**options),
}


def make_nested(**options):
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), num_steps=2, **SIZES)
    qvalue = make_qvalue(3, 2, num_quantiles=5, **SIZES)
    return GTPLoss(actor, critic=TruncatedQuantileLoss(actor, qvalue, **options), **options)


def make(name, **options):
    torch.manual_seed(0)
    loss = LOSSES[name](**options)
    if name != "bc":
        TargetUpdate(loss, 0.005)
    return loss


def compare_no_row_with_two_jumps(loss: GTPLoss) -> None:
    """Otherwise it depends on the other rows which of them these are."""
    terms = loss.objective.terms
    consistency = dataclasses.replace(terms["consistency"], semigroup_every=None)
    terms = {**terms, "consistency": consistency}
    loss.objective = dataclasses.replace(loss.objective, terms=terms)


def batch_for(name, size=8):
    return make_batch(size, mode="bc" if name == "bc" else "critic")


@pytest.mark.filterwarnings("ignore:No target network updater")
@pytest.mark.parametrize("name", LOSSES)
def test_with_its_noise_in_the_batch_a_loss_draws_nothing(name):
    loss, td = make(name), batch_for(name)
    td["loss_noise"] = loss.draw_noise(td)
    state = torch.get_rng_state()
    first = loss(td.clone())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    torch.testing.assert_close(loss(td.clone()).detach(), first.detach(), rtol=0, atol=0)
    td["loss_noise"] = loss.draw_noise(td)
    assert loss.draw_noise(td).batch_size == td.batch_size
    if name != "double_q-value":  # whose losses draw nothing
        assert any(loss(td.clone())[key] != first[key] for key in first.keys())


@pytest.mark.filterwarnings("ignore:No target network updater")
@pytest.mark.parametrize("name", LOSSES)
def test_a_row_keeps_its_loss_in_another_batch(name):
    """Noise belongs to a row, so that a batch may be split over processes or reordered."""
    loss, td = make(name, reduction="none"), batch_for(name)
    if name not in CRITICS:
        # No advantages: their standard deviation is that of the batch.
        loss.eta = 0.0
        compare_no_row_with_two_jumps(loss)
    td["loss_noise"] = loss.draw_noise(td)
    whole, half = loss(td.clone()), loss(td[3:6].clone())
    for key in (key for key in whole.keys() if key.startswith("loss_")):
        torch.testing.assert_close(half[key], whole[key][3:6])


def test_a_row_of_two_jumps_keeps_its_loss_in_a_part_of_the_batch():
    loss, td = make("bc", reduction="none", semigroup_every=4), batch_for("bc", 16)
    td["loss_noise"] = loss.draw_noise(td)
    whole, part = loss(td.clone()), loss(td[4:12].clone())
    compare_no_row_with_two_jumps(loss)
    neighbours = loss(td.clone())["loss_consistency"]
    torch.testing.assert_close(part["loss_consistency"], whole["loss_consistency"][4:12])
    changed = neighbours != whole["loss_consistency"]
    assert changed.unflatten(0, (4, 4)).sum(-1).tolist() == [1, 1, 1, 1]


def test_noise_that_does_not_fit():
    loss, td = make("critic"), make_batch()
    td["loss_noise"] = make("bc").draw_noise(td)
    with pytest.raises(ValueError, match=r"must hold 'backup' of shape \(8, 1, 2\), got None"):
        loss(td)
    td["loss_noise"] = loss.draw_noise(td)
    td["loss_noise", "flow_time"] = torch.rand(8, 3)
    with pytest.raises(ValueError, match=r"'flow_time' of shape \(8, 1\), got \(8, 3\)"):
        loss(td)


@pytest.mark.filterwarnings("ignore:No target network updater")
@pytest.mark.parametrize("name", LOSSES)
def test_weights_of_uneven_draws_give_the_losses_of_even_ones(name):
    """Row 0 drawn twice as often as rows 1 and 2: in a batch of exact shares all is equal."""
    loss, even = make(name), batch_for(name, 3)
    if name not in CRITICS:
        compare_no_row_with_two_jumps(loss)
    even["loss_noise"] = loss.draw_noise(even)
    uneven = even[torch.tensor([0, 0, 1, 2])].clone()
    probability = torch.tensor([0.5, 0.5, 0.25, 0.25])
    uneven["sampling_weight"] = 1 / (3 * probability)
    expected, got = loss(even), loss(uneven)
    for key in (key for key in expected.keys() if key.startswith("loss_")):
        torch.testing.assert_close(got[key], expected[key])


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_expectation_under_the_sampler_is_the_mean_over_the_buffer(alpha):
    """Exactly, term by term, with stored weights that are not those of the loss."""
    loss, data = make("critic", reduction="none"), batch_for("critic", 6)
    data["loss_noise"] = loss.draw_noise(data)
    mean = {key: value.mean() for key, value in loss(data.clone()).items() if "loss_" in key}

    sampler = AdvantageWeightedSampler(alpha)
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(6), sampler=sampler, batch_size=1000, shared=False
    )
    buffer.extend(data)
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0, 1.0])
    buffer.update_priority(torch.arange(6), weights)
    probability = weights**alpha / (weights**alpha).sum()
    sample = buffer.sample()
    emitted = torch.zeros(6).scatter_(0, sample["index"], sample["sampling_weight"])
    seen = emitted > 0
    torch.testing.assert_close(emitted[seen], (1 / (6 * probability))[seen])
    data["sampling_weight"] = 1 / (6 * probability)
    weighted = loss(data.clone())
    for key, value in mean.items():
        if key == "loss_qvalue":
            torch.testing.assert_close((probability * weighted[key]).sum(), value)
    # The advantage weights are relative to a standard deviation, which is that of even draws
    # only in expectation: without them the policy's terms are exact, too.
    loss.eta = 0.0
    plain = loss(data.exclude("sampling_weight"))
    weighted = loss(data.clone())
    for key in mean:
        torch.testing.assert_close((probability * weighted[key]).sum(), plain[key].mean())


def test_the_loss_feeds_the_sampler():
    torch.manual_seed(0)
    loss, data = make("critic"), make_batch(32)
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(32), sampler=AdvantageWeightedSampler(), batch_size=8
    )
    buffer.extend(data)
    for _ in range(5):
        batch = buffer.sample()
        loss(batch)
        buffer.update_priority(batch["index"], batch["advantage_weight"])
    weights = buffer.sampler.weights
    assert weights.min() == 1 and weights.max() > 1
    # A row that was drawn twice has two weights, because V is of one sample of the policy.
    same = batch["index"].unsqueeze(0) == batch["index"].unsqueeze(1)
    kept = weights[batch["index"]].float().unsqueeze(1)
    equal = torch.isclose(kept, batch["advantage_weight"].unsqueeze(0), rtol=1e-6, atol=0)
    assert (same & equal).any(1).all()


def test_stored_weights_instead_of_a_critic():
    """With ``remaining_weight`` the clone minimises the mean under the stored weights."""
    loss = make("bc", reduction="none")
    loss.set_keys(sampling_weight="remaining_weight")
    data = make_batch(4, mode="bc")
    data["loss_noise"] = loss.draw_noise(data)
    plain = loss(data.clone())["loss_flow"]
    weights, alpha = torch.tensor([1.0, 2.0, 3.0, 4.0]), 0.5
    probability = weights**alpha / (weights**alpha).sum()
    data["remaining_weight"] = weights / (4 * probability)
    expected = (weights * plain).mean()
    torch.testing.assert_close((probability * loss(data)["loss_flow"]).sum(), expected)


def test_sampling_weights_of_another_shape():
    loss, td = make("bc"), make_batch(mode="bc")
    td["sampling_weight"] = torch.ones(8, 1)
    with pytest.raises(ValueError, match=r"'sampling_weight' must have the shape \(8,\)"):
        loss(td)


# Chunks ------------------------------------------------------------------------------------


def make_chunk_loss(**options):
    torch.manual_seed(0)
    actor = make_gtp_actor(3, Bounded(-1, 1, (2,)), chunk_length=4, num_steps=2, **SIZES)
    loss = GTPLoss(actor, make_qvalue(3, 2, chunk_length=4, **SIZES), **options)
    TargetUpdate(loss, 0.005)
    return loss


def make_chunks(size=8):
    td = make_batch(size)
    return td.set("action", torch.rand(size, 4, 2) * 2 - 1)


def test_chunks_train_policy_and_critic():
    loss, td = make_chunk_loss(), make_chunks()
    out = loss(td)
    sum(value for key, value in out.items() if key.startswith("loss_")).backward()
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())
    assert loss.target_actor()(td.select("observation"))["action"].shape == (8, 4, 2)
    assert loss.advantage(td).shape == (8,)


def test_padded_actions_of_a_chunk_do_not_count():
    loss, td = make_chunk_loss(reduction="none", eta=0.0), make_chunks()
    loss.set_keys(pad_mask="action_is_pad")
    assert "action_is_pad" in loss.in_keys
    td["action_is_pad"] = torch.zeros(8, 4, dtype=torch.bool)
    td["loss_noise"] = loss.draw_noise(td)
    whole = loss.flow_loss(td)[0]
    loss.set_keys(pad_mask=None)
    torch.testing.assert_close(loss.flow_loss(td)[0], whole)
    loss.set_keys(pad_mask="action_is_pad")
    td["action_is_pad"][:, 3] = True
    total = loss.flow_loss(td)[0].sum()
    assert total < whole.sum()
    head = loss.actor_network_params["flow_map", "backbone", "trunk", "4", "bias"]
    total.backward()
    assert (head.grad.reshape(4, 2)[3] == 0).all() and (head.grad.reshape(4, 2)[:3] != 0).all()


@pytest.mark.parametrize(
    "mask", [torch.zeros(8, 4), torch.zeros(8, 3, dtype=torch.bool), torch.zeros(8, 4, 1) > 0]
)
def test_pad_masks_that_do_not_fit(mask):
    loss, td = make_chunk_loss(), make_chunks()
    loss.set_keys(pad_mask="action_is_pad")
    with pytest.raises(ValueError, match="pad_mask 'action_is_pad' must be boolean"):
        loss(td.set("action_is_pad", mask))


def test_single_actions_for_a_policy_of_chunks():
    with pytest.raises(ValueError, match=r"has the shape \(8, 2\).*generates actions \(4, 2\)"):
        make_chunk_loss()(make_batch())


def test_entries_of_different_batch_sizes():
    td = make_batch()
    loose = TensorDict({**td.exclude("next"), "next": td["next"].clone()})
    loose["observation"] = torch.zeros(7, 3)
    with pytest.raises(
        ValueError, match=r"'observation' has the shape \(7, 3\).*batch size \(8,\)"
    ):
        make("critic")(loose)
