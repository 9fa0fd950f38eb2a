"""The stages in order: run what is not done yet, skip what is, leave no half-done stage behind."""

from __future__ import annotations

import errno
import fcntl
import gc
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from worker.engine import assembly, benchmark, fetch, verification
from worker.engine import stages as choice
from worker.engine.activation_store import disk_full
from worker.engine.code_version import code_version
from worker.engine.context import REPLACEMENT, SELF_TEXT_FILE, StageContext, sha256_of
from worker.engine.device import is_out_of_memory
from worker.engine.errors import EngineError
from worker.engine.evaluation import stage as evaluation
from worker.engine.healing import stage as healing
from worker.engine.healing.updates import UPDATES
from worker.engine.ledger import Entry, Ledger, sha256_of_file
from worker.engine.peak_memory import forget_gpu_peak, gpu_peak_bytes
from worker.engine.recipe import Recipe, Text
from worker.engine.report import REPORT_FILE, write_report
from worker.engine.steps import CHECKPOINT, Stage, Step, first_step, further_steps
from worker.engine.training import stage as training

_LOCK_SECONDS = 20.0  # longer than a killed engine needs to be gone


def _lineage(context: StageContext) -> dict[str, Any]:
    """Return what checkpoint and report came from, with the context of the first step: hashes, and the seed."""
    recipe, own = context.recipe, context.self_text
    fetched = context.workspace / fetch.OUTPUT
    rows: dict[str, str | None] = {task.name: task.path for task in recipe.judging.tasks}
    texts = rows | {text.name: text.path for text in (recipe.calibration, *recipe.evaluation)}
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
    files = _files(Path(recipe.model.path))
    return {"name": recipe.model.name, "revision": recipe.model.revision, "files": files, **_target(recipe)}


def _files(path: Path) -> Mapping[str, Sequence[int]]:
    # The time of change beside the size: a model that is written anew in place often keeps every size.
    found = {file.name: file.stat() for file in path.iterdir() if file.is_file()} if path.is_dir() else {}
    return {name: [status.st_size, status.st_mtime_ns] for name, status in found.items()}


def _target(recipe: Recipe) -> Mapping[str, Any]:
    everything = recipe.to_json()
    block = {"kind": recipe.replacement.kind, "layers": recipe.replacement.layers}
    spread = {"selection": everything["selection"]}
    return {"target": everything["target"], **block, **spread, "format": recipe.output.format}


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


def _benchmark(recipe: Recipe) -> Mapping[str, Any]:
    rivals = [_files(Path(rival.path)) for rival in recipe.benchmark.rivals]
    return {**recipe.to_json()["benchmark"], "rival_files": rivals}


