"""How long an update takes eagerly, compiled and, on a GPU, captured: ratios within one run.

python -m benchmarks.update_speed [--modes bc value] [--repeats 200]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import CudaGraphModule
from torchrl.data import Bounded, Composite, Unbounded

from torchrl_gtp import GTPLoss, TargetUpdate, make_actor_critic, make_gtp_actor, make_value
from torchrl_gtp.training import Update, make_optimizer

OBSERVATION_DIM, ACTION_DIM, BATCH = 17, 6, 256


def make_update(mode: str, data: TensorDictBase) -> Update:
    """Make the update of a recipe-sized agent: three layers of 256.

    Args:
        mode: ``"bc"``, ``"critic"`` (V from policy samples) or ``"value"`` (a value network).
        data: the dataset, on the device of the update.
    """
    torch.manual_seed(0)
    networks: dict[str, Any] = {"activation": torch.nn.SiLU}
    spec = Bounded(-1, 1, (ACTION_DIM,))
    if mode == "bc":
        loss = GTPLoss(make_gtp_actor(OBSERVATION_DIM, spec, **networks))
    else:
        observation = Composite(observation=Unbounded(OBSERVATION_DIM))
        actor, qvalue = make_actor_critic(observation, spec, num_steps=2, **networks)
        value = make_value(OBSERVATION_DIM, **networks) if mode == "value" else None
        loss = GTPLoss(actor, qvalue, value)
    loss = loss.to(data.device)
    return Update(
        loss,
        make_optimizer(loss),
        TargetUpdate(loss, 0.005),
        num_updates=1_000_000,
        data=data,
        batch_size=BATCH,
    )


def make_data(device: torch.device, size: int = 10_000) -> TensorDict:
    """Make random transitions."""
    ends = torch.zeros(size, 1, dtype=torch.bool)
    following = {"observation": torch.randn(size, OBSERVATION_DIM), "reward": torch.randn(size, 1)}
    following |= {"done": ends, "terminated": ends.clone()}
    data: dict[str, Any] = {"observation": torch.randn(size, OBSERVATION_DIM)}
    data |= {"action": torch.rand(size, ACTION_DIM) * 2 - 1, "next": following}
    return TensorDict(data, batch_size=[size]).to(device)


def variants(mode: str, data: TensorDictBase) -> dict[str, Callable[[], object]]:
    """The ways to run the update, each on networks of its own."""
    empty = TensorDict(device=data.device)
    eager, compiled = make_update(mode, data), torch.compile(make_update(mode, data))
    calls: dict[str, Callable[[], object]] = {
        "eager": lambda: eager(empty),
        "compiled": lambda: compiled(empty),
    }
    if data.device is not None and data.device.type == "cuda":
        graph = CudaGraphModule(make_update(mode, data), in_keys=[], out_keys=[], warmup=5)
        both = torch.compile(make_update(mode, data))
        both_graph = CudaGraphModule(both, in_keys=[], out_keys=[], warmup=5)
        calls["captured"] = lambda: graph(empty)
        calls["compiled and captured"] = lambda: both_graph(empty)
    return calls


def measure(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each call; they take turns, so that all meet the same machine."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            torch.compiler.cudagraph_mark_step_begin()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modes", nargs="+", default=["bc", "critic", "value"])
    parser.add_argument("--repeats", type=int, default=200)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {name}, {torch.get_num_threads()} threads, batch {BATCH}\n")
    print("| mode | run | first calls, s | ms/update | ratio |\n|:--|:--|--:|--:|--:|")
    for mode in args.modes:
        calls = variants(mode, make_data(device))
        starts = {}
        for key, call in calls.items():
            start = time.perf_counter()
            for _ in range(6):
                call()
            starts[key] = time.perf_counter() - start
        medians = measure(calls, args.repeats)
        for key, median in medians.items():
            ratio = medians["eager"] / median
            print(f"| {mode} | {key} | {starts[key]:.1f} | {median:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
