"""Assembly against `cp` of the same bytes, and its anonymous memory, on a random checkpoint of about 2 GB.

    python -m benchmarks.assembly [--gigabytes 2] [--rounds 8] [--directory DIR] [--json]

Both leave their bytes in a warm page cache. Rounds alternate which of the two goes first, and neither starts while
the disk still writes what the other left: what a copy costs depends on the state of the machine's memory and disk
more than on who copies. What the engine does
until the checkpoint is on the disk and hashed (the ledger, which does the two at once) is measured against `cp`
followed by `sync FILE` and `sha256sum FILE`. Limits: 1.2 times plain `cp`, and anonymous memory of at most the largest
tensor + 100 MB. Exits 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.core.architectures import layer_tensors, outer_tensors
from app.core.safetensors_file import INDEX_FILE, TensorEntry, encode_header, read_checkpoint, tensor_bytes

if TYPE_CHECKING:
    from worker.engine.recipe import Dtype

COPY_LIMIT = 1.2
MEMORY_ALLOWANCE_BYTES = 100_000_000
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048, "intermediate_size": 5632,
    "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 32000, "max_position_embeddings": 2048,
    "tie_word_embeddings": False, "dtype": "bfloat16",
}  # fmt: skip
LAYER_BYTES = 103_000_000
SHARD_BYTES = 1_000_000_000


def write_random_checkpoint(directory: Path, layers: int) -> None:
    """Write a sharded Llama of random weights, in the order that transformers saves."""
    config = {**CONFIG, "num_hidden_layers": layers}
    shapes = dict(outer_tensors(config))
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in layer_tensors(config).items()}
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for name, shape in sorted(shapes.items()):
        nbytes = tensor_bytes("BF16", shape)
        if size + nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = shape
        size += nbytes
    # Signs and mantissas at random, and exponents such that all weights lie between 2^-7 and 2^-5: it can be run.
    numbers = np.frombuffer(os.urandom(64 << 20), dtype="<u2")
    noise = ((numbers & 0x80FF) | (120 << 7)).astype("<u2").tobytes()
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        entries, position = {}, 0
        for name, shape in shard.items():
            end = position + tensor_bytes("BF16", shape)
            entries[name] = TensorEntry("BF16", shape, position, end)
            position = end
            weight_map[name] = file_name
        with (directory / file_name).open("wb") as file:
            file.write(encode_header(entries, {"format": "pt"}))
            while position:
                position -= file.write(noise[:position])
    (directory / "config.json").write_text(json.dumps(config))
    (directory / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this kernel does not tell RssAnon")


def assemble_watched(
    source: Path, out: Path, start: int, end: int, dtype: Dtype | None = None
) -> tuple[float, float, int, int]:
    """Assemble here, in `dtype` if it is given.

    Returns the seconds, those until the ledger has it, and anonymous memory: its peak and growth.
    """
    from worker.engine.assembly import assemble
    from worker.engine.ledger import Ledger

    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    before, peak, stop = anonymous_bytes(), anonymous_bytes(), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.01):
            peak = max(peak, anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    assemble(source, out, start=start, end=end, kind="none", dtype=dtype)
    seconds = time.perf_counter() - started
    Ledger(out.parent).record("assemble", "", (out.name,), seconds)
    recorded = time.perf_counter() - started
    stop.set()
    watcher.join()
    return seconds, recorded, peak, peak - before


def copy(source: Path, target: Path) -> tuple[float, float]:
    """Copy; return the seconds of `cp` alone, and those until the bytes are on the disk and hashed."""
    shutil.rmtree(target, ignore_errors=True)
    os.sync()
    started = time.perf_counter()
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    seconds = time.perf_counter() - started
    for command in ("sync", "sha256sum"):
        subprocess.run([command, *map(str, target.iterdir())], check=True, stdout=subprocess.DEVNULL)
    return seconds, time.perf_counter() - started


def measure(directory: Path, gigabytes: float, rounds: int) -> dict[str, Any]:
    source, out, copied = directory / "dense", directory / "pruned", directory / "copy"
    source.mkdir()
    layers = max(4, round(gigabytes * 1e9 / LAYER_BYTES))
    write_random_checkpoint(source, layers)
    start, end = layers // 3, layers // 3 + max(1, layers // 4)
    seconds: dict[str, list[float]] = {"assembly": [], "assembly_kept": [], "cp": [], "cp_kept": []}
    peak = growth = 0
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # its own process, so that nothing else counts
        pool.apply(assemble_watched, (source, out, start, end))  # warm up: page cache and imports
        copy(out, copied)
        for number in range(rounds):
            if number % 2:
                copied_in, copy_kept_in = copy(out, copied)
            took, recorded, round_peak, round_growth = pool.apply(assemble_watched, (source, out, start, end))
            if not number % 2:
                copied_in, copy_kept_in = copy(out, copied)
            peak, growth = max(peak, round_peak), max(growth, round_growth)
            for name, value in zip(seconds, (took, recorded, copied_in, copy_kept_in), strict=True):
                seconds[name].append(value)
        *_, converted_peak, _ = pool.apply(assemble_watched, (source, out, start, end, "float16"))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    largest = max(entry.nbytes for _, entry in read_checkpoint(source).entries())
    ratio, memory_limit = medians["assembly"] / medians["cp"], largest + MEMORY_ALLOWANCE_BYTES
    return {
        "bytes": read_checkpoint(out).nbytes,
        "seconds": {name: {"median": medians[name], "min": min(v), "max": max(v)} for name, v in seconds.items()},
        "ratio_to_cp": ratio,
        "ratio_until_kept": medians["assembly_kept"] / medians["cp_kept"],
        "ratio_limit": COPY_LIMIT,
        "anonymous_bytes_peak": peak,
        "anonymous_bytes_growth": growth,
        "anonymous_bytes_peak_converting": converted_peak,
        "anonymous_bytes_limit": memory_limit,
        "largest_tensor_bytes": largest,
        "passed": ratio <= COPY_LIMIT and max(peak, converted_peak) <= memory_limit,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--directory", type=Path, help="where to write (default: the system's temporary directory)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        result = measure(Path(directory), arguments.gigabytes, arguments.rounds)
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"assembly {result['ratio_to_cp']:.2f} x cp of {result['bytes'] / 1e9:.2f} GB; limit {COPY_LIMIT}")
        print(f"until it is on the disk and hashed: {result['ratio_until_kept']:.2f} x cp, sync and sha256sum")
        peak, growth, limit = (result[f"anonymous_bytes_{name}"] / 1e6 for name in ("peak", "growth", "limit"))
        converting = result["anonymous_bytes_peak_converting"] / 1e6
        print(
            f"anonymous memory {peak:.0f} MB (grew by {growth:.0f} MB), {converting:.0f} MB when it turns "
            f"bfloat16 into float16; limit {limit:.0f} MB"
        )
    sys.exit(0 if result["passed"] else 1)


if __name__ == "__main__":
    main()
