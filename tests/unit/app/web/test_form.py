"""The form has every field of a request, under the name by which refusals call it."""

from typing import Any

from app.jobs.spec.request import JobRequest
from app.web import form


def pointers(schema: dict[str, Any], described: dict[str, Any], above: str) -> list[str]:
    options = [described, *described.get("anyOf", ()), *described.get("allOf", ())]
    inner = next((schema["$defs"][one["$ref"].rpartition("/")[2]] for one in options if "$ref" in one), None)
    if inner is None:
        return [above]
    return [found for name, each in inner["properties"].items() for found in pointers(schema, each, f"{above}/{name}")]


def test_every_field_of_a_request_is_in_the_form() -> None:
    schema = JobRequest.model_json_schema()
    wanted = [p for name, each in schema["properties"].items() for p in pointers(schema, each, f"/{name}")]
    assert sorted(form.fields()) == sorted(wanted)


def test_every_field_has_one_place() -> None:
    further = [field.pointer for section in form.further() for field in section.fields]
    gates = [field.pointer for field in form.gates()]
    assert sorted([*form.FIRST, *further, *gates]) == sorted(form.fields())


def test_a_field_knows_what_may_be_typed_into_it() -> None:
    fields = form.fields()
    kind = fields["/replacement/kind"]
    assert (kind.kind, kind.choices[:2]) == ("choice", ("none", "ffn"))
    assert fields["/healing/kind"].choices == ("lora",)
    sequences = fields["/scoring/sequences"]
    assert (sequences.kind, sequences.low, sequences.high) == ("integer", 1, 65_536)
    assert fields["/replacement/learning_rate"].kind == "number"
    assert fields["/target/window"].kind == "integers"
    assert fields["/evaluation/tasks"].kind == "texts"
    assert fields["/scoring/adaptive"].kind == "flag"
    assert fields["/gates/tasks"].kind == fields["/labels"].kind == "json"
    assert len({field.id for field in fields.values()}) == len(fields)
