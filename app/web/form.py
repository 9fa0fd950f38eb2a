"""The request's schema as the fields of a form: each named by its JSON pointer, as problem documents name it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from app.jobs.spec.request import JobRequest

Kind = Literal["text", "number", "integer", "flag", "choice", "texts", "integers", "json"]

FIRST: Final = (
    "/model/repo", "/model/revision", "/target/sparsity", "/target/layers", "/target/window", "/replacement/kind",
    "/calibration/dataset", "/evaluation/perplexity", "/evaluation/tasks", "/output/repo", "/labels",
)  # fmt: skip
"""What most jobs are made of; the form has places of their own for these, and for the gates."""


@dataclass(frozen=True)
class Field:
    """One input."""

    pointer: str
    name: str
    kind: Kind
    hint: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    example: str = ""

    @property
    def id(self) -> str:
        """Its id in the page."""
        return "f" + self.pointer.replace("/", "-")


@dataclass(frozen=True)
class Section:
    """Fields that belong together."""

    name: str
    hint: str
    fields: tuple[Field, ...]


@cache
def sections() -> tuple[Section, ...]:
    """All fields of a request, in the order of its schema."""
    schema = JobRequest.model_json_schema()
    found, single = [], []
    for name, described in schema["properties"].items():
        inner = _section(schema, described)
        if inner is None:
            single.append(_field(f"/{name}", described))
        else:
            found.append(Section(name, _plain(inner.get("description", "")), tuple(_fields(f"/{name}", inner))))
    return (*found, Section("other", "", tuple(single)))


def fields() -> dict[str, Field]:
    """All fields by their pointers."""
    return {field.pointer: field for section in sections() for field in section.fields}


def further() -> list[Section]:
    """The sections without what the form has a place of its own for."""
    rest = []
    for section in sections():
        left = tuple(field for field in section.fields if field.pointer not in FIRST)
        if left and section.name != "gates":
            rest.append(Section(section.name, section.hint, left))
    return rest


def gates() -> tuple[Field, ...]:
    """The bars for the result."""
    return next(section.fields for section in sections() if section.name == "gates")


def _fields(above: str, section: Mapping[str, Any]) -> Iterator[Field]:
    for name, described in section["properties"].items():
        yield _field(f"{above}/{name}", described)


def _section(schema: Mapping[str, Any], described: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of a field that is a section of its own, else None."""
    for option in (described, *described.get("anyOf", ()), *described.get("allOf", ())):
        if "$ref" in option:
            found: Mapping[str, Any] = schema["$defs"][option["$ref"].rpartition("/")[2]]
            return found
    return None


def _field(pointer: str, described: Mapping[str, Any]) -> Field:
    options = [option for option in described.get("anyOf", [described]) if option.get("type") != "null"]
    shape = options[0]
    choices = tuple(shape["enum"]) if "enum" in shape else (shape["const"],) if "const" in shape else ()
    examples = described.get("examples") or [None]
    return Field(
        pointer=pointer,
        name=pointer.rpartition("/")[2].replace("_", " "),
        kind="choice" if choices else _kind(shape),
        hint=_plain(described.get("description", "")),
        choices=choices,
        low=shape.get("minimum", shape.get("exclusiveMinimum")),
        high=shape.get("maximum", shape.get("exclusiveMaximum")),
        example=_written(examples[0]),
    )


def _kind(shape: Mapping[str, Any]) -> Kind:
    match shape.get("type"):
        case "integer":
            return "integer"
        case "number":
            return "number"
        case "boolean":
            return "flag"
        case "array":
            return "integers" if shape.get("items", {}).get("type") == "integer" else "texts"
        case "object":
            return "json"
        case _:
            return "text"


def _written(example: Any) -> str:
    """An example as it is typed into the field."""
    if example is None:
        return ""
    if isinstance(example, list):
        return ", ".join(str(one) for one in example)
    return json.dumps(example) if isinstance(example, dict) else str(example)


def _plain(text: str) -> str:
    return " ".join(text.replace("`", "").split())
