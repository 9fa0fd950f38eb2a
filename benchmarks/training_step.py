"""A training step as the engine takes it against the bare forward, backward and optimiser step of the same module.

    python -m benchmarks.training_step [--model DIR] [--length 256] [--batch 8] [--steps 40] [--json]
    python -m benchmarks.training_step --device cuda --shape llama-2-7b --length 2048 --batch 1

Ours reads its batches from the activation store, ahead as the training loop does, clips the gradient and sets the
learning rate; the bare step has its batch in memory and does none of that. A few steps of one and of the other take
turns in one process, and each of ours that counts has read a batch. Limit: 1.05. Then the training loop runs: its waits
for data are at most 3 % of its time. Exits 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import worker.engine  # noqa: F401 - first: it tells OpenMP how to wait
from benchmarks.scoring import add_model_arguments, finish, peak_bytes, wanted_decoder
from worker.engine.activation_store import ActivationStore
from worker.engine.decoder import Decoder
from worker.engine.device import autocast
from worker.engine.losses import MeanSquaredError
from worker.engine.recipe import Kind
from worker.engine.replacements import build
from worker.engine.replacements.starts import Start
from worker.engine.stand_ins import hidden_of
from worker.engine.training import Pairs, Plan, fit, learning_rate_at, make_optimizer, train_step
from worker.engine.training.loop import read_ahead
from worker.engine.training.stage import block_arguments
from worker.engine.transfers import DeviceWaits

LIMIT = 1.05
WAIT_LIMIT = 0.03
TURN = 4
"""Steps of one kind in a row."""

KINDS: tuple[Kind, ...] = ("layer", "swiglu", "ffn")


def bare_step(
    block: nn.Module,
    optimizer: torch.optim.Optimizer,
    pair: tuple[Tensor, Tensor],
    arguments: dict[str, Any],
    stored: torch.dtype,
) -> None:
    with autocast(pair[0].device.type, stored):
        loss = nn.functional.mse_loss(hidden_of(block(pair[0], **arguments)), pair[1])
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def measure(decoder: Decoder, kind: Kind, pairs: Pairs, batch: int, steps: int) -> dict[str, Any]:
    store = pairs.states
    middle = len(decoder.layers) // 2
    arguments = block_arguments(decoder, middle, store.length, kind == "layer")
    block = build(kind, Start(decoder, middle, middle + 2, "first", 0, lambda _: 0.0))
    assert block is not None
    block = block.float()
    blocks = {"ours": block.requires_grad_(True), "bare": copy.deepcopy(block).requires_grad_(True)}
    optimizers = {name: make_optimizer(block, 1e-4) for name, block in blocks.items()}
    objective = MeanSquaredError()
    in_memory = store.batch(list(pairs.train[:batch]))
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    wanted = ([pairs.train[(step * batch + i) % len(pairs.train)] for i in range(batch)] for step in itertools.count())
    for turn in range(steps // TURN + 1):
        waits = DeviceWaits(decoder.device)
        batches = read_ahead(pairs.batch, wanted, waits)
        given = next(batches)
        finish()
        began = time.perf_counter()
        for step in range(TURN):
            for group in optimizers["ours"].param_groups:
                group["lr"] = learning_rate_at(turn * TURN + step, steps + TURN, 1e-4)
            train_step(blocks["ours"], optimizers["ours"], given, arguments, objective)
            given = next(batches)
        finish()
        between = time.perf_counter()
        batches.close()
        finish()
        resumed = time.perf_counter()
        for _ in range(TURN):
            bare_step(blocks["bare"], optimizers["bare"], in_memory, arguments(batch), store.stored_dtype)
        finish()
        if turn:  # the first one warms up
            times["ours"].append((between - began) / TURN)
            times["bare"].append((time.perf_counter() - resumed) / TURN)
    # A neighbour on the machine can only slow a turn down: the fastest quarter is compared.
    fast = {name: statistics.mean(sorted(values)[: max(1, len(values) // 4)]) for name, values in times.items()}
    ratio = fast["ours"] / fast["bare"]
    return {"kind": kind, "ms": {n: 1e3 * v for n, v in fast.items()}, "ratio": ratio, "passed": ratio <= LIMIT}


def data_wait(decoder: Decoder, pairs: Pairs, batch: int) -> float:
    """The share of the training loop's time in which it waits for a batch, for the quickest kind."""
    middle = len(decoder.layers) // 2
    block = build("ffn", Start(decoder, middle, middle + 2, "first", 0, lambda _: 0.0))
    assert block is not None
    history = fit(
        block.float(), pairs, block_arguments(decoder, middle, pairs.states.length, 0), Plan(4, 1e-4, batch, 0)
    )
    return history.data_wait_seconds / history.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    decoder = wanted_decoder(arguments)
    shape = (4 * arguments.batch, arguments.length)
    windows = torch.randint(0, decoder.config["vocab_size"], shape, generator=torch.Generator().manual_seed(0))
    middle = len(decoder.layers) // 2
    with tempfile.TemporaryDirectory() as directory:
        store = ActivationStore.capture(
            decoder, windows, middle, middle + 2, Path(directory), batch_size=arguments.batch
        )
        pairs = Pairs.split(store, windows)
        results = [measure(decoder, kind, pairs, arguments.batch, arguments.steps) for kind in KINDS]
        waiting = data_wait(decoder, pairs, arguments.batch)
    passed = waiting <= WAIT_LIMIT and all(result["passed"] for result in results)
    if arguments.json:
        told = {"limit": LIMIT, "steps": results, "data_wait": waiting, "peak_device_bytes": peak_bytes()}
        print(json.dumps({**told, "passed": passed}))
    else:
        for result in results:
            print(f"training step, {result['kind']:<6} {result['ratio']:.3f} x the bare step "
                  f"({result['ms']['ours']:.1f} / {result['ms']['bare']:.1f} ms); limit {LIMIT}")  # fmt: skip
        print(f"waiting for data {waiting:.2%} of training; limit {WAIT_LIMIT:.0%}")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
