"""The report of a run: what every stage found, and the metrics under the contract's names."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from app.core.report_version import REPORT_VERSION
from worker.engine.context import WINDOWS, StageContext
from worker.engine.steps import workspace_of_round

REPORT_FILE = "report.json"
STAGE_FILES = ("execution", "selection", "scores", "training", "healing", "verification", "evaluation", "benchmark")
_PACKAGES = ("torch", "transformers", "safetensors", "tokenizers", "numpy")


def write_report(
    context: StageContext, stage_seconds: Mapping[str, float], lineage: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write `report.json` from the files of the finished stages, and return it.

    Args:
        context: of the run.
        stage_seconds: of each stage, those of the run in which it was done (not of a skipped repeat), over all windows
            and rounds.
        lineage: hashes of model, data and code, and the seed: what the checkpoint's bytes came from.
    """
    parts = {name: _read(context, name) for name in STAGE_FILES}
    surroundings = {"environment": environment(context), "recipe": context.recipe.to_json(), "lineage": lineage}
    report = {**compose(parts | _several(context), stage_seconds), **surroundings}
    context.write_json(REPORT_FILE, report)
    return report


def _several(context: StageContext) -> dict[str, Any]:
    """Return the parts of the report that several windows or rounds make other than one would.

    `rounds` has each round; the scores beside it are the first one's, whose layers are the dense model's.
    """
    selection = context.recipe.selection
    if selection.mode == "iterative":
        each = [_of_round(context, number) for number in range(1, selection.rounds + 1)]
        return {"scores": each[0]["scores"], "rounds": each}
    if selection.windows == 1:
        return {}
    trained = [_read(context, f"{WINDOWS}/{number}/training") for number in range(1, selection.windows + 1)]
    if None in trained:
        return {}
    return {
        "training": {
            "kind": context.recipe.replacement.kind,
            "phases": [phase for window in trained for phase in window["phases"]],
            "kept": next((w["kept"] for w in trained if w["kept"] == "trained"), trained[0]["kept"]),
            "diverged": any(window.get("diverged") for window in trained),
            "windows": trained,
        }
    }


def compose(parts: Mapping[str, Any], stage_seconds: Mapping[str, float]) -> dict[str, Any]:
    """Return the report but for what surrounds a run: what the stages found (None where one did not run)."""
    return {
        "schema": REPORT_VERSION,
        "metrics": metrics(parts, stage_seconds),
        "removed_layers": (parts["selection"] or {}).get("removed_layers"),
        "samples": (parts["evaluation"] or {}).get("samples", []),
        **parts,
        "stage_seconds": dict(stage_seconds),
    }


def _of_round(context: StageContext, number: int) -> dict[str, Any]:
    place = workspace_of_round(number, context.recipe.selection.rounds)
    return {name: _read(context, f"{place}{name}") for name in ("selection", "scores", "training", "verification")}


def metrics(parts: Mapping[str, Any], stage_seconds: Mapping[str, float]) -> dict[str, Any]:
    """Return the metrics under the names of the contract, from the stages' results; absent where a stage is.

    Speeds are medians at the first batch size and prompt length of the request.
    """
    found: dict[str, Any] = {"stage_seconds": dict(stage_seconds)}
    if evaluation := parts.get("evaluation"):
        texts = evaluation["perplexity"]
        found["perplexity"] = {
            variant: {name: text[variant] for name, text in texts.items()} for variant in ("dense", "cut", "pruned")
        }
        found["next_token_kl"] = {name: text.get("next_token", {}).get("kl") for name, text in texts.items()}
        found["perplexity_held_out"] = evaluation["held_out"]
        # Over several texts the geometric mean: perplexities are exponentials of means.
        known = [text["ratio"] for text in texts.values()]
        ratios = [math.log(ratio) for ratio in known if ratio]
        # One text without a finite ratio leaves nothing to average.
        mean = math.exp(sum(ratios) / len(ratios)) if len(ratios) == len(known) else None
        found["perplexity_ratio"] = mean
        found["worst_perplexity_ratio"] = None if mean is None else max(known)
        found["retained_perplexity"] = None if mean is None else 1 / mean
        ratios_between = {name: text.get("ratio_interval") for name, text in texts.items()}
        found["intervals"] = {"perplexity_ratio": {name: ends for name, ends in ratios_between.items() if ends}}
        of_tasks = _tasks(evaluation)
        found["intervals"] |= of_tasks.pop("intervals", {})
        found |= of_tasks
    if benchmark := parts.get("benchmark"):
        found |= _speed(benchmark)
        found.setdefault("intervals", {})["speedup"] = _between(benchmark)
    if selection := parts.get("selection"):
        found["planned_sparsity"] = selection.get("sparsity")
    if verification := parts.get("verification"):
        found["logits_max_difference"] = verification["logits_max_difference"]
    return found


