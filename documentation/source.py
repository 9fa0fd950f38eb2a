"""Reading the worker's source without importing it: docstrings, and what is written in calls."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@cache
def tree(path: str) -> ast.Module:
    """The syntax tree of a module, by its path from the repository's root."""
    return ast.parse(_text(path))


@cache
def _text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def docstring(path: str) -> str:
    """The module's docstring.

    Raises:
        ValueError: it has none.
    """
    text = ast.get_docstring(tree(path))
    if not text:
        raise ValueError(f"{path} has no docstring for the documentation to show")
    return text


def calls(path: str, name: str) -> Iterator[ast.Call]:
    """Every call of a function or class of that name."""
    if f"{name}(" not in _text(path):  # most modules have none, and parsing takes time
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def text_of(node: ast.expr) -> str | None:
    """A text as it is written, with an ellipsis where a value is put in; None where it is no literal."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "…" for part in node.values)
    return None


def keys_of(path: str, name: str) -> list[str]:
    """The keys of the first dictionary literal in what is assigned to `name` at the top of a module.

    Raises:
        ValueError: there is none.
    """
    for node in tree(path).body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            literals = [inner for inner in ast.walk(node) if isinstance(inner, ast.Dict)]
            return [key for each in literals[:1] for key in (text_of(k) for k in each.keys if k) if key]
    raise ValueError(f"{path} has no dictionary {name}")


def modules_below(path: str) -> list[str]:
    """Every module below a directory, by its path from the repository's root."""
    return sorted(found.relative_to(ROOT).as_posix() for found in (ROOT / path).rglob("*.py"))
