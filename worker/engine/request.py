"""From command-line flags to a resolved recipe."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TypeVar, get_args

from app.core import defaults, tasks
from app.core.architectures import BLOCK_KINDS, ArchitectureError
from app.core.selection import Selection, Target
from app.core.training_fields import idle_field
from worker.engine import fetch
from worker.engine.errors import EngineError
from worker.engine.recipe import (
    Backend,
    Benchmark,
    Device,
    Divergence,
    Dtype,
    Execution,
    Format,
    Healing,
    Init,
    Judging,
    Loss,
    Metric,
    ModelSource,
    Output,
    Over,
    Recipe,
    Replacement,
    Scoring,
    TaskData,
    Text,
)

Number = TypeVar("Number", int, float)


def default_cache() -> Path:
    """Return the user's cache directory for the engine (XDG base directory specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamline"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags; whatever is not given gets its default from `app.core.defaults`."""
    run = parser.add_argument_group("the run")
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="workspace: stages, checkpoint and report")
    run.add_argument(
        "--cache",
        type=Path,
        default=default_cache(),
        metavar="DIR",
        help="kept between runs: sampled text (%(default)s)",
    )
    run.add_argument("--overwrite", action="store_true", help="also where DIR holds a finished run of another recipe")
    run.add_argument("--json", action="store_true", help="print events as JSON lines on stdout")
    run.add_argument("--leashed", action="store_true", help="end when standard input ends: with the parent")
    run.add_argument(
        "--activation-bytes", type=int, metavar="N",
        help="disk for hidden states to train on; more are computed anew in each pass (default: half of what is free)",
    )  # fmt: skip
    run.add_argument(
        "--processes", type=int, metavar="N", help="train with N processes (default: one per CUDA device, else 1)"
    )
    run.add_argument(
        "--recipe",
        type=Path,
        metavar="FILE",
        help="a resolved recipe; only these flags count then, and --model, --calibration, --evaluate, --task-data and "
        "--rival, which say where its files are here",
    )
    model = parser.add_argument_group("what to compress")
    model.add_argument("--model", type=Path, metavar="DIR", help="a Hugging Face directory with safetensors")
    model.add_argument("--trust-remote-code", action="store_true", help="let modelling code in the directory run")
    target = parser.add_argument_group("how much (exactly one)").add_mutually_exclusive_group()
    target.add_argument("--sparsity", type=float, metavar="F", help="net share of the parameters that goes, 0 < F < 1")
    target.add_argument("--layers", type=int, metavar="N", help="decoder blocks fewer in the result")
    target.add_argument("--window", type=int, nargs=2, metavar=("A", "B"), help="replace exactly layers A to B - 1")
    spread = parser.add_argument_group("in how many windows (a replacement each)")
    spread.add_argument(
        "--windows", type=int, default=defaults.WINDOWS, metavar="N", help="of one score table (default: %(default)s)"
    )
    spread.add_argument(
        "--rounds", type=int, default=1, metavar="N", help="iterative: score anew what the round before left (1)"
    )
    block = parser.add_argument_group("what comes in their place")
    block.add_argument("--kind", choices=BLOCK_KINDS, default=defaults.KIND, help="replacement (default: %(default)s)")
    block.add_argument("--replacement-layers", type=int, default=1, metavar="K", help="of kind layer (%(default)s)")
    block.add_argument("--init", choices=get_args(Init), help="what it starts from (default: best, or the fit itself)")
    block.add_argument("--loss", choices=get_args(Loss), default=defaults.LOSS, help="trained for (%(default)s)")
    block.add_argument(
        "--divergence", choices=get_args(Divergence), default=defaults.DIVERGENCE, help="of kd (%(default)s)"
    )
    block.add_argument("--epochs", type=int, default=defaults.EPOCHS, help="passes over the tokens (%(default)s)")
    block.add_argument("--learning-rate", type=float, metavar="F", help="peak of the schedule (by hidden size)")
    block.add_argument(
        "--second-epochs", type=int, default=defaults.SECOND_EPOCHS, help="of the second step of a+b (%(default)s)"
    )
    block.add_argument("--second-learning-rate", type=float, metavar="F", help="its peak (by hidden size)")
    block.add_argument("--tokens", type=int, metavar="N", help="distinct tokens to score and train on at most")
    block.add_argument("--batch-size", type=int, metavar="N", help="sequences per training step")
    healing = parser.add_argument_group("further training of the whole (needs it in memory)")
    healing.add_argument("--healing", choices=("lora",), help="adapters, merged before writing (default: none)")
    healing.add_argument("--healing-rank", type=int, default=defaults.HEALING_RANK, metavar="N", help="(%(default)s)")
    healing.add_argument(
        "--healing-alpha", type=float, default=defaults.HEALING_ALPHA, metavar="F", help="scale x rank (%(default)s)"
    )
    healing.add_argument(
        "--healing-epochs", type=int, default=defaults.HEALING_EPOCHS, metavar="N", help="(%(default)s)"
    )
    healing.add_argument("--healing-learning-rate", type=float, metavar="F", help="peak of the schedule (by width)")
    healing.add_argument("--healing-tokens", type=int, metavar="N", help="the first of --tokens (default: all)")
    healing.add_argument("--healing-batch-size", type=int, metavar="N", help="sequences per training step")
    data = parser.add_argument_group("text (JSONL or plain)")
    data.add_argument("--calibration", type=Path, metavar="FILE", help="default: sampled from the model itself")
    data.add_argument(
        "--evaluate", type=Path, nargs="+", default=[], metavar="FILE", help="perplexity (default: held out)"
    )
    data.add_argument("--column", default=defaults.TEXT_COLUMN, help="field of a JSONL row (%(default)s)")
    data.add_argument("--metric", choices=get_args(Metric), default=defaults.METRIC, help="of windows (%(default)s)")
    data.add_argument("--sequences", type=int, default=defaults.SCORING_SEQUENCES, help="to score with (%(default)s)")
    data.add_argument("--no-adaptive", action="store_true", help="score all of them, also when fewer tell the best")
    data.add_argument("--sequence-length", type=int, metavar="N", help="tokens per window")
    questions = parser.add_argument_group("questions")
    questions.add_argument(
        "--tasks", nargs="+", metavar="TASK", help="names, or JSONL files of your own (default: the paper's, with data)"
    )
    questions.add_argument("--task-data", type=Path, metavar="DIR", help="their files (default: none, and no tasks)")
    questions.add_argument("--limit", type=int, default=defaults.TASK_LIMIT, metavar="N", help="of each (%(default)s)")
    questions.add_argument(
        "--stride", type=int, metavar="N", help="tokens from one perplexity window to the next (default: no overlap)"
    )
    questions.add_argument("--over", choices=get_args(Over), default=defaults.OVER, help="of stability (%(default)s)")
    speed = parser.add_argument_group("benchmark")
    speed.add_argument("--benchmark-batch-sizes", type=int, nargs="+", default=list(defaults.BENCHMARK_BATCH_SIZES))
    speed.add_argument("--prompt-tokens", type=int, nargs="+", metavar="N", help="one or more lengths")
    speed.add_argument("--new-tokens", type=int, metavar="N")
    speed.add_argument(
        "--rival", type=Path, nargs="+", default=[], metavar="DIR", help="other checkpoints to time beside the two"
    )
    speed.add_argument("--backend", choices=get_args(Backend), default="transformers", help="(%(default)s)")
    speed.add_argument("--repeats", type=int, default=defaults.BENCHMARK_REPEATS, help="rounds (%(default)s)")
    output = parser.add_argument_group("output")
    output.add_argument("--dtype", choices=get_args(Dtype), help="of the checkpoint (default: the model's)")
    output.add_argument("--format", choices=get_args(Format), default=defaults.OUTPUT_FORMAT, help="(%(default)s)")
    output.add_argument("--seed", type=int, default=defaults.SEED, help="same seed, same bytes on CPU (%(default)s)")
    output.add_argument(
        "--execution", choices=get_args(Execution), default="auto", help="layers streamed or not: by free memory"
    )
    output.add_argument("--device", choices=get_args(Device), default="auto", help="(%(default)s)")


