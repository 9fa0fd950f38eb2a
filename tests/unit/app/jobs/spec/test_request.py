"""The request's own rules, before any model is looked at."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.api.problems import translate
from app.api.request_models import allowed_range, field_at, model_at
from app.jobs.spec.compression import Replacement, Target
from app.jobs.spec.request import JobRequest

MINIMAL: dict[str, Any] = {"model": {"repo": "team/llama"}, "target": {"sparsity": 0.25}}


def test_only_model_and_target_are_required() -> None:
    assert JobRequest.model_validate(MINIMAL).replacement == Replacement()
    for name in MINIMAL:
        with pytest.raises(ValidationError):
            JobRequest.model_validate({key: value for key, value in MINIMAL.items() if key != name})


def test_a_digest_is_of_the_meaning_and_not_of_the_spelling() -> None:
    plain = JobRequest.model_validate(MINIMAL).digest()
    assert JobRequest.model_validate(MINIMAL | {"gates": {"min_speedup": None}, "seed": 0}).digest() == plain
    assert JobRequest.model_validate(MINIMAL | {"seed": 1}).digest() != plain


@given(
    path=st.lists(
        st.sampled_from(["model", "target", "window", "labels", "benchmark", "batch_sizes", "nope", 0, 7]), max_size=4
    )
)
def test_looking_up_any_path_finds_something_or_nothing_but_never_fails(path: list[Any]) -> None:
    model_at(JobRequest, path)
    assert isinstance(allowed_range(field_at(JobRequest, path)), str)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (["target", "sparsity"], "more than 0 and less than 1"),
        (["target", "layers"], "at least 1"),
        (["target", "window"], "a length of 2"),
        (["replacement", "epochs"], "1 to 10000"),
        (["healing", "rank"], "1 to 1024"),
        (["benchmark", "batch_sizes"], "a length of 1 to 8"),
        (["benchmark", "batch_sizes", 3], "1 to 1024"),
        (["model", "repo"], "a length of 1 to 200"),
        (["output", "format"], ""),
    ],
)
def test_ranges_are_said_in_words(path: list[Any], expected: str) -> None:
    assert allowed_range(field_at(JobRequest, path)) == expected


FIELDS = [
    (section, name)
    for section, field in JobRequest.model_fields.items()
    for name in [*getattr(field.annotation, "model_fields", ["a"]), "unknown"]
]
values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9),
    st.lists(st.integers() | st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
)  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    body: dict[str, Any] = dict(MINIMAL)
    for section, name in draw(st.lists(st.sampled_from(FIELDS), max_size=4)):
        value = draw(values)
        body[section] = {name: value} if draw(st.booleans()) else value
    return body


@given(body=bodies())
def test_every_fault_of_any_body_has_a_code_a_pointer_and_a_sentence(body: dict[str, Any]) -> None:
    try:
        JobRequest.model_validate(body)
    except ValidationError as error:
        for found in error.errors():
            problem = translate(found | {"loc": ("body", *found["loc"])}, JobRequest)
            assert problem.pointer is not None
            assert problem.pointer.startswith("/")
            assert problem.detail.isprintable()
            assert problem.detail.endswith(".")
            assert len(problem.detail) < 1000


def test_a_target_is_written_with_what_it_names_alone() -> None:
    assert Target(layers=3).model_dump() == {"layers": 3}
