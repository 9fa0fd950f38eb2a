"""The HTTP API: from `docs/openapi.json`, which a test holds equal to what the service answers."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from app.jobs.spec.request import JobRequest, PlanRequest
from documentation.json_schema import range_of, reference, type_of
from documentation.source import ROOT
from documentation.tables import code, prose, table

_ABOVE = """# HTTP API

Everything under `/v1` is JSON. A key is sent as `Authorization: Bearer KEY`; a service on loopback without keys needs
none. Errors are [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) documents with a stable [`code`](errors.md). The
service itself describes all this at `/docs`, and as [OpenAPI](../openapi.json) for generated clients. The calls of
Hugging Face clients ([Serve the result](../how-to/serving.md)) are not in it: they are the Hub's own.

"""

_REQUESTS: Final = frozenset(JobRequest.model_json_schema()["$defs"]) | {JobRequest.__name__, PlanRequest.__name__}
"""Objects that a page of their own describes."""


def page() -> str:
    """The page."""
    described = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))
    schemas = described["components"]["schemas"]
    by_tag: dict[str, list[str]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            by_tag.setdefault(operation["tags"][0], []).append(_operation(method, path, operation))
    parts = [text for tag, calls in by_tag.items() for text in (f"## {tag}\n", *calls)]
    parts += ["## Messages of webhooks\n"]
    for name, methods in described.get("webhooks", {}).items():
        parts += [_operation(method, name, operation) for method, operation in methods.items()]
    parts += ["## Objects\n", *(_object(name, schemas[name]) for name in sorted(schemas) if name not in _REQUESTS)]
    return _ABOVE + "\n".join(parts)


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    lines = [f"### `{method.upper()} {path}`\n", prose(operation.get("description", "")), ""]
    if parameters := operation.get("parameters"):
        rows = [
            [
                code(each["name"]),
                each["in"],
                type_of(each["schema"]),
                range_of(each["schema"]),
                prose(each.get("description", each["schema"].get("description", ""))),
            ]
            for each in parameters
        ]
        lines.append(table(("parameter", "where", "type", "range", "meaning"), rows))
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        found = reference(body["schema"])
        lines += [f"Body: {_link(found) if found else 'a form'} as `{media}`.", ""]
    rows = [[status, *_answer(answer)] for status, answer in sorted(operation["responses"].items())]
    lines.append(table(("answer", "meaning", "body"), rows))
    return "\n".join(lines)


def _answer(answer: Mapping[str, Any]) -> tuple[str, str]:
    meaning = " ".join(answer.get("description", "").replace("\n* ", "<br>").removeprefix("* ").split())
    bodies = [
        _link(found) if (found := reference(content.get("schema") or {})) else code(media)
        for media, content in answer.get("content", {}).items()
    ]
    return "" if meaning == "Successful Response" else meaning, " or ".join(dict.fromkeys(bodies))


def _link(name: str) -> str:
    return f"[{name}](job.md)" if name in _REQUESTS else f"[{name}](#{name.lower()})"


def _object(name: str, schema: Mapping[str, Any]) -> str:
    lines = [f"### {name}\n", prose(schema.get("description", "")), ""]
    if choices := schema.get("enum"):
        lines.append(", ".join(code(str(choice)) for choice in choices) + "\n")
    if "properties" in schema:
        lines.append(table(("field", "type", "range", "meaning"), _rows(schema["properties"])))
    return "\n".join(lines)


def _rows(properties: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, field in properties.items():
        found = reference(field)
        kind = type_of(field).replace(found, _link(found), 1) if found else type_of(field)
        yield [code(name), kind, range_of(field), prose(field.get("description", ""))]
