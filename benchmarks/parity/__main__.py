"""How far do our losses and samplers lie from those of the published programs?

Imports a published program from a checkout, gives the same weights, batch and random numbers to it
and to our parts, in double precision, and compares what comes out of both::

    git clone https://github.com/Zhendong-Wang/Diffusion-Policies-for-Offline-RL peers/diffusion_ql
    git -C peers/diffusion_ql checkout d871f5c
    python -m benchmarks.parity diffusion_ql --peer peers/diffusion_ql

It prints the table and writes it as ``diffusion_ql.csv`` and ``diffusion_ql.md``. The relative
difference is ``|ours - theirs| / |theirs|`` in the Euclidean norm, the largest over the settings
compared. The published program trains a few updates first, so that delayed copies of its networks
differ from the current ones. A wrong ``--peer`` says where the program is to be had. IDQL needs
jax, flax and optax besides. None of the published code is in this repository.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from benchmarks.parity.peers import PEERS, check_checkout, commit_of
from benchmarks.parity.report import write_csv, write_markdown


def main(arguments: Sequence[str] | None = None) -> None:
    """Compares one system and writes its table."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.parity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("system", choices=list(PEERS))
    parser.add_argument("--peer", type=Path, help="checkout of the published program; needed")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("outputs/parity"))
    options = parser.parse_args(arguments)
    peer = PEERS[options.system]
    if options.peer is None:
        parser.error(f"--peer must name a checkout of {peer.title}. Make one: {peer.how_to_get}")
    try:
        check_checkout(peer, options.peer)
    except ValueError as error:
        parser.error(f"--peer {error}")
    # Here, because what a system needs is not needed by the others.
    system = importlib.import_module(f"benchmarks.parity.{options.system}")
    with _double_precision():
        torch.manual_seed(options.seed)
        np.random.seed(options.seed)
        try:
            rows = system.compare(options.peer).rows
        except ModuleNotFoundError as error:
            parser.error(f"{peer.title} cannot be compared: {error}")
    commit = commit_of(options.peer)
    command = shlex.join(["python", "-m", "benchmarks.parity", *arguments])
    path = options.out / f"{options.system}.csv"
    write_csv(rows, path, peer, commit)
    print(write_markdown(rows, path.with_suffix(".md"), peer, commit, command))


@contextmanager
def _double_precision() -> Iterator[None]:
    """Makes new tensors, and with them all networks, in double precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


if __name__ == "__main__":
    main()
