"""A checkpoint of more than 4 GB, scored layer by layer and whole, and cut: wall time and anonymous memory.

    python -m benchmarks.streamed [--gigabytes 4.2] [--sequences 8] [--length 256] [--directory DIR] [--json]

Random bf16 weights are written shard by shard. Each measurement is a process of its own, from opening the model to the
finished table, with the files in the page cache; the floor of the streamed run is the resident one. Limits: 1.3 times
its wall time, 1.2 GB of anonymous memory, the same table; assembly within its largest tensor + 100 MB. The resident run
needs about 2.2 times the checkpoint's bytes. Exits 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import worker.engine  # noqa: F401 - before torch: it tells OpenMP how to wait
from app.core.safetensors_file import read_checkpoint
from benchmarks.assembly import (
    LAYER_BYTES,
    MEMORY_ALLOWANCE_BYTES,
    anonymous_bytes,
    assemble_watched,
    write_random_checkpoint,
)

WALL_LIMIT = 1.3
ANONYMOUS_LIMIT_BYTES = 1_200_000_000
TOKENIZER = Path(__file__).parents[1] / "app" / "bundled" / "stories-24l"

T = TypeVar("T")


def watched(work: Callable[[], T]) -> tuple[T, int]:
    """Return what `work` returns, and the peak of this process' anonymous memory meanwhile."""
    peak, stop = anonymous_bytes(), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.005):
            peak = max(peak, anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        made = work()
    finally:
        stop.set()
        watcher.join()
    return made, peak


def score(execution: str, source: Path, sequences: int, length: int) -> dict[str, Any]:
    """Score in this process; return seconds, the peak of anonymous memory, and the table."""
    import torch

    from worker.engine.decoder import load_decoder
    from worker.engine.hidden_states import LayeredModel
    from worker.engine.scoring.sampling import score_windows
    from worker.engine.stages import scoring_batch
    from worker.engine.streamed import load_streamed

    windows = torch.randint(0, 4000, (sequences, length), generator=torch.Generator().manual_seed(0))

    def work() -> list[list[float | None]]:
        scratch = source.parent / "scratch"
        model: LayeredModel = (
            load_streamed(source, "cpu", scratch) if execution == "streamed" else load_decoder(source, "cpu")
        )
        return score_windows(model, windows, scoring_batch(model, length)).scores()

    before, began, used = anonymous_bytes(), time.perf_counter(), time.process_time()
    table, peak = watched(work)
    return {
        "seconds": time.perf_counter() - began,
        # Tells a slow run from a busy machine.
        "processor_seconds": time.process_time() - used,
        "anonymous": peak,
        "before": before,
        "table": table,
    }


def apart(work: Callable[..., T], *arguments: object) -> T:
    """Run `work` in a fresh process, so that nothing else counts."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def measure(directory: Path, gigabytes: float, sequences: int, length: int) -> dict[str, Any]:
    source = directory / "dense"
    source.mkdir()
    layers = round(gigabytes * 1e9 / LAYER_BYTES)
    write_random_checkpoint(source, layers)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, source)
    checkpoint = read_checkpoint(source)
    streamed = apart(score, "streamed", source, sequences, length)
    resident = apart(score, "resident", source, sequences, length)
    start, end = layers // 3, layers // 3 + layers // 4
    *_, assembly, growth = apart(assemble_watched, source, directory / "pruned", start, end)
    largest = max(entry.nbytes for _, entry in checkpoint.entries())
    ratio = streamed["seconds"] / resident["seconds"]
    same = streamed.pop("table") == resident.pop("table")
    return {
        "bytes": checkpoint.nbytes,
        "layers": layers,
        "tokens": sequences * length,
        "streamed": streamed,
        "resident": resident,
        "ratio": ratio,
        "ratio_limit": WALL_LIMIT,
        "anonymous_limit": ANONYMOUS_LIMIT_BYTES,
        # Two layers in float32: one computes and one is read.
        "anonymous_floor": streamed["before"] + 2 * 2 * LAYER_BYTES,
        "same_table": same,
        "assembly": {"anonymous": assembly, "growth": growth, "limit": largest + MEMORY_ALLOWANCE_BYTES},
        "passed": same
        and ratio <= WALL_LIMIT
        and streamed["anonymous"] <= ANONYMOUS_LIMIT_BYTES
        and assembly <= largest + MEMORY_ALLOWANCE_BYTES,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.2, help="of decoder layers")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--directory", type=Path, help="where to write (default: the system's temporary directory)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        result = measure(Path(directory), arguments.gigabytes, arguments.sequences, arguments.length)
    if arguments.json:
        print(json.dumps(result))
    else:
        streamed, resident, assembly = result["streamed"], result["resident"], result["assembly"]
        table = "the same table" if result["same_table"] else "ANOTHER TABLE"
        print(f"streamed scoring {result['ratio']:.2f} x resident ({streamed['seconds']:.1f} / "
              f"{resident['seconds']:.1f} s) of {result['tokens']:,} tokens, {result['bytes'] / 1e9:.2f} GB in "
              f"{result['layers']} layers, {table}; limit {WALL_LIMIT}")  # fmt: skip
        print(f"processor time {streamed['processor_seconds']:.1f} / {resident['processor_seconds']:.1f} s")
        print(f"anonymous memory {streamed['anonymous'] / 1e6:.0f} MB (floor {result['anonymous_floor'] / 1e6:.0f}, "
              f"resident {resident['anonymous'] / 1e6:.0f}); limit {ANONYMOUS_LIMIT_BYTES / 1e6:.0f} MB")  # fmt: skip
        print(f"assembly's anonymous memory {assembly['anonymous'] / 1e6:.0f} MB (grew by "
              f"{assembly['growth'] / 1e6:.0f} MB); limit {assembly['limit'] / 1e6:.0f} MB")  # fmt: skip
    sys.exit(0 if result["passed"] else 1)


if __name__ == "__main__":
    main()
