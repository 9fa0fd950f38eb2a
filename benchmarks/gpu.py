"""The engine on one GPU: shares of the forward pass's floor, whole runs, and what happens where memory runs out.

    python -m benchmarks.gpu --data DIR [--out DIR] [--steps NAME ...] [--seconds 480]

Each step is a process of its own, prints one line of JSON as it ends and keeps it in OUT/STEP.json; one that fails or
runs out of time leaves its last words there, and the next one starts. `--list` names the steps.

Floors: a matrix product of 8192 x 8192 in bfloat16 for everything that computes (2 operations per weight and token,
and 2 x hidden size per layer and token of causal attention's context), a copy on the device for what reads weights.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

BUNDLED = Path(__file__).parents[1] / "app" / "bundled" / "stories-24l"
SHAPES = ("llama-2-7b", "llama-3-8b")
UP_TO_TRAINING = ("fetch", "score", "select", "train")


def ceilings() -> dict[str, Any]:
    """What this device does at most, by the two plainest operations there are."""
    import torch

    from benchmarks.scoring import seconds

    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    big = torch.randn(1 << 30, device="cuda", dtype=torch.bfloat16)
    other = torch.empty_like(big)
    calls: dict[str, tuple[Callable[[], object], float]] = {
        "bfloat16_tflops": (lambda: [torch.mm(a, b) for _ in range(20)], 20 * 2 * 8192**3 / 1e12),
        "copy_gb_per_second": (lambda: [other.copy_(big) for _ in range(10)], 10 * 2 * big.nbytes / 1e9),
    }
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    for name, (call, amount) in calls.items():
        call()
        found[name] = round(amount / min(seconds(call) for _ in range(5)), 1)
    return found


def floating_point_operations(config: Mapping[str, Any], length: int, layers: int) -> float:
    """Return the operations per token of `layers` decoder layers of a Llama, with the causal half of attention."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    grouped = hidden * config["num_key_value_heads"] // heads
    weights = 2 * hidden * (hidden + grouped) + 3 * hidden * config["intermediate_size"]
    return float(layers * (2 * weights + 2 * length * hidden))


def write_random(shape: str, path: Path) -> None:
    """Write a random Llama in bfloat16 as a checkpoint, with the bundled model's tokenizer."""
    from benchmarks.scoring import random_decoder

    model: Any = random_decoder(shape, "cuda").model
    model.save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUNDLED / name, path)


def run_stages(arguments: Sequence[str], stages: Sequence[str] = (), gigabytes: float | None = None) -> dict[str, Any]:
    """Run the engine here, or only some of its stages, on a device that has so much memory and no more."""
    import torch

    from worker.engine import device, pipeline
    from worker.engine.__main__ import make_parser
    from worker.engine.context import StageContext
    from worker.engine.events import Collected, Emitter
    from worker.engine.request import recipe_from
    from worker.engine.request_checks import check

    if gigabytes is not None:
        torch.cuda.set_per_process_memory_fraction(gigabytes * 1e9 / torch.cuda.get_device_properties(0).total_memory)
    options = make_parser().parse_args(arguments)
    recipe = recipe_from(options)
    check(recipe)
    events = Collected()
    context = StageContext(recipe, options.out, options.cache, Emitter(events), device.resolve("auto"))
    chosen = tuple(stage for stage in pipeline.STAGES if not stages or stage.name in stages)
    report = pipeline.run_pipeline(context, chosen)
    training = report.get("training") or {}
    peaks = {event["stage"]: event["gpu_memory_bytes"] for event in events.events if "gpu_memory_bytes" in event}
    return {
        "gigabytes": gigabytes,
        "execution": report["execution"],
        "removed_layers": report["removed_layers"],
        "stage_seconds": report["stage_seconds"],
        "peak_gpu_bytes": peaks,
        "training": {name: value for name, value in training.items() if name != "phases"},
        "micro_batch": [phase["micro_batch"] for phase in training.get("phases", ())],
        "metrics": report.get("metrics"),
        "verification": report.get("verification"),
        "log": [event["message"] for event in events.events if event["event"] == "log"],
    }


