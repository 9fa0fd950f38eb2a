"""Perplexity of every replacement on one model, with the seconds of each stage: the table that the defaults rest on.

    python -m benchmarks.quality --model DIR --calibration FILE --evaluate FILE [--sparsity 0.25 | --layers 6]
        [--kinds none ffn swiglu layer linear_merged linear_residual] [--replacement-layers 2] [--init best]
        [--metric cosine] [--sequences 1000] [--epochs N] [--learning-rate F] [--out DIR] [--json]

Runs the engine's own stages up to the evaluation of the written checkpoint. Exits 1 where a trained kind does not end
below the plain cut.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from app.core.architectures import BLOCK_KINDS, FITTED_KINDS
from worker.engine.__main__ import make_parser
from worker.engine.request import check, recipe_from

STAGES = ("fetch", "score", "select", "train", "assemble", "evaluate")


def flags(arguments: argparse.Namespace, kind: str, out: Path) -> list[str]:
    length = arguments.sequence_length
    chosen = {
        "--model": arguments.model, "--out": out, "--cache": out / "cache", "--kind": kind,
        "--calibration": arguments.calibration, "--evaluate": arguments.evaluate,
        "--init": None if kind in FITTED_KINDS else arguments.init, "--metric": arguments.metric,
        "--replacement-layers": arguments.replacement_layers if kind == "layer" else None,
        "--tokens": arguments.sequences * length, "--sequence-length": length, "--epochs": arguments.epochs,
        "--learning-rate": arguments.learning_rate, "--seed": arguments.seed, "--layers": arguments.layers,
        "--sparsity": arguments.sparsity if arguments.layers is None else None,
    }  # fmt: skip
    return [str(part) for name, value in chosen.items() if value is not None for part in (name, value)]


def run(arguments: argparse.Namespace, kind: str, out: Path) -> dict[str, Any]:
    from worker.engine import device, pipeline
    from worker.engine.context import StageContext
    from worker.engine.events import silent

    recipe = recipe_from(make_parser().parse_args(flags(arguments, kind, out)))
    check(recipe)
    context = StageContext(recipe, out, out / "cache", silent(), device.resolve("auto"))
    stages = tuple(stage for stage in pipeline.STAGES if stage.name in STAGES)
    report = pipeline.run_pipeline(context, stages)
    (perplexity,) = report["evaluation"]["perplexity"].values()
    training = report["training"]
    return {
        "kind": kind,
        "removed_layers": report["removed_layers"],
        "sparsity": report["selection"]["sparsity"],
        "perplexity": {name: perplexity[name] for name in ("dense", "cut", "pruned")},
        "relative_error": training.get("relative_error"),
        "kept": training["kept"],
        "seconds": {**report["stage_seconds"], **training["seconds"]},
    }


def print_table(results: list[dict[str, Any]]) -> None:
    print(f"{'kind':<16}{'layers':>8}{'sparsity':>10}{'dense':>9}{'cut':>9}{'pruned':>9}{'ratio':>8}  seconds")
    for result in results:
        removed, perplexity = result["removed_layers"], result["perplexity"]
        seconds = " ".join(f"{name} {value:.1f}" for name, value in result["seconds"].items())
        print(
            f"{result['kind']:<16}{f'{removed[0]}-{removed[-1]}':>8}{result['sparsity']:>10.3f}"
            f"{perplexity['dense']:>9.2f}{perplexity['cut']:>9.2f}{perplexity['pruned']:>9.2f}"
            f"{perplexity['pruned'] / perplexity['dense']:>8.3f}  {seconds}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--evaluate", type=Path, required=True)
    parser.add_argument("--sparsity", type=float, default=0.25)
    parser.add_argument("--layers", type=int, help="instead of a sparsity: decoder blocks fewer")
    parser.add_argument("--kinds", nargs="+", default=list(BLOCK_KINDS))
    parser.add_argument("--replacement-layers", type=int)
    parser.add_argument("--metric")
    parser.add_argument("--sequences", type=int, default=1000, help="training sequences")
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--init")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="keep the workspaces here (default: a temporary directory)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or Path(temporary)
        results = [run(arguments, kind, out / kind) for kind in arguments.kinds]
    if arguments.json:
        print(json.dumps(results))
    else:
        print_table(results)
    worse = [r["kind"] for r in results if r["kind"] != "none" and r["perplexity"]["pruned"] >= r["perplexity"]["cut"]]
    if worse:
        sys.stderr.write(f"no better than the plain cut: {', '.join(worse)}\n")
    sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()
