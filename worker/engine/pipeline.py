"""The stages in order: run what is not done yet, skip what is, leave no half-done stage behind."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from worker.engine import assembly, benchmark, fetch, verification
from worker.engine import stages as choice
from worker.engine.activation_store import disk_full
from worker.engine.code_version import code_version
from worker.engine.context import StageContext, StageFunction, sha256_of
from worker.engine.errors import EngineError
from worker.engine.evaluation import stage as evaluation
from worker.engine.healing import stage as healing
from worker.engine.healing.updates import UPDATES
from worker.engine.ledger import Entry, Ledger, sha256_of_file
from worker.engine.recipe import Recipe, Text
from worker.engine.report import REPORT_FILE, write_report
from worker.engine.text import SELF_TEXT_FILE
from worker.engine.training import stage as training

_LOCK_SECONDS = 20.0  # longer than a killed engine needs to be gone

Parts = Callable[[Recipe], Mapping[str, Any]]


@dataclass(frozen=True)
class Stage:
    """One step of the way.

    Attributes:
        name: as in the contract.
        run: does the work and writes the outputs.
        parts: what of the recipe it depends on.
        reads: outputs of earlier stages that it depends on; a directory stands for all files in it.
        outputs: files and directories that it writes; those it leaves out (the replacement of `none`) may be absent.
        reported: the stage of the contract that it is a step of, where it is no stage itself.
        wanted: whether a recipe asks for it; all do by default.
    """

    name: str
    run: StageFunction
    parts: Parts
    reads: tuple[str, ...]
    outputs: tuple[str, ...]
    reported: str = ""
    wanted: Callable[[Recipe], bool] = lambda _: True


def _lineage(context: StageContext) -> dict[str, Any]:
    """Return what the checkpoint's bytes came from: hashes of model, texts and code, and the seed."""
    recipe, own = context.recipe, context.workspace / SELF_TEXT_FILE
    fetched = context.workspace / fetch.OUTPUT
    texts = {text.name: text.path for text in (recipe.calibration, *recipe.evaluation)}
    if recipe.calibration.path is None and own.is_file():
        texts[recipe.calibration.name] = str(own)
    return {
        "model": {
            "name": recipe.model.name,
            "revision": recipe.model.revision,
            "hash": context.read_json(fetch.OUTPUT)["hash"] if fetched.is_file() else None,
        },
        "data": {name: path and _sha256_of_text(path) for name, path in texts.items()},
        "code": code_version(),
        "seed": recipe.seed,
    }


def _model(recipe: Recipe) -> Mapping[str, Any]:
    path = Path(recipe.model.path)
    # The time of change beside the size: a model that is written anew in place often keeps every size.
    found = {file.name: file.stat() for file in path.iterdir() if file.is_file()} if path.is_dir() else {}
    files = {name: [status.st_size, status.st_mtime_ns] for name, status in found.items()}
    return {"name": recipe.model.name, "revision": recipe.model.revision, "files": files, **_target(recipe)}


def _target(recipe: Recipe) -> Mapping[str, Any]:
    everything = recipe.to_json()
    block = {"kind": recipe.replacement.kind, "layers": recipe.replacement.layers}
    return {"target": everything["target"], **block, "format": recipe.output.format}


def _scoring(recipe: Recipe) -> Mapping[str, Any]:
    """The table of a metric that scores all windows alike depends on no target, unless its sample does."""
    one_size = recipe.scoring.adaptive or recipe.scoring.metric in ("perplexity", "task")
    return {"scoring": recipe.to_json()["scoring"], **(_target(recipe) if one_size else {})}


def _text(text: Text) -> Mapping[str, Any]:
    return {"column": text.column, "name": text.name, "sha256": text.path and _sha256_of_text(text.path)}


@cache
def _sha256_of_text(path: str) -> str:
    return sha256_of_file(Path(path)) if Path(path).is_file() else "missing"


def _judging(recipe: Recipe) -> Mapping[str, Any]:
    judging = recipe.judging
    tasks = [[task.name, task.definition, _sha256_of_text(task.path)] for task in judging.tasks]
    return {"tasks": tasks, "limit": judging.limit, "over": judging.over}


def _calibration(recipe: Recipe) -> Mapping[str, Any]:
    return {
        "calibration": _text(recipe.calibration),
        "length": recipe.scoring.sequence_length,
        "tokens": recipe.replacement.tokens,
        "held_out": not recipe.evaluation,
        "seed": recipe.seed,
    }


