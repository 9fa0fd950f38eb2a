"""A request as a TOML file in which every field is explained, made from the request's own schema."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

_WIDTH = 110
_DEFAULT = re.compile(r"Default `?(\[\d+\]|[\w.:+,-]*\w)")


def commented(model: str, sparsity: float) -> str:
    """A request of this model and target whose other fields are comments: each with its description and default."""
    from app.jobs.spec.request import JobRequest

    schema = JobRequest.model_json_schema()
    lines = [
        "# A compression job. `streamline plan FILE` says what it would do, `streamline submit FILE --wait` does it.",
        "# Only model and target are needed; without their `#`, a line and its section's line override a default.",
    ]
    active: dict[str, dict[str, Any]] = {"model": {"repo": model}, "target": {"sparsity": sparsity}}
    fields = {name: schema["properties"][name] for name in active} | schema["properties"]
    sections = {name: found for name, field in fields.items() if (found := _section(schema, field))}
    for name, field in fields.items():  # before the first section: TOML would take them for fields of it
        if name not in sections and not _is_table(field):
            lines += ["", *_field(name, field)]
    for name, section in sections.items():
        given = active.get(name, {})
        lines += ["", *_wrapped(section.get("description", "")), f"[{name}]" if given else f"# [{name}]"]
        for inner, described in section["properties"].items():
            if _section(schema, described) is None and not _is_table(described):
                lines += _field(inner, described, given.get(inner))
    lines += ["", "# What the job can be found by.", "# [labels]", '# team = "research"', ""]
    return "\n".join(lines)


def _section(schema: Mapping[str, Any], field: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema of a field that is a section of its own, else None."""
    for option in (field, *field.get("anyOf", ()), *field.get("allOf", ())):
        if "$ref" in option:
            found: dict[str, Any] = schema["$defs"][option["$ref"].rpartition("/")[2]]
            return found
    return None


def _is_table(field: Mapping[str, Any]) -> bool:
    return any(option.get("type") == "object" for option in (field, *field.get("anyOf", ())))


def _field(name: str, field: Mapping[str, Any], value: Any = None) -> Iterator[str]:
    yield from _wrapped(field.get("description", ""))
    if value is not None:
        yield f"{name} = {json.dumps(value)}"
    else:
        yield f"# {name} = {json.dumps(_example(field))}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), _WIDTH, initial_indent="#   ", subsequent_indent="#   ")


def _example(field: Mapping[str, Any]) -> Any:
    """The example that the schema gives, else the default that the description names."""
    kinds = [option for option in field.get("anyOf", [field]) if option.get("type") != "null"]
    kind = kinds[0]
    if "examples" in field:
        return field["examples"][0]
    named = _DEFAULT.search(field.get("description", ""))
    if named:
        text = named[1]
        if text in kind.get("enum", ()):
            return text
        number = text.replace(",", "")
        if kind.get("type") in {"integer", "number"} and re.fullmatch(r"[\d.]+(e-?\d+)?", number):
            return float(number) if kind["type"] == "number" else int(number)
        if kind.get("type") == "array" and text.startswith("["):
            return json.loads(text)
        if kind.get("type") == "string":
            return text
        if kind.get("type") == "boolean":
            return text == "true"
    return kind["const"] if "const" in kind else kind.get("default", field.get("default"))
