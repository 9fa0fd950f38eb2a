"""The methods and where they come from: from the registries of the engine and the docstrings beside them."""

import ast
import re
from itertools import pairwise
from typing import Final, get_args

from app.core import architectures, defaults
from app.jobs.spec.compression import Replacement
from documentation.source import calls, docstring, keys_of, modules_below, text_of, tree
from documentation.tables import code, prose, table

_ARXIV: Final = re.compile(r"arXiv (\d{4}\.\d{4,5})")
_SCORING: Final = "worker/engine/scoring"
_REPLACEMENTS: Final = "worker/engine/replacements"
_LOSSES: Final = "worker/engine/losses"

_ABOVE = """# Methods and their papers

What each name in a [request](job.md) stands for. How they compare on the bundled model is measured by
`python -m benchmarks.quality`; why it all works is told in [The method](../explanation/method.md).

"""


def page() -> str:
    """The page."""
    return _linked(_ABOVE + "\n".join([_metrics(), _replacements(), _losses(), _starts(), _healing(), _defaults()]))


def _metrics() -> str:
    lines = ["## Metrics\n", "`scoring.metric`: which window of layers is worth least.\n", _table_of(_SCORING)]
    for path in modules_below(_SCORING):
        for call in calls(path, "Metric"):
            name = text_of(call.args[0])
            lines += [f"### {name}\n", _told(docstring(path), name)]
    return "\n".join(lines)


def _replacements() -> str:
    rows = [
        [
            code(kind),
            "fitted in closed form" if kind in architectures.FITTED_KINDS else "" if kind == "none" else "trained",
        ]
        for kind in keys_of(f"{_REPLACEMENTS}/__init__.py", "BUILDERS")
    ]
    lines = ["## Replacements\n", "`replacement.kind`: what takes the window's place.\n"]
    lines.append(table(("kind", "how it gets its weights"), rows))
    for kind in keys_of(f"{_REPLACEMENTS}/__init__.py", "BUILDERS"):
        lines += [f"### {kind}\n", _told(docstring(f"{_REPLACEMENTS}/{kind}.py"), kind)]
    return "\n".join(lines)


def _losses() -> str:
    lines = ["## Losses\n", "`replacement.loss`: what a replacement is trained for; `a+b` is two steps.\n"]
    lines.append(_table_of(_LOSSES))
    for loss in re.findall(r"^\| (\w+) \| (?!paper)", docstring(f"{_LOSSES}/__init__.py"), flags=re.MULTILINE):
        lines += [f"### loss {loss}\n", _told(docstring(f"{_LOSSES}/{loss}.py"), loss)]
    return "\n".join(lines)


def _starts() -> str:
    choices = get_args(get_args(Replacement.model_fields["init"].annotation)[0])
    told = _told(docstring(f"{_REPLACEMENTS}/starts.py"), None)
    fit = _told(docstring(f"{_REPLACEMENTS}/refit.py"), "closed_form")
    return "\n".join(
        [
            "## Starts\n",
            f"`replacement.init`: {', '.join(map(code, choices))}.\n",
            told,
            "### closed_form\n",
            fit,
        ]
    )


def _healing() -> str:
    return f"## Healing\n\n{_told(docstring('worker/engine/healing/__init__.py'), None)}"


def _defaults() -> str:
    """Each constant of `app.core.defaults` with the docstring below it."""
    rows = [
        [code(name.lower()), code(str(value)), prose(reason)]
        for name, value, reason in _reasons("app/core/defaults.py")
    ]
    return "## Why the defaults are what they are\n\n" + table(("default", "value", "reason"), rows)


def _reasons(path: str) -> list[tuple[str, object, str]]:
    found = []
    body = tree(path).body
    for node, following in pairwise(body):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(following, ast.Expr)
            and (reason := text_of(following.value))
        ):
            found.append((node.target.id, getattr(defaults, node.target.id), reason))
    return found


def _table_of(package: str) -> str:
    """The table in the docstring of a package."""
    lines = docstring(f"{package}/__init__.py").splitlines()
    return "\n".join([*(line for line in lines if line.startswith("|")), ""])


def _told(text: str, name: str | None) -> str:
    """A docstring as Markdown, without the name in front that the heading has already."""
    bare = re.sub(rf"^`{name}`: ", "", text.replace("``", "`")) if name else text.replace("``", "`")
    # A formula keeps its small letter.
    return prose(f"{bare[:1].upper()}{bare[1:]}" if bare[:2].isalpha() else bare) + "\n"


def _linked(text: str) -> str:
    return _ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", text)