STAGES: tuple[Stage, ...] = (
    Stage("fetch", fetch.run, _model, (), (fetch.OUTPUT,)),
    Stage(
        "score",
        choice.score,
        lambda recipe: {**_scoring(recipe), **_calibration(recipe)},
        (fetch.OUTPUT,),
        (choice.SCORES, SELF_TEXT_FILE),
    ),
    Stage("select", choice.select, _target, (fetch.OUTPUT, choice.SCORES), (choice.SELECTION,)),
    Stage(
        "train",
        training.train,
        lambda recipe: {
            "replacement": recipe.to_json()["replacement"],
            "dtype": recipe.output.dtype,
            **_calibration(recipe),
        },
        (fetch.OUTPUT, choice.SELECTION, SELF_TEXT_FILE),
        (training.TRAINING, training.REPLACEMENT),
    ),
    Stage(
        "heal",
        healing.heal,
        lambda recipe: {
            **_target(recipe),
            "healing": recipe.to_json()["healing"],
            "dtype": recipe.output.dtype,
            **_calibration(recipe),
        },
        (fetch.OUTPUT, choice.SELECTION, training.REPLACEMENT, SELF_TEXT_FILE),
        (healing.HEALING, UPDATES),
        reported="train",
        wanted=lambda recipe: recipe.healing is not None,
    ),
    Stage(
        "assemble",
        assembly.run,
        lambda recipe: {"output": recipe.to_json()["output"], "kind": recipe.replacement.kind},
        (fetch.OUTPUT, choice.SELECTION, training.REPLACEMENT, UPDATES),
        ("checkpoint",),
    ),
    Stage(
        "verify",
        verification.run,
        lambda recipe: {"seed": recipe.seed},
        (fetch.OUTPUT, choice.SELECTION, training.REPLACEMENT, UPDATES, "checkpoint"),
        ("verification.json", verification.PROBE),
    ),
    Stage(
        "evaluate",
        evaluation.run,
        lambda recipe: {
            "texts": [_text(text) for text in recipe.evaluation],
            **_judging(recipe),
            **_calibration(recipe),
        },
        (fetch.OUTPUT, choice.SELECTION, SELF_TEXT_FILE, "checkpoint"),
        (evaluation.OUTPUT, evaluation.SAMPLES),
    ),
    Stage(
        "benchmark",
        benchmark.run,
        lambda recipe: {"benchmark": recipe.to_json()["benchmark"], "seed": recipe.seed},
        (fetch.OUTPUT, "checkpoint"),
        ("benchmark.json",),
    ),
)


def run_pipeline(context: StageContext, stages: tuple[Stage, ...] = STAGES) -> dict[str, Any]:
    """Run those stages that are not done, write the report and return it.

    Raises:
        EngineError: a stage failed in a way that a person can act on; the stages before it stay done.
    """
    try:
        context.workspace.mkdir(parents=True, exist_ok=True)
        with sole_user(context.workspace):
            return _run_all(context, stages)
    except Exception as error:
        if _of_full_disk(error):
            raise disk_full(context.workspace, _needed(context)) from error
        raise


def _run_all(context: StageContext, stages: tuple[Stage, ...]) -> dict[str, Any]:
    context.write_json("recipe.json", context.recipe.to_json())
    ledger = Ledger(context.workspace)
    seconds: dict[str, float] = {}
    done: dict[str, Entry] = {}
    for stage in stages:
        if not stage.wanted(context.recipe):
            _remove_outputs(stage, context.workspace)
            continue
        reported = stage.reported or stage.name
        inputs = _inputs(stage, context.recipe, done)
        context.emit.stage_started(reported)
        skipped = ledger.is_done(stage.name, inputs)
        entry = ledger.entry(stage.name) if skipped else _run(stage, inputs, context, ledger)
        assert entry is not None
        done[stage.name] = entry
        seconds[reported] = seconds.get(reported, 0.0) + entry.seconds
        context.emit.stage_finished(reported, seconds=entry.seconds, skipped=skipped, outputs=entry.hashes)
    report = write_report(context, seconds, _lineage(context))
    context.emit.finished(REPORT_FILE)
    return report


@contextmanager
def sole_user(workspace: Path) -> Iterator[None]:
    """Hold a workspace; the kernel lets go of the lock however this process ends.

    Raises:
        EngineError: `workspace_busy` where another engine keeps it.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    with (workspace / ".lock").open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EngineError(
                        "workspace_busy",
                        f"another engine is at work in {workspace}; wait for it or choose another directory",
                        permanent=False,
                    ) from None
                time.sleep(0.1)
        yield


def _run(stage: Stage, inputs: str, context: StageContext, ledger: Ledger) -> Entry:
    _remove_outputs(stage, context.workspace)
    _remove(context.workspace / "tmp")
    choice.seed_everything(context, stage.name)
    began = time.monotonic()
    try:
        stage.run(context)
    finally:
        _remove(context.workspace / "tmp")
    return ledger.record(stage.name, inputs, stage.outputs, round(time.monotonic() - began, 3))


def _of_full_disk(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # Safetensors has an exception of its own, with the system's words in it.
    return type(error).__name__ == "SafetensorError" and os.strerror(errno.ENOSPC) in str(error)


def _needed(context: StageContext) -> int:
    """Return about what the rest of the run writes at most: another copy of the weights."""
    return sum(path.stat().st_size for path in context.model.glob("*.safetensors"))


def _inputs(stage: Stage, recipe: Recipe, done: Mapping[str, Entry]) -> str:
    read = {
        path: digest
        for entry in done.values()
        for path, digest in entry.hashes.items()
        if any(path == name or path.startswith(f"{name}/") for name in stage.reads)
    }
    return sha256_of({"stage": stage.name, "recipe": stage.parts(recipe), "read": read, "code": code_version()})


def _remove_outputs(stage: Stage, workspace: Path) -> None:
    for name in stage.outputs:
        _remove(workspace / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def as_engine_error(error: Exception) -> EngineError:
    """Return the error that a person is told for any exception: out of memory by name, else its own words."""
    if isinstance(error, EngineError):
        return error
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return EngineError(
            "out_of_memory",
            f"memory ran out ({error}); lower replacement.batch_size or scoring.sequence_length",
            permanent=False,
        )
    return EngineError("internal", f"{type(error).__name__}: {error}", permanent=False)
