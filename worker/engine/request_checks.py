"""What is checked of a recipe before any work: the engine's own door, whoever made the recipe."""

from __future__ import annotations

import importlib.util
import math
from contextlib import suppress
from pathlib import Path

from app.core import defaults, tasks
from app.core.architectures import ArchitectureError, Config, NoFormula, ReplacementRefused, max_positions
from app.core.conflicts import backend_refusal, check_selection
from app.core.selection import SelectionError, window_size
from app.core.starts import init_refusal
from app.core.task_rows import read_questions
from worker.engine import fetch
from worker.engine.errors import EngineError
from worker.engine.recipe import Benchmark, Recipe


def check(recipe: Recipe) -> None:
    """Refuse what config and file names alone show to be impossible.

    Raises:
        EngineError: naming the field and the allowed range.
    """
    config = fetch.read_config(Path(recipe.model.path))
    if recipe.replacement.layers < 1:
        raise EngineError("bad_recipe", f"replacement.layers is {recipe.replacement.layers} but must be at least 1")
    for name, count in (("windows", recipe.selection.windows), ("rounds", recipe.selection.rounds)):
        if count < 1:
            raise EngineError("bad_recipe", f"selection.{name} is {count} but must be at least 1")
    try:
        block, scoring = recipe.replacement, recipe.scoring
        form = recipe.output.format
        check_selection(recipe.selection, recipe.target, block.kind, form, scoring.metric, scoring.adaptive)
        with suppress(NoFormula):  # the fetch stage counts by the weights' headers
            window_size(config, recipe.target, block.kind, form, layers=block.layers, selection=recipe.selection)
        if reason := init_refusal(config, block.kind, block.init):
            raise ReplacementRefused(f"replacement.init: {reason}")
    except (ArchitectureError, SelectionError) as error:
        raise EngineError(error.code, str(error)) from error
    if reason := backend_refusal(recipe.benchmark.backend, block.kind, form):
        raise EngineError("bad_recipe", reason)
    _check_benchmark(recipe.benchmark)
    _check_numbers(recipe, config)
    if recipe.execution == "streamed" and (what := recipe.needs_resident()):
        raise EngineError("bad_recipe", f"{what} needs the whole model in memory; let execution be auto or resident")
    fetch.require_safetensors(Path(recipe.model.path))
    for text in (recipe.calibration, *recipe.evaluation):
        if text.path is not None and not Path(text.path).is_file():
            raise EngineError("bad_text", f"text file {text.path} does not exist; name a JSONL or text file")
    for task in recipe.judging.tasks:
        if not Path(task.path).is_file():
            raise EngineError("missing_task_data", f"task {task.name}: there is no file {task.path}")
    names = [text.name for text in recipe.evaluation]
    if len(set(names)) != len(names):
        raise EngineError("bad_text", f"evaluation texts need different names; they are {', '.join(names)}")


def _check_benchmark(benchmark: Benchmark) -> None:
    if benchmark.backend == "vllm" and importlib.util.find_spec("vllm") is None:
        raise EngineError(
            "backend_missing",
            "benchmark.backend is vllm, which is not installed here; install vllm on the worker, or leave it out to "
            "measure with transformers",
        )
    if not (benchmark.batch_sizes and benchmark.prompt_tokens):
        raise EngineError("bad_recipe", "benchmark.batch_sizes and benchmark.prompt_tokens must each name at least one")
    names = ["dense", "pruned", *(rival.name for rival in benchmark.rivals)]
    if len(set(names)) != len(names):
        raise EngineError(
            "bad_recipe", f"the models of the benchmark need different names; they are {', '.join(names)}"
        )
    for rival in benchmark.rivals:
        path = Path(rival.path)
        fetch.require_safetensors(path)
        if problem := defaults.benchmark_problem(
            fetch.read_config(path), max(benchmark.prompt_tokens), benchmark.new_tokens
        ):
            raise EngineError("bad_recipe", f"benchmark.{problem[0]}, for {rival.name}: {problem[1]}")