def _place(recipe: Recipe) -> Mapping[str, Any]:
    """Where it runs: no result of a checkpoint's, but what is timed, and what a streamed run leaves out."""
    return {"device": recipe.device, "execution": recipe.execution}


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
        (fetch.OUTPUT, SELF_TEXT_FILE),
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
        (training.TRAINING, REPLACEMENT),
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
        (fetch.OUTPUT, choice.SELECTION, REPLACEMENT, SELF_TEXT_FILE),
        (healing.HEALING, UPDATES),
        reported="train",
        wanted=lambda recipe: recipe.healing is not None,
    ),
    Stage(
        "assemble",
        assembly.run,
        lambda recipe: {"output": recipe.to_json()["output"], "kind": recipe.replacement.kind},
        (fetch.OUTPUT, choice.SELECTION, REPLACEMENT, UPDATES),
        (CHECKPOINT,),
    ),
    Stage(
        "verify",
        verification.run,
        lambda recipe: {"seed": recipe.seed},
        (fetch.OUTPUT, choice.SELECTION, REPLACEMENT, UPDATES, CHECKPOINT),
        ("verification.json", verification.PROBE),
    ),
    Stage(
        "evaluate",
        evaluation.run,
        lambda recipe: {
            "texts": [_text(text) for text in recipe.evaluation],
            **_judging(recipe),
            **_place(recipe),
            **_calibration(recipe),
        },
        (fetch.OUTPUT, choice.SELECTION, SELF_TEXT_FILE, CHECKPOINT),
        (evaluation.OUTPUT, evaluation.SAMPLES),
    ),
    Stage(
        "benchmark",
        benchmark.run,
        lambda recipe: {"benchmark": _benchmark(recipe), "seed": recipe.seed, **_place(recipe)},
        (fetch.OUTPUT, CHECKPOINT),
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
    _forget_other_report(context)
    context.write_json("recipe.json", context.recipe.to_json())
    run = _Run(context)
    first = first_step(context, stages)
    run.through([first])
    run.through(further_steps(context, stages))
    report = write_report(context, run.seconds, _lineage(first.context))
    context.emit.finished(REPORT_FILE)
    return report


def _forget_other_report(context: StageContext) -> None:
    """A report lies beside the recipe that it is of, also where this run ends before it has its own."""
    before = context.workspace / "recipe.json"
    if before.is_file() and context.read_json("recipe.json") != json.loads(json.dumps(context.recipe.to_json())):
        (context.workspace / REPORT_FILE).unlink(missing_ok=True)


class _Run:
    """What is done so far, and what that left behind."""

    def __init__(self, context: StageContext) -> None:
        self.seconds: dict[str, float] = {}
        self._context, self._ledger = context, Ledger(context.workspace)
        self._hashes: dict[str, str] = {}
        self._last: StageContext | None = None

    def through(self, steps: Sequence[Step]) -> None:
        """Run those steps that are wanted and not done."""
        for step in (step for step in steps if not step.wanted):
            self._remove_outputs(step)
        steps = [step for step in steps if step.wanted]
        settled = self._settled(steps)
        for step in steps:
            self._change_to(step.context)
            name, inputs = step.stage.reported or step.stage.name, _inputs(step, self._hashes)
            step.context.emit.stage_started(name, part=step.part)
            entry = self._ledger.entry(step.key)
            skipped = step.key in settled and entry is not None and entry.inputs == inputs
            if not skipped:
                entry = self._run(step, inputs)
                if (held := gpu_peak_bytes(step.context.device)) is not None:
                    step.context.emit.metric(gpu_memory_bytes=held)
            assert entry is not None
            self._hashes |= entry.hashes
            self.seconds[name] = round(self.seconds.get(name, 0.0) + entry.seconds, 3)
            step.context.emit.stage_finished(name, seconds=entry.seconds, skipped=skipped, outputs=entry.hashes)
            if step.releases:
                _remove(self._context.workspace / step.releases)

    def _settled(self, steps: Sequence[Step]) -> set[str]:
        """Return the keys of those steps that need not run if what they read does not change meanwhile.

        What a step releases may be missing only where all steps from the one that made it on are done.
        """
        hashes, known = dict(self._hashes), list[tuple[Step, str]]()
        for step in steps:
            known.append((step, _inputs(step, hashes)))
            entry = self._ledger.entry(step.key)
            hashes |= entry.hashes if entry else {}
        settled: set[str] = set()
        released: list[str] = []
        for step, inputs in reversed(known):
            if self._ledger.is_done(step.key, inputs, released):
                settled.add(step.key)
                released += [step.releases] if step.releases else []
            else:
                released = []
        return settled

    def _run(self, step: Step, inputs: str) -> Entry:
        self._remove_outputs(step)
        scratch = step.context.workspace / "tmp"
        _remove(scratch)
        forget_gpu_peak(step.context.device)
        choice.seed_everything(step.context, step.stage.name)
        began = time.monotonic()
        try:
            step.stage.run(step.context)
        finally:
            _remove(scratch)
        return self._ledger.record(step.key, inputs, step.outputs, round(time.monotonic() - began, 3))

    def _remove_outputs(self, step: Step) -> None:
        for name in step.outputs:
            _remove(self._context.workspace / name)

    def _change_to(self, context: StageContext) -> None:
        """Let go of the models of the round before, so that one at a time is enough."""
        if self._last is not None and self._last.memo is not context.memo:
            self._last.memo.clear()
            gc.collect()
        self._last = context


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


def _of_full_disk(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # Safetensors has an exception of its own, with the system's words in it.
    return type(error).__name__ == "SafetensorError" and os.strerror(errno.ENOSPC) in str(error)


def _needed(context: StageContext) -> int:
    """Return about what the rest of the run writes at most: another copy of the weights."""
    return sum(path.stat().st_size for path in context.model.glob("*.safetensors"))


def _inputs(step: Step, done: Mapping[str, str]) -> str:
    read = {
        path: digest
        for path, digest in done.items()
        if any(path == name or path.startswith(f"{name}/") for name in step.reads)
    }
    stage = step.stage
    parts = {"stage": stage.name, "recipe": stage.parts(step.context.recipe), "read": read}
    return sha256_of({**parts, "code": code_version()})


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def as_engine_error(error: Exception) -> EngineError:
    """Return the error that a person is told for any exception: out of memory by name, else its own words."""
    if isinstance(error, EngineError):
        return error
    if is_out_of_memory(error):
        return EngineError(
            "out_of_memory",
            f"memory ran out ({error}); lower replacement.batch_size or scoring.sequence_length",
            permanent=False,
        )
    return EngineError("internal", f"{type(error).__name__}: {error}", permanent=False)
