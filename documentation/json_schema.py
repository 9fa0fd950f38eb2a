"""What a JSON Schema says about a value, in the words of a table: its type, its range, where it is described."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

_NAMES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
_LIMITS = (
    ("exclusiveMinimum", "> {}"),
    ("minimum", "≥ {}"),
    ("exclusiveMaximum", "< {}"),
    ("maximum", "≤ {}"),
    ("maxLength", "at most {} characters"),
    ("minItems", "{} of them at least"),
    ("maxItems", "{} of them at most"),
    ("maxProperties", "at most {} entries"),
)


def options(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The schemas of which the value follows one, `null` left out."""
    return [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]


def reference(schema: Mapping[str, Any]) -> str | None:
    """The name of the object that the value is, or that its items are."""
    for option in options(schema):
        for described in (option, *option.get("allOf", ()), option.get("items") or {}):
            if "$ref" in described:
                return str(described["$ref"].rpartition("/")[2])
    return None


def type_of(schema: Mapping[str, Any]) -> str:
    """The type in words, with `null` where that is allowed."""
    nullable = len(options(schema)) < len(schema.get("anyOf", [schema]))
    told = [_type_of(option) for option in options(schema)]
    return " or ".join(dict.fromkeys([*told, *(["null"] if nullable else [])]))


def range_of(schema: Mapping[str, Any]) -> str:
    """What the value may be: choices, or limits; empty where anything of its type is allowed."""
    return "; ".join(dict.fromkeys(limit for option in options(schema) for limit in _limits(option)))


def _type_of(option: Mapping[str, Any]) -> str:
    if found := reference(option):
        return f"list of {found}" if "items" in option else found
    if "enum" in option or "const" in option:
        return "choice"
    if option.get("type") == "array":
        return f"list of {type_of(option['items'])}" if "items" in option else "list"
    if option.get("type") == "object":
        return "object"
    kind = option.get("format") or option.get("type")
    return _NAMES.get(str(kind), str(kind or "any"))


def _limits(option: Mapping[str, Any]) -> Iterator[str]:
    if choices := option.get("enum", [option["const"]] if "const" in option else None):
        yield ", ".join(f"`{choice}`" for choice in choices)
        return
    for name, words in _LIMITS:
        if name in option:  # that a text is not empty goes without saying
            yield words.format(_number(option[name]))
    if "pattern" in option:
        yield f"`{option['pattern']}`"
    if option.get("type") == "array":
        yield from (f"each {limit}" for limit in _limits(option.get("items") or {}))


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else json.dumps(value)