def _tasks(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return accuracy, stability, retained accuracy and flips per task and in the mean; `intervals` are [low, high]."""
    tasks, mean = evaluation.get("tasks", {}), evaluation.get("tasks_mean")
    if not tasks or mean is None:
        return {}
    measured: dict[str, dict[str, Mapping[str, float] | None]] = {
        "stability": {name: task["stability"] for name, task in tasks.items()},
        "flip_rate": {name: task["flip_rate"] for name, task in tasks.items()},
        "task_retained_accuracy": {name: task["retained"] for name, task in tasks.items()},
    }
    means = {"stability": mean["stability"], "flip_rate": mean["flip_rate"]}
    means["task_retained_accuracy"] = mean["retained_accuracy"]
    for name, values in measured.items():
        values["mean"] = means[name]
    return {
        "accuracy": {
            variant: {name: task["accuracy"][variant] for name, task in tasks.items()}
            | {"mean": mean["accuracy"][variant]}
            for variant in ("dense", "pruned")
        },
        **{
            name: {task: value and value["value"] for task, value in values.items()}
            for name, values in measured.items()
        },
        "retained_accuracy": mean["retained_accuracy"] and mean["retained_accuracy"]["value"],
        "flips": {name: task["flips"] for name, task in tasks.items()},
        "intervals": {
            name: {task: [value["low"], value["high"]] for task, value in values.items() if value}
            for name, values in measured.items()
        },
    }


def _speed(benchmark: Mapping[str, Any]) -> dict[str, Any]:
    # Nothing was timed where no model was in memory.
    first: dict[str, Any] = next(iter(benchmark["settings"]), {"models": {}})
    sizes = {name: benchmark["models"].get(name, {}) for name in ("dense", "pruned")}
    found: dict[str, Any] = {
        name: {variant: values.get(name) for variant, values in sizes.items()}
        for name in ("parameters", "flops_per_token", "checkpoint_bytes")
    }
    found["sparsity"] = 1 - found["parameters"]["pruned"] / found["parameters"]["dense"]
    timed = {variant: first["models"].get(variant, {}) for variant in sizes}
    for name in ("decode_tokens_per_second", "prefill_tokens_per_second", "time_to_first_token_s"):
        # Under the contract's names with null for what was not measured, so that nobody takes a gap for a number.
        found[name] = {variant: values.get(name, {}).get("median") for variant, values in timed.items()}
    for name in ("token_latency_s", "peak_memory_bytes"):
        found[name] = {variant: values.get(name) for variant, values in timed.items()}
    for name in ("speedup", "prefill_speedup"):
        found[name] = first[name]["median"] if name in first else None  # a gate on None is missed
    if missing := benchmark.get("not_measured"):
        found["not_measured"] = missing
    return found


def _between(benchmark: Mapping[str, Any]) -> list[float] | None:
    """Return the interval of the speed-up at the first setting; None where there were not two rounds."""
    first: Mapping[str, Any] = next(iter(benchmark["settings"]), {})
    found = first.get("speedup", {})
    return [found["low"], found["high"]] if {"low", "high"} <= set(found) else None


def environment(context: StageContext) -> dict[str, Any]:
    """Return where a run took place: versions, device, threads."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "platform": platform.platform(),
        "device": context.device,
        "device_name": torch.cuda.get_device_name() if context.device == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read(context: StageContext, name: str) -> Any:
    path = f"{name}.json"
    return context.read_json(path) if (context.workspace / path).is_file() else None