def check_texts(recipe: Recipe) -> None:
    """Refuse texts that are unreadable or make not one sequence, and tasks whose rows lack a column.

    Raises:
        EngineError: `bad_text` or `text_too_short`, with the counts; `bad_task_data`, with the columns;
            `no_usable_question`.
    """
    for task in recipe.judging.tasks:
        try:
            read_questions(Path(task.path), tasks.by_definition(task.definition))
        except tasks.NoUsableQuestion as error:
            raise EngineError("no_usable_question", f"task {task.name}: {error}") from error
        except tasks.TaskDataError as error:
            raise EngineError("bad_task_data", f"task {task.name}: {error}") from error
    texts = [text for text in (recipe.calibration, *recipe.evaluation) if text.path is not None]
    if not texts:
        return
    from transformers import AutoTokenizer  # takes seconds to import, and only texts need it

    from worker.engine.text import read_documents, token_windows

    tokenizer = AutoTokenizer.from_pretrained(
        recipe.model.path, local_files_only=True, trust_remote_code=recipe.trust_remote_code
    )
    for text in texts:
        path = Path(text.path or "")
        documents = read_documents(path, text.column)
        length, flag = recipe.scoring.sequence_length, "--sequence-length"
        token_windows(documents, tokenizer, length, limit=1, name=path.name, to_lower=flag)


def _check_numbers(recipe: Recipe, config: Config) -> None:
    positions = max_positions(config)
    replacement, benchmark = recipe.replacement, recipe.benchmark
    for name, value, least, most in (
        ("scoring.sequence_length", recipe.scoring.sequence_length, 2, positions),
        ("scoring.sequences", recipe.scoring.sequences, 1, None),
        ("replacement.epochs", replacement.epochs, 0, None),
        ("replacement.second_epochs", replacement.second_epochs, 0, None),
        ("replacement.tokens", replacement.tokens, recipe.scoring.sequence_length, None),
        ("replacement.batch_size", replacement.batch_size, 1, None),
        *(("benchmark.prompt_tokens", length, 1, positions - 1) for length in benchmark.prompt_tokens),
        ("benchmark.new_tokens", benchmark.new_tokens, defaults.LEAST_NEW_TOKENS, positions - 1),
        ("benchmark.repeats", benchmark.repeats, 1, None),
        *(
            ("judging.stride", stride, 1, recipe.scoring.sequence_length)
            for stride in [recipe.judging.stride]
            if stride is not None
        ),
        *(("judging.limit", limit, 1, None) for limit in [recipe.judging.limit] if limit is not None),
        *(("benchmark.batch_sizes", size, 1, None) for size in benchmark.batch_sizes),
        *_healing_numbers(recipe),
    ):
        if value < least or (most is not None and value > most):
            allowed = f"at least {least}" if most is None else f"from {least} to {most}"
            raise EngineError("bad_recipe", f"{name} is {value} but must be {allowed}")
    healing = recipe.healing
    for name, number in (
        ("replacement.learning_rate", replacement.learning_rate),
        ("replacement.second_learning_rate", replacement.second_learning_rate),
        *((("healing.learning_rate", healing.learning_rate), ("healing.alpha", healing.alpha)) if healing else ()),
    ):
        if not (math.isfinite(number) and number > 0):
            raise EngineError("bad_recipe", f"{name} is {number} but must be above 0")
    if problem := defaults.benchmark_problem(config, max(benchmark.prompt_tokens), benchmark.new_tokens):
        raise EngineError("bad_recipe", f"benchmark.{problem[0]}: {problem[1]}")


def _healing_numbers(recipe: Recipe) -> tuple[tuple[str, int, int, int | None], ...]:
    if (healing := recipe.healing) is None:
        return ()
    return (
        ("healing.rank", healing.rank, 1, None),
        ("healing.epochs", healing.epochs, 0, None),
        ("healing.tokens", healing.tokens, recipe.scoring.sequence_length, recipe.replacement.tokens),
        ("healing.batch_size", healing.batch_size, 1, None),
    )
