"""Every field of a job's request: from the models of `app.jobs.spec`."""

import re
from collections.abc import Mapping
from typing import Any, Final

from app.jobs.spec.request import JobRequest
from documentation.json_schema import range_of, reference, type_of
from documentation.tables import code, prose, table

_DEFAULT: Final = re.compile(r"(?:^|(?<=\. ))Default:? (.*?)(?:\.$|\. (?=[A-Z`])|$)", re.DOTALL)
"""The sentence of a description that tells the default."""

_ABOVE = """# The job's fields

The body of `POST /v1/jobs` and `POST /v1/plans`, and the file that `streamline submit` and `streamline plan` read (TOML
or JSON; `streamline init` writes one with all of this in it). Only `model` and `target` are needed. What is left out or
null gets its default when the job is made, and the job's `spec` shows it. Unknown fields are refused.

"""


def page() -> str:
    """The page."""
    schema = JobRequest.model_json_schema()
    sections = {name: found for name, field in schema["properties"].items() if (found := reference(field))}
    plain = {name: field for name, field in schema["properties"].items() if name not in sections}
    # Model and target first: they are what a request begins with.
    order = sorted(sections, key=lambda name: (name not in schema["required"], name != "model"))
    parts = [_section(name, schema["$defs"][sections[name]], schema["$defs"]) for name in order]
    return _ABOVE + "\n".join([*parts, "## Beside the sections\n", _fields(plain)])


def _section(name: str, section: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    lines = [f"## {name}\n", prose(section.get("description", "")), "", _fields(section["properties"])]
    for field, described in section["properties"].items():
        if inner := _values(described):
            lines += [f"Each entry of `{name}.{field}`:\n", _fields(others[inner]["properties"])]
    return "\n".join(lines)


def _values(schema: Mapping[str, Any]) -> str | None:
    """The name of what the values of an object with free names are."""
    for option in schema.get("anyOf", [schema]):
        described = option.get("additionalProperties")
        if isinstance(described, Mapping) and "$ref" in described:
            return str(described["$ref"].rpartition("/")[2])
    return None


def _fields(properties: Mapping[str, Any]) -> str:
    rows = []
    for name, field in properties.items():
        meaning, default = split_default(field.get("description", ""))
        given = field.get("default")
        told = default or (code(str(given)) if given not in (None, "", [], {}) else "")
        kind = type_of(field).removesuffix(" or null")
        rows.append([code(name), kind, range_of(field), prose(told), prose(meaning)])
    return table(("field", "type", "range", "default", "meaning"), rows)


def split_default(description: str) -> tuple[str, str]:
    """A description without its sentence about the default, and what that says."""
    text = " ".join(description.split())
    found = _DEFAULT.search(text)
    if found is None:
        return text, ""
    rest = f"{text[: found.start()].strip()} {text[found.end() :].strip()}".strip()
    return rest, found[1].strip()
