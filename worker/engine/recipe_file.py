"""A recipe out of a file, as a run left it behind, with the places of this machine put in where they are named.

What a service hands out says `<workspace>/source` for the model: where its files lay is nobody's business, and they
are not here.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.core import tasks
from worker.engine.errors import EngineError
from worker.engine.recipe import Recipe, TaskData

_PLACEHOLDER = re.compile(r"<\w+>(/|$)")


def recipe_of_file(options: argparse.Namespace) -> Recipe:
    """Return the recipe of ``--recipe``, with the files that other flags name in place of its own.

    Names and columns stay the recipe's, so that the report calls everything as the run did that is repeated.

    Raises:
        EngineError: `bad_recipe` where it is none, or where a place is left that is none on this machine; `bad_usage`
            where flags name another number of files than the recipe has.
    """
    recipe = _with_places(Recipe.from_json(_read(options.recipe)), options)
    if missing := _missing(recipe):
        raise EngineError(
            "bad_recipe",
            f"recipe {options.recipe} comes from a service, which does not tell where its files lay; say where yours "
            f"are with {', '.join(missing)}",
        )
    return recipe


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError("bad_recipe", f"recipe {path} cannot be read: {error}") from error


def _with_places(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    if options.model is not None:
        recipe = replace(recipe, model=replace(recipe.model, path=str(options.model.resolve())))
    if options.calibration is not None:
        if recipe.calibration.path is None:
            raise EngineError(
                "bad_usage", "the recipe's text is sampled from the model itself; leave --calibration out"
            )
        recipe = replace(recipe, calibration=replace(recipe.calibration, path=str(options.calibration.resolve())))
    if options.evaluate:
        paths = _as_many("--evaluate", options.evaluate, [text.name for text in recipe.evaluation])
        texts = zip(recipe.evaluation, paths, strict=True)
        recipe = replace(recipe, evaluation=tuple(replace(text, path=path) for text, path in texts))
    if options.rival:
        paths = _as_many("--rival", options.rival, [rival.name for rival in recipe.benchmark.rivals])
        rivals = tuple(replace(rival, path=path) for rival, path in zip(recipe.benchmark.rivals, paths, strict=True))
        recipe = replace(recipe, benchmark=replace(recipe.benchmark, rivals=rivals))
    if options.task_data is not None:
        found = tuple(_found(task, options.task_data) for task in recipe.judging.tasks)
        recipe = replace(recipe, judging=replace(recipe.judging, tasks=found))
    return recipe


def _as_many(flag: str, paths: Sequence[Path], names: Sequence[str]) -> list[str]:
    if len(paths) != len(names):
        wanted = f"name {len(names)}, in this order: {', '.join(names)}" if names else "leave it out"
        raise EngineError("bad_usage", f"{flag} names {len(paths)}, but the recipe has {len(names)}; {wanted}")
    return [str(path.resolve()) for path in paths]


def _found(task: TaskData, directory: Path) -> TaskData:
    """The task with its file in this directory: under its own name, as a service lays it out, or under a mirror's."""
    own = directory / f"{task.name}.jsonl"
    path = own if own.is_file() else tasks.available((task.definition,), directory).get(task.definition, own)
    return replace(task, path=str(path.resolve()))


def _missing(recipe: Recipe) -> list[str]:
    """The flags that would name what has no place on this machine."""
    texts, rivals, asked = recipe.evaluation, recipe.benchmark.rivals, recipe.judging.tasks
    each = (
        ("--model DIR", [recipe.model.path], f" ({recipe.model.name})"),
        ("--calibration FILE", [recipe.calibration.path], f" ({recipe.calibration.name})"),
        ("--evaluate FILE ...", [text.path for text in texts], f" ({', '.join(text.name for text in texts)})"),
        ("--task-data DIR", [task.path for task in asked], f" ({', '.join(f'{task.name}.jsonl' for task in asked)})"),
        ("--rival DIR ...", [rival.path for rival in rivals], f" ({', '.join(rival.name for rival in rivals)})"),
    )
    return [flag + names for flag, paths, names in each if any(path and _PLACEHOLDER.match(path) for path in paths)]
