"""Scoring all windows, and capturing training pairs, against plain forward passes of a random Llama of 74 M parameters.

    python -m benchmarks.scoring [--model DIR] [--sequences 4] [--length 512] [--batch 4] [--rounds 7] [--json]
    python -m benchmarks.scoring --device cuda --shape llama-2-7b --sequences 16 --length 2048

Scoring's floor is the model without its head, and capture's the layers up to the window's end, on the same tokens in
the same batches and the same process; rounds alternate. Limits: 1.10 each. Exits 1 where one is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import worker.engine  # noqa: F401 - first: it tells OpenMP how to wait
from worker.engine.activation_store import ActivationStore
from worker.engine.decoder import Decoder, load_decoder
from worker.engine.scoring.sampling import score_windows

LIMIT = 1.10
SHAPES: dict[str, dict[str, Any]] = {
    "small": {
        "vocab_size": 32000, "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 24,
        "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    },
    "llama-2-7b": {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
    "llama-3-8b": {
        "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
    },
}  # fmt: skip
"""Random Llamas; on CUDA in bfloat16."""


def random_decoder(shape: str = "small", device: str = "cpu") -> Decoder:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    config = AutoConfig.for_model("llama", **SHAPES[shape])
    with torch.device(device):
        model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return Decoder(model, {"model_type": "llama", **SHAPES[shape]}, tokenizer=None, stored=dtype)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, help="a model directory (default: random weights)")
    parser.add_argument("--shape", choices=SHAPES, default="small", help="of the random weights (%(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")


def wanted_decoder(arguments: argparse.Namespace) -> Decoder:
    if arguments.model:
        return load_decoder(arguments.model, arguments.device)
    return random_decoder(arguments.shape, arguments.device)


def finish() -> None:
    """Wait until the device has done what it was told, so that a clock means something."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_bytes() -> int | None:
    """The most memory that tensors took on the GPU so far."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


@torch.inference_mode()
def plain(decoder: Decoder, windows: Tensor, batch: int) -> None:
    for ids in torch.split(windows, batch):
        decoder.body(input_ids=ids.to(decoder.device), use_cache=False)


def seconds(call: Callable[[], object]) -> float:
    finish()
    began = time.perf_counter()
    call()
    finish()
    return time.perf_counter() - began


def plain_up_to(decoder: Decoder, windows: Tensor, batch: int, end: int) -> None:
    with decoder.with_layers(end, len(decoder.layers)):
        plain(decoder, windows, batch)


def measure(decoder: Decoder, windows: Tensor, batch: int, rounds: int, directory: Path) -> dict[str, Any]:
    start, end = len(decoder.layers) // 3, 2 * len(decoder.layers) // 3
    calls: dict[str, Callable[[], object]] = {
        "forward": lambda: plain(decoder, windows, batch),
        "scoring": lambda: score_windows(decoder, windows, batch),
        "forward_to_end": lambda: plain_up_to(decoder, windows, batch, end),
        "capture": lambda: ActivationStore.capture(decoder, windows, start, end, directory, batch_size=batch),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()  # warm up
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    # A neighbour on the machine can only slow a round down: the fastest rounds are compared.
    fastest = {name: min(values) for name, values in times.items()}
    ratios = {
        "scoring": fastest["scoring"] / fastest["forward"],
        "capture": fastest["capture"] / fastest["forward_to_end"],
    }
    return {
        "tokens": windows.numel(),
        "batch": batch,
        "tokens_per_second": {name: windows.numel() / value for name, value in fastest.items()},
        "peak_device_bytes": peak_bytes(),
        "seconds": {name: {"min": min(values), "max": max(values)} for name, values in times.items()},
        "window": [start, end],
        "ratios": ratios,
        "limit": LIMIT,
        "passed": all(ratio <= LIMIT for ratio in ratios.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser)
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    decoder = wanted_decoder(arguments)
    shape = (arguments.sequences, arguments.length)
    windows = torch.randint(0, decoder.config["vocab_size"], shape, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as directory:
        result = measure(decoder, windows, arguments.batch, arguments.rounds, Path(directory))
    if arguments.json:
        print(json.dumps(result))
    else:
        fastest = {name: values["min"] for name, values in result["seconds"].items()}
        floors = {
            "scoring": ("forward", "a forward pass"),
            "capture": ("forward_to_end", "layers 0 to the window's end"),
        }
        # fmt: off
        for name, (floor, what) in floors.items():
            print(f"{name} {result['ratios'][name]:.3f} x {what} ({fastest[name]:.2f} / {fastest[floor]:.2f} s) of "
                  f"{result['tokens']:,} tokens, {result['tokens_per_second'][name]:,.0f} a second; limit {LIMIT}")
        # fmt: on
    sys.exit(0 if result["passed"] else 1)


if __name__ == "__main__":
    main()