def engine_arguments(model: Path, out: Path, data: Path, *more: str) -> list[str]:
    calibration, evaluation = data / "tinystories_train.jsonl", data / "tinystories_test.jsonl"
    return [
        "--model", str(model), "--out", str(out), "--cache", str(out.parent / "cache"),
        "--calibration", str(calibration), "--evaluate", str(evaluation), *more,
    ]  # fmt: skip


def whole(shape: str, data: Path, scratch: Path) -> dict[str, Any]:
    """Compress a random model of this shape from checkpoint to proof: 120 sequences of 2,048 tokens, one epoch."""
    model = scratch / shape
    began = time.perf_counter()
    write_random(shape, model)
    written = time.perf_counter() - began
    _forget_memory()
    found = run_stages(
        engine_arguments(
            model, scratch / f"{shape}-run", data, "--sparsity", "0.25", "--epochs", "1",
            "--tokens", str(120 * 2048), "--sequence-length", "2048", "--sequences", "16", "--no-adaptive",
            "--tasks", "piqa", "--task-data", str(data), "--limit", "64", "--benchmark-batch-sizes", "1", "8",
            "--prompt-tokens", "512", "--new-tokens", "64", "--repeats", "3",
        )
    )  # fmt: skip
    return {"seconds_to_write_the_random_model": written, **found}


def too_large(data: Path, scratch: Path) -> dict[str, Any]:
    """A model of 13 GB where there are 6: read layer by layer, with the window that is found when it is read whole."""
    model = scratch / "too-large"
    write_random("llama-2-7b", model)
    _forget_memory()
    flags = ("--layers", "8", "--kind", "none", "--sequence-length", "2048", "--sequences", "8", "--no-adaptive")
    stages = ("fetch", "score", "select")
    found: dict[str, Any] = {}
    for gigabytes in (None, 6.0):
        run = engine_arguments(model, scratch / f"large-{gigabytes}", data, *flags)
        found["whole" if gigabytes is None else "streamed"] = stages_apart(run, stages, gigabytes)
    return found


def short_of_memory(data: Path, scratch: Path) -> dict[str, Any]:
    """Training where the batch does not fit: the micro-batch is halved, and the result is the same but for rounding."""
    flags = ("--layers", "6", "--batch-size", "64", "--sequence-length", "512", "--epochs", "2", "--init", "first")
    found: dict[str, Any] = {}
    room: float | None = None
    for name in ("whole batch", "short of memory"):
        run = engine_arguments(BUNDLED, scratch / name.replace(" ", "-"), data, *flags)
        found[name] = stages_apart(run, UP_TO_TRAINING, room)
        peak = found[name].get("peak_gpu_bytes", {}).get("train")
        room = 0.6 * peak / 1e9 if peak else None
    return found


def stages_apart(arguments: list[str], stages: Sequence[str], gigabytes: float | None) -> dict[str, Any]:
    """As `run_stages`, in a process of its own: an allocator keeps what it once held."""
    told = json.dumps({"arguments": arguments, "stages": list(stages), "gigabytes": gigabytes})
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--stages", told], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-3:]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _forget_memory() -> None:
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()


