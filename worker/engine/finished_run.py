"""What a directory holds before a run begins in it: another recipe's results are not written over unasked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from worker.engine.errors import EngineError
from worker.engine.recipe import Recipe

_WHERE_ALONE = frozenset({"device", "execution", "trust_remote_code", "path", "tokenizer_path"})
"""Fields that say where and not what: the same run may go on elsewhere, with its files moved."""


def refuse_other_run(recipe: Recipe, directory: Path) -> None:
    """Refuse a directory with the report of a run of another recipe.

    Raises:
        EngineError: `bad_usage`, naming the fields that differ.
    """
    if not (directory / "report.json").is_file():
        return
    try:
        before = Recipe.from_json(json.loads((directory / "recipe.json").read_text(encoding="utf-8"))).to_json()
    except (OSError, ValueError, EngineError):
        before = {}  # of another version, or damaged: not this recipe at any rate
    differing = list(_differing(_what(before), _what(recipe.to_json())))
    if differing:
        names = ", ".join(differing) if before else "nobody can tell which"
        raise EngineError(
            "bad_usage",
            f"{directory} holds a finished run of another recipe ({names}); choose another directory with --out, or "
            "pass --overwrite to replace its checkpoint and report",
        )


def _what(recipe: Any) -> Any:
    if isinstance(recipe, Mapping):
        return {name: _what(value) for name, value in recipe.items() if name not in _WHERE_ALONE}
    return [_what(each) for each in recipe] if isinstance(recipe, list | tuple) else recipe


def _differing(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name in dict.fromkeys((*one, *other)):
        a, b = one.get(name), other.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from _differing(a, b, f"{prefix}{name}.")
        elif a != b:
            yield prefix + name
