"""Two processes with half a batch each have the gradients of one with the whole batch."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from tensordict import TensorDict
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torchrl.data import Bounded
from torchrl.objectives import SoftUpdate

from torchrl_gtp import GTPLoss, make_gtp_actor, make_qvalue, make_value

WORLD_SIZE = 2
SETTINGS: dict[str, dict[str, Any]] = {
    "paper's critic": {"eta": 1.0},
    "value network": {"eta": 3.0, "value_network": True},
    "cloning": {"critic": False},
}


def make_loss(seed: int, *, critic: bool = True, value_network: bool = False, **options) -> GTPLoss:
    torch.manual_seed(seed)
    actor = make_gtp_actor(4, Bounded(-1, 1, (2,)), hidden_sizes=(16,), num_steps=2)
    qvalue = make_qvalue(4, 2, hidden_sizes=(16,)) if critic else None
    value = make_value(4, hidden_sizes=(16,)) if value_network else None
    loss = GTPLoss(actor, qvalue, value, **options)
    # A new flow map ignores its input, and new critics see hardly any advantage.
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return loss


def make_batch(size: int = 32) -> TensorDict:
    torch.manual_seed(7)
    following = {
        "observation": torch.randn(size, 4),
        "reward": torch.randn(size, 1),
        "done": torch.rand(size, 1) < 0.2,
        "terminated": torch.rand(size, 1) < 0.1,
    }
    return TensorDict(
        {
            # The halves differ much, so that the standard deviations of their advantages do.
            "observation": torch.randn(size, 4) * torch.linspace(0.1, 3, size).unsqueeze(-1),
            "action": torch.rand(size, 2) * 2 - 1,
            "next": following,
        },
        batch_size=[size],
    )


def step(module: torch.nn.Module, batch: TensorDict) -> dict[str, float]:
    losses = module(batch)
    sum(value for key, value in losses.items() if key.startswith("loss_")).backward()
    return {key: value.item() for key, value in losses.items()}


def gradients(loss: GTPLoss) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in loss.named_parameters()}


def work(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD_SIZE
    )
    try:
        results = {}
        for name, options in SETTINGS.items():
            # Only the first process has the weights that count: the others get them.
            loss = make_loss(seed=rank, sync_advantage=True, **options)
            parallel = DistributedDataParallel(loss, broadcast_buffers=False)
            updater = SoftUpdate(loss, tau=0.5)
            optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
            batch = torch.load(f"{folder}/{name}.pt", weights_only=False)
            losses = step(parallel, batch.chunk(WORLD_SIZE)[rank])
            grads = gradients(loss)
            optimizer.step()
            updater.step()
            state = {key: value.clone() for key, value in loss.state_dict().items()}
            results[name] = (losses, grads, state)
        torch.save(results, f"{folder}/rank{rank}.pt")
    finally:
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """What one process and what two processes make of the same batches and random numbers."""
    folder = tmp_path_factory.mktemp("distributed")
    alone = {}
    for name, options in SETTINGS.items():
        loss = make_loss(seed=0, **options)
        updater = SoftUpdate(loss, tau=0.5)
        optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
        batch = make_batch()
        batch["loss_noise"] = loss.draw_noise(batch)
        torch.save(batch, folder / f"{name}.pt")
        losses = step(loss, batch.clone())
        grads = gradients(loss)
        optimizer.step()
        updater.step()
        alone[name] = (losses, grads, loss.state_dict())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, args=(port, str(folder)), nprocs=WORLD_SIZE)
    together = [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(2)]
    return alone, {name: [part[name] for part in together] for name in SETTINGS}


@pytest.mark.parametrize("name", SETTINGS)
def test_gradients_and_update_are_those_of_the_whole_batch(runs, name: str) -> None:
    alone, together = runs
    _, gradients_alone, state_alone = alone[name]
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients_alone.values())
    for _, grads, state in together[name]:
        assert grads.keys() == gradients_alone.keys()
        for key, gradient in gradients_alone.items():
            assert_equal_but_for_rounding(grads[key], gradient, key)
        for key, value in state_alone.items():
            assert_equal_but_for_rounding(state[key], value, key)


def assert_equal_but_for_rounding(got: torch.Tensor, expected: torch.Tensor, key: str) -> None:
    # Measured: 8e-7 of the largest value, however small the others are beside it.
    bound = 5e-6 * expected.abs().max().item()
    torch.testing.assert_close(got, expected, rtol=0, atol=bound, msg=key)


@pytest.mark.parametrize("name", SETTINGS)
def test_losses_are_the_means_of_the_parts(runs, name: str) -> None:
    alone, together = runs
    losses = alone[name][0]
    for key in losses:
        if key.startswith("loss_"):
            mean = sum(part[0][key] for part in together[name]) / WORLD_SIZE
            assert mean == pytest.approx(losses[key], rel=1e-4)


def test_without_synchronisation_the_weights_differ() -> None:
    loss = make_loss(seed=0, eta=1.0)
    SoftUpdate(loss, tau=0.5)
    batch = make_batch()
    batch["loss_noise"] = loss.draw_noise(batch)
    whole, _ = loss.weight(batch)
    halves = torch.cat([loss.weight(half)[0] for half in batch.chunk(2)])
    assert (whole - halves).abs().max() > 0.1
