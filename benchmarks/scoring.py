"""Scoring all windows against one plain forward pass of the same tokens, on a random Llama of 74 M parameters.

    python -m benchmarks.scoring [--model DIR] [--sequences 4] [--length 512] [--rounds 7] [--json]

The floor is the model without its head, in the same batches and the same process; rounds alternate. Limit: 1.15.
Exits 1 where it is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import worker.engine  # noqa: F401 - first: it tells OpenMP how to wait
from worker.engine.decoder import Decoder, load_decoder
from worker.engine.scoring.sampling import score_windows

LIMIT = 1.15
CONFIG: dict[str, Any] = {
    "vocab_size": 32000, "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 24,
    "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 2048, "tie_word_embeddings": True,
}  # fmt: skip


def random_decoder() -> Decoder:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", **CONFIG)
    model: nn.Module = AutoModelForCausalLM.from_config(config)
    return Decoder(model, {"model_type": "llama", **CONFIG}, tokenizer=None, stored=torch.float32)


@torch.inference_mode()
def plain(decoder: Decoder, windows: Tensor, batch: int) -> None:
    for ids in torch.split(windows, batch):
        decoder.body(input_ids=ids, use_cache=False)


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure(decoder: Decoder, windows: Tensor, batch: int, rounds: int) -> dict[str, Any]:
    calls: dict[str, Callable[[], object]] = {
        "forward": lambda: plain(decoder, windows, batch),
        "scoring": lambda: score_windows(decoder, windows, batch),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()  # warm up
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    # A neighbour on the machine can only slow a round down: the fastest rounds are compared.
    ratio = min(times["scoring"]) / min(times["forward"])
    return {
        "tokens": windows.numel(),
        "batch": batch,
        "seconds": {name: {"min": min(values), "max": max(values)} for name, values in times.items()},
        "ratio": ratio,
        "limit": LIMIT,
        "passed": ratio <= LIMIT,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model directory (default: random weights)")
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    decoder = load_decoder(arguments.model, "cpu") if arguments.model else random_decoder()
    shape = (arguments.sequences, arguments.length)
    windows = torch.randint(0, decoder.config["vocab_size"], shape, generator=torch.Generator().manual_seed(0))
    result = measure(decoder, windows, arguments.batch, arguments.rounds)
    if arguments.json:
        print(json.dumps(result))
    else:
        fastest = {name: values["min"] for name, values in result["seconds"].items()}
        print(f"scoring {result['ratio']:.3f} x a plain forward pass ({fastest['scoring']:.2f} / "
              f"{fastest['forward']:.2f} s) of {result['tokens']:,} tokens; limit {LIMIT}")  # fmt: skip
    sys.exit(0 if result["passed"] else 1)


if __name__ == "__main__":
    main()
