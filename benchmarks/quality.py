"""Perplexity of every recipe on one model, with wall time and peak memory: the table that the defaults rest on.

    python -m benchmarks.quality --model DIR --calibration FILE --evaluate FILE [FILE ...]
        [--sparsity 0.25 0.375 0.5 | --layers 6 12] [--recipes layer swiglu layer:mse+kd layer*2 ...] [--seeds 0 1]
        [--sequences 1000] [--flags "--epochs 6 --learning-rate 0.005"] [--out DIR] [--json]

A recipe is KIND[*LAYERS][:LOSS][@INIT][+lora]. Each runs the engine's own stages up to the evaluation of the written
checkpoint, in a process of its own. Seconds are those from the loaded model to the written checkpoint (score, select,
train, assemble), CPU seconds those that all cores spent on it and on opening the model, which a busy machine changes
less; memory is the process's largest resident set by then. `published` is the published procedure
(`benchmarks.published`) on the same sequences, with --layers only: what seconds are to be compared with, since machines
differ by more than recipes do. Exits 1 where a trained recipe does not end below the plain cut.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.core.windows import runs

STAGES = ("fetch", "score", "select", "train", "heal", "assemble", "evaluate")
TIMED = ("score", "select", "train", "assemble")
RECIPES = (
    "none",
    "ffn",
    "swiglu",
    "linear_residual",
    "linear_merged",
    "layer",
    "layer*2",
    "layer:cosine",
    "layer:mse+kd",
    "none+lora",
    "layer+lora",
)
PUBLISHED = "published"
_RECIPE = re.compile(
    r"(?P<kind>[a-z_]+)(\*(?P<layers>\d+))?(:(?P<loss>[a-z]+(\+(?!lora)[a-z]+)?))?(@(?P<init>[a-z_]+))?"
    r"(\+(?P<healing>lora))?"
)


def flags(arguments: argparse.Namespace, recipe: str, target: list[str], seed: int, out: Path) -> list[str]:
    """The engine's command line for one row of the table."""
    parts = _RECIPE.fullmatch(recipe)
    if parts is None:
        sys.exit(f"{recipe!r} is no recipe; give KIND[*LAYERS][:LOSS][@INIT][+lora]")
    length = arguments.sequence_length
    given = {
        "--model": arguments.model, "--out": out, "--cache": out.parent / "cache",
        "--calibration": arguments.calibration, "--tokens": arguments.sequences * length,
        "--sequence-length": length, "--seed": seed,
        "--kind": parts["kind"], "--replacement-layers": parts["layers"], "--loss": parts["loss"],
        "--init": parts["init"], "--healing": parts["healing"],
    }  # fmt: skip
    chosen = [str(part) for name, value in given.items() if value is not None for part in (name, value)]
    return [*chosen, *target, "--evaluate", *map(str, arguments.evaluate), *shlex.split(arguments.flags)]


def run_one(command: list[str]) -> dict[str, Any]:
    """Run the stages in this process."""
    from worker.engine import device, pipeline
    from worker.engine.__main__ import make_parser
    from worker.engine.context import StageContext
    from worker.engine.events import silent
    from worker.engine.request import recipe_from
    from worker.engine.request_checks import check

    options = make_parser().parse_args(command)
    recipe = recipe_from(options)
    check(recipe)
    context = StageContext(recipe, options.out, options.cache, silent(), device.resolve("auto"))
    stages = tuple(stage for stage in pipeline.STAGES if stage.name in STAGES)
    began = time.process_time()
    pipeline.run_pipeline(context, stages[:-1])
    used, peak = time.process_time() - began, peak_mb()
    report = pipeline.run_pipeline(context, stages)
    seconds = report["stage_seconds"]
    return {
        "removed_layers": report["removed_layers"],
        "sparsity": report["selection"]["sparsity"],
        "perplexity": {
            name: {variant: found[variant] for variant in ("dense", "cut", "pruned")}
            for name, found in report["evaluation"]["perplexity"].items()
        },
        "kept": (report["healing"] or report["training"])["kept"],
        "stage_seconds": seconds,
        "seconds": sum(seconds[name] for name in TIMED),
        "cpu_seconds": used,
        "peak_mb": peak,
    }