def commands(data: Path, scratch: Path) -> dict[str, list[str]]:
    """Return each step's command line, in the order they run in: the quick ones first."""
    own = ["benchmarks.gpu", "--data", str(data), "--scratch", str(scratch), "--one"]
    quality = [
        "benchmarks.quality", "--model", str(BUNDLED), "--calibration", str(data / "tinystories_train.jsonl"),
        "--evaluate", str(data / "tinystories_test.jsonl"), str(data / "books_valid.jsonl"), "--layers", "6",
        "--recipes", "none", "layer", "layer:mse+kd", "none+lora", "linear_merged", "--json",
    ]  # fmt: skip
    cuda = ("--device", "cuda", "--json", "--shape")
    steps = {"ceilings": [*own, "ceilings"], "short_of_memory": [*own, "short_of_memory"]}
    for shape in SHAPES:
        steps[f"scoring-{shape}"] = [
            "benchmarks.scoring", *cuda, shape,
            "--sequences", "64", "--length", "2048", "--batch", "8", "--rounds", "5",
        ]  # fmt: skip
        steps[f"training_step-{shape}"] = [
            "benchmarks.training_step", *cuda, shape, "--length", "2048", "--batch", "4", "--steps", "20",
        ]  # fmt: skip
    steps["whole-llama-2-7b"] = [*own, "whole-llama-2-7b"]
    steps["quality"] = quality
    steps["too_large"] = [*own, "too_large"]
    steps["whole-llama-3-8b"] = [*own, "whole-llama-3-8b"]
    return steps


def one(step: str, data: Path, scratch: Path) -> dict[str, Any]:
    """Do one of this module's own steps in this process."""
    if step.startswith("whole-"):
        return whole(step.removeprefix("whole-"), data, scratch)
    if step == "ceilings":
        return ceilings()
    return {"short_of_memory": short_of_memory, "too_large": too_large}[step](data, scratch)


def run_step(name: str, command: list[str], out: Path, seconds: float) -> bool:
    """Run one step and keep what it says; False where it did not end well."""
    began = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, timeout=seconds, check=False
        )
        said, complaint, code = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as error:
        said, complaint, code = "", (error.stderr or b"").decode(errors="replace"), 124
    took = time.perf_counter() - began
    lines = said.strip().splitlines()
    found = lines[-1] if lines else json.dumps({"failed": complaint.strip().splitlines()[-12:]})
    (out / f"{name}.json").write_text(found + "\n", encoding="utf-8")
    print(f"== {name}: {took:.0f} s, exit {code}\n{found[:1500]}", flush=True)
    return code == 0


def with_floors(out: Path) -> None:
    """Print tokens per second as shares of what the device's matrix product allows."""
    from benchmarks.scoring import SHAPES as CONFIGS

    path = out / "ceilings.json"
    peak = json.loads(path.read_text(encoding="utf-8")).get("bfloat16_tflops") if path.is_file() else None
    if peak is None:
        print("no ceilings were measured (--steps ceilings), so no shares of them")
        return
    for shape in SHAPES:
        path = out / f"scoring-{shape}.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        for name, rate in found.get("tokens_per_second", {}).items():
            config = CONFIGS[shape]
            layers = found["window"][1] if name in ("capture", "forward_to_end") else config["num_hidden_layers"]
            floor = peak * 1e12 / floating_point_operations(config, 2048, layers)
            print(f"{shape:<12}{name:<16}{rate:>10,.0f} tokens/s, {rate / floor:.0%} of {floor:,.0f}")


def main() -> None:
    if sys.argv[1:2] == ["--stages"]:
        print(json.dumps(run_stages(**json.loads(sys.argv[2]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="tinystories_{train,test}.jsonl, piqa.jsonl, ...")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="one file per step (%(default)s)")
    parser.add_argument("--scratch", type=Path, help="room for 50 GB (default: the system's temporary directory)")
    parser.add_argument("--steps", nargs="+", help="only these")
    parser.add_argument("--seconds", type=float, default=480, help="for all steps together (%(default)s)")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.one, arguments.data, arguments.scratch)))
        return
    ends = time.monotonic() + arguments.seconds
    arguments.out.mkdir(parents=True, exist_ok=True)
    good = True
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        steps = commands(arguments.data, Path(scratch))
        if arguments.list:
            print("\n".join(steps))
            return
        for name in arguments.steps or steps:
            left = ends - time.monotonic()
            good = left > 0 and run_step(name, steps[name], arguments.out, left) and good
    with_floors(arguments.out)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