def recipe_from(options: argparse.Namespace) -> Recipe:
    """Resolve the flags into a recipe.

    Raises:
        EngineError: a flag is missing or the model directory is unusable.
    """
    if options.model is None:
        raise EngineError("bad_usage", "name a model with --model DIR, or a recipe with --recipe FILE; see --help")
    if options.out.exists() and not options.out.is_dir():
        raise EngineError("bad_usage", f"--out {options.out} is a file; name a directory, which may be new")
    if options.sparsity is None and options.layers is None and options.window is None:
        raise EngineError("bad_usage", "say how much to remove: one of --sparsity F, --layers N, --window A B")
    config = fetch.read_config(options.model)
    name = options.model.resolve().name
    calibration = defaults.SELF_TEXT if options.calibration is None else str(options.calibration)
    tokens = _given(options.tokens, defaults.training_tokens(calibration))
    try:
        length = _given(options.sequence_length, defaults.sequence_length(config, name))
        prompt, new = defaults.benchmark_tokens(config)
        rate = _given(options.learning_rate, defaults.learning_rate(config))
        healing_rate = _given(options.healing_learning_rate, defaults.healing_learning_rate(config))
    except ArchitectureError as error:
        raise EngineError(error.code, str(error)) from error
    # Several windows of one table are chosen together, so that no single lead tells when to stop.
    adaptive = defaults.ADAPTIVE and not options.no_adaptive and options.windows == 1
    return Recipe(
        model=ModelSource(path=str(options.model.resolve()), name=name, revision="local"),
        target=Target(options.sparsity, options.layers, tuple(options.window) if options.window else None),
        scoring=Scoring(options.metric, options.sequences, length, adaptive),
        selection=Selection("iterative" if options.rounds > 1 else "one_shot", options.windows, options.rounds),
        replacement=Replacement(
            kind=options.kind,
            layers=options.replacement_layers,
            init=options.init or defaults.init(options.kind),
            loss=options.loss,
            divergence=options.divergence,
            epochs=options.epochs,
            learning_rate=rate,
            second_epochs=options.second_epochs,
            second_learning_rate=_given(options.second_learning_rate, rate * defaults.SECOND_LEARNING_RATE_SHARE),
            tokens=tokens,
            batch_size=_given(options.batch_size, defaults.batch_size(max(1, length))),
        ),
        healing=None
        if options.healing is None
        else Healing(
            kind=options.healing,
            rank=options.healing_rank,
            alpha=options.healing_alpha,
            epochs=options.healing_epochs,
            learning_rate=healing_rate,
            tokens=_given(options.healing_tokens, tokens),
            batch_size=_given(options.healing_batch_size, defaults.batch_size(max(1, length))),
        ),
        calibration=_text(options.calibration, options.column, defaults.SELF_TEXT),
        evaluation=tuple(_text(path, options.column, "") for path in options.evaluate),
        benchmark=Benchmark(
            batch_sizes=tuple(options.benchmark_batch_sizes),
            prompt_tokens=tuple(options.prompt_tokens or (prompt,)),
            new_tokens=_given(options.new_tokens, new),
            repeats=options.repeats,
            rivals=tuple(ModelSource(str(path.resolve()), path.resolve().name, "local") for path in options.rival),
            backend=options.backend,
        ),
        output=Output(options.dtype, options.format),
        seed=options.seed,
        device=options.device,
        trust_remote_code=options.trust_remote_code,
        execution=options.execution,
        judging=Judging(_tasks(options.tasks, options.task_data), options.limit, options.over, options.stride),
    )