def peak_mb() -> float:
    """The largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def run_published(command: list[str]) -> dict[str, Any]:
    """Run the published procedure in this process, and judge it as the others are."""
    import worker.engine  # noqa: F401, I001 - first: it tells OpenMP how to wait
    from transformers import AutoTokenizer

    from benchmarks import published
    from worker.engine.decoder import load_decoder
    from worker.engine.evaluation.perplexity import likelihoods
    from worker.engine.hidden_states import without
    from worker.engine.recipe import Text
    from worker.engine.text import text_windows

    given = json.loads(command[0])
    source, out, length = Path(given["model"]), Path(given["out"]), given["length"]
    tokenizer = AutoTokenizer.from_pretrained(source)

    def windows_of(path: str, limit: int | None = None) -> Any:
        return text_windows(Text(path, "text", Path(path).stem), tokenizer, length, limit=limit)

    calibration = windows_of(given["calibration"], given["sequences"])
    began = time.process_time()
    found = published.compress(source, calibration, given["fewer"], out, given["seed"])
    used, peak = time.process_time() - began, peak_mb()
    start, end = int(found.pop("start")), int(found.pop("end"))
    dense, pruned = load_decoder(source, "cpu"), load_decoder(out, "cpu")
    perplexity: dict[str, dict[str, float | None]] = {}
    for path in given["evaluate"]:
        windows = windows_of(path)

        def judged(model: Any, windows: Any = windows) -> float | None:
            return likelihoods(model, 8, windows=windows, progress=lambda _: None)["dense"].perplexity

        row = perplexity[Path(path).stem] = {"dense": judged(dense), "pruned": judged(pruned)}
        with without(dense, [(start, end)]):
            row["cut"] = judged(dense)
    parameters = [sum(p.numel() for p in model.model.parameters()) for model in (dense, pruned)]
    return {
        "removed_layers": list(range(start, end)),
        "sparsity": 1 - parameters[1] / parameters[0],
        "perplexity": perplexity,
        "kept": "published",
        "stage_seconds": found,
        "seconds": sum(found.values()),
        "cpu_seconds": used,
        "peak_mb": peak,
    }


def published_flags(arguments: argparse.Namespace, target: list[str], seed: int, out: Path) -> list[str]:
    """What `run_published` is told."""
    name, value = target
    if name != "--layers":
        sys.exit(f"{PUBLISHED} goes with --layers")
    given = {
        "model": str(arguments.model), "out": str(out), "calibration": str(arguments.calibration),
        "sequences": arguments.sequences, "length": arguments.sequence_length, "fewer": int(value), "seed": seed,
        "evaluate": list(map(str, arguments.evaluate)),
    }  # fmt: skip
    return [json.dumps(given)]


def run(arguments: argparse.Namespace, recipe: str, target: list[str], seed: int, out: Path) -> dict[str, Any]:
    """Run one row in a process of its own."""
    own = recipe != PUBLISHED
    told = flags(arguments, recipe, target, seed, out) if own else published_flags(arguments, target, seed, out)
    command = [sys.executable, "-m", "benchmarks.quality", "--one" if own else f"--{PUBLISHED}", *told]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    row: dict[str, Any] = {"recipe": recipe, "target": " ".join(target), "seed": seed}
    if done.returncode:
        return row | {"refused": done.stderr.strip().splitlines()[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row | found


def line(row: dict[str, Any]) -> str:
    """One row as text: for each text the perplexity of the cut and of the pruned model over the dense one's."""
    head = f"{row['target']:<18}{row['recipe']:<16}{row['seed']:>5}"
    if "refused" in row:
        return f"{head}  {row['refused']}"
    removed = row["removed_layers"]
    ratios = "  ".join(
        f"{name} {found['dense']:.2f}: cut x{found['cut'] / found['dense']:.3f} "
        f"pruned x{found['pruned'] / found['dense']:.3f}"
        for name, found in row["perplexity"].items()
    )
    window = ",".join(f"{start}-{end - 1}" for start, end in runs(removed))
    cost = f"{row['seconds']:>7.1f} s{row['cpu_seconds']:>7.1f} CPU s{row['peak_mb']:>6.0f} MB"
    return f"{head}{window:>12}{row['sparsity']:>7.3f}{cost}  {ratios}"


def no_better(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The recipes that were trained, and leave the model no better than the plain cut on some text."""
    judged = [row for row in rows if row.get("kept") == "trained"]
    return [row["recipe"] for row in judged if any(p["pruned"] >= p["cut"] for p in row["perplexity"].values())]


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(run_one(sys.argv[2:])))
        return
    if sys.argv[1:2] == [f"--{PUBLISHED}"]:
        print(json.dumps(run_published(sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--evaluate", type=Path, nargs="+", required=True)
    parser.add_argument("--sparsity", nargs="+", default=["0.25"])
    parser.add_argument("--layers", nargs="+", help="instead of a sparsity: decoder blocks fewer")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--sequences", type=int, default=1000, help="training sequences")
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--flags", default="", help="further flags of the engine, in one word")
    parser.add_argument("--out", type=Path, help="keep the workspaces here (default: a temporary directory)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    name, values = ("--layers", arguments.layers) if arguments.layers else ("--sparsity", arguments.sparsity)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or Path(temporary)
        for value in values:
            for recipe in arguments.recipes:
                for seed in arguments.seeds:
                    place = out / f"{value}-{recipe}-{seed}".replace(":", "-")
                    rows.append(run(arguments, recipe, [name, value], seed, place))
                    print(line(rows[-1]), file=sys.stderr if arguments.json else sys.stdout, flush=True)
    if arguments.json:
        print(json.dumps(rows))
    if worse := no_better(rows):
        sys.stderr.write(f"no better than the plain cut: {', '.join(worse)}\n")
    sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()
