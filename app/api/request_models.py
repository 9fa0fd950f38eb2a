"""Looking up, in a request's pydantic model, what an error message wants to name: fields and their ranges."""

import types
from collections.abc import Sequence
from typing import Annotated, Any, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo


def model_at(annotation: Any, path: Sequence[Any]) -> type[BaseModel] | None:
    """The pydantic model that stands at `path` (names and list indices) below `annotation`."""
    for part in path:
        model = _unwrap(annotation)
        if isinstance(part, int):
            annotation = _element(annotation)
        elif isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
        else:
            return None
    found = _unwrap(annotation)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def field_at(annotation: Any, path: Sequence[Any]) -> list[Any] | None:
    """The constraints of the field, or of the element of a list field, at `path`."""
    names = [part for part in path if isinstance(part, str)]
    if not names:
        return None
    depth = max(index for index, part in enumerate(path) if isinstance(part, str))
    parent = model_at(annotation, path[:depth])
    field = parent.model_fields.get(str(path[depth])) if parent else None
    if field is None:
        return None
    if depth < len(path) - 1:
        element = _element(field.annotation)
        return _constraints(element)
    return [*field.metadata, *_constraints(field.annotation)]


def allowed_range(constraints: list[Any] | None) -> str:
    """The range in words: "more than 0 and less than 1", "1 to 4096", "2 entries"; empty where there is none."""
    low, high, shortest, longest = "", "", None, None
    edges: list[Any] = [None, None]
    for constraint in constraints or ():
        match constraint:
            case annotated_types.Gt(gt=value):
                low = f"more than {value}"
            case annotated_types.Ge(ge=value):
                low, edges[0] = f"at least {value}", value
            case annotated_types.Lt(lt=value):
                high = f"less than {value}"
            case annotated_types.Le(le=value):
                high, edges[1] = f"at most {value}", value
            case annotated_types.MinLen(min_length=value):
                shortest = value
            case annotated_types.MaxLen(max_length=value):
                longest = value
    if None not in edges:
        return f"{edges[0]} to {edges[1]}"
    if low or high:
        return " and ".join(part for part in (low, high) if part)
    if longest is not None:
        return f"a length of {longest}" if shortest == longest else f"a length of {shortest or 0} to {longest}"
    return ""


def _unwrap(annotation: Any) -> Any:
    """Without Annotated and without the `| None` of an optional field."""
    if get_origin(annotation) is Annotated:
        return _unwrap(get_args(annotation)[0])
    if get_origin(annotation) in (types.UnionType, Union):
        (only,) = [member for member in get_args(annotation) if member is not type(None)][:1]
        return _unwrap(only)
    return annotation


def _element(annotation: Any) -> Any:
    """The annotation of a list's elements."""
    arguments = get_args(_unwrap(annotation))
    return arguments[0] if arguments else None


def _constraints(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (types.UnionType, Union):
        return [one for member in get_args(annotation) for one in _constraints(member)]
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        flat: list[Any] = []
        for item in metadata:
            flat += item.metadata if isinstance(item, FieldInfo) else [item]
        return flat + _constraints(inner)
    return []