def _tasks(names: list[str] | None, directory: Path | None) -> tuple[TaskData, ...]:
    """Find the file of each task.

    Raises:
        EngineError: `unknown_task`; `missing_task_data`.
    """
    if names is None:
        found = tasks.available(tasks.PAPER_SUITE, directory)
        return tuple(TaskData(name, name, str(path.resolve())) for name, path in found.items())
    return tuple(dict.fromkeys(one for name in names for one in _task(name, directory)))


def _task(name: str, directory: Path | None) -> list[TaskData]:
    if name.endswith(".jsonl") and Path(name).is_file():
        return [TaskData(Path(name).stem, tasks.OWN, str(Path(name).resolve()))]
    if tasks.find(name) is None and name not in tasks.GROUPS:
        near = ", ".join(tasks.nearest(name))
        raise EngineError(
            "unknown_task", f"there is no task {name!r}; the nearest: {near}, or a JSONL file of your own"
        )
    found = tasks.available(tasks.GROUPS.get(name, (name,)), directory)
    if not found:
        where = "name the directory of its file with --task-data DIR" if directory is None else f"{directory} has none"
        raise EngineError("missing_task_data", f"there are no data for the task {name}: {where}")
    return [TaskData(task, task, str(path.resolve())) for task, path in found.items()]


def _given(value: Number | None, default: Number) -> Number:
    # Not `or`: a zero is somebody's value, and refused by name.
    return default if value is None else value


def _text(path: Path | None, column: str, name: str) -> Text:
    return Text(None if path is None else str(path.resolve()), column, name if path is None else path.stem)


def check_flags(options: argparse.Namespace) -> None:
    """Refuse flags that tell how to train, beside a kind that is not trained.

    Raises:
        EngineError: `bad_usage`, naming the field.
    """
    if found := idle_field(options.kind, vars(options)):
        raise EngineError("bad_usage", f"replacement.{found[0]}: {found[1]}")
