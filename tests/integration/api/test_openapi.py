"""The OpenAPI document says what the service does: every answer, every problem, every default."""

import json
from pathlib import Path
from typing import Any

import pytest

from app import errors
from app.errors import ServiceError
from tests.integration.api.conftest import Service


@pytest.fixture(scope="module")
def document(shared_service: Service) -> dict[str, Any]:
    found: dict[str, Any] = shared_service.http.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_the_committed_document_is_that_of_this_version(document: dict[str, Any]) -> None:
    committed = json.loads((Path(__file__).parents[3] / "docs/openapi.json").read_text(encoding="utf-8"))
    assert committed == document, "run `make openapi` and look at what has changed for clients"


def test_every_call_of_the_contract_is_there(document: dict[str, Any]) -> None:
    assert {name for name, _ in operations(document)} >= {
        "POST /v1/jobs",
        "GET /v1/jobs",
        "GET /v1/jobs/{job_id}",
        "GET /v1/jobs/{job_id}/events",
        "POST /v1/jobs/{job_id}/cancel",
        "POST /v1/jobs/{job_id}/retry",
        "GET /v1/jobs/{job_id}/report",
        "GET /v1/jobs/{job_id}/files",
        "GET /v1/jobs/{job_id}/files/{path}",
        "POST /v1/plans",
        "POST /v1/datasets",
        "GET /v1/datasets",
        "GET /healthz",
        "GET /readyz",
    }


def test_every_refusal_is_a_documented_problem(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for status, answer in operation["responses"].items():
            if int(status) >= 400 and name != "GET /readyz" and status != "416":
                assert list(answer["content"]) == ["application/problem+json"], (name, status)
    assert "HTTPValidationError" not in str(document)


def test_every_code_is_explained_where_it_can_happen(document: dict[str, Any]) -> None:
    submit = document["paths"]["/v1/jobs"]["post"]["responses"]
    text = " ".join(answer["description"] for answer in submit.values())
    for code in ("unknown_field", "out_of_range", "unknown_model", "no_safetensors", "idempotency_key_reused"):
        assert f"`{code}`" in text


def test_every_field_of_the_request_is_described(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in ("Model", "Target", "Scoring", "Replacement", "Calibration", "Benchmark", "Gates", "Output"):
        assert schemas[name]["additionalProperties"] is False
        for field, schema in schemas[name]["properties"].items():
            assert schema.get("description"), f"{name}.{field}"


def test_a_job_is_answered_with_a_schema_of_its_own(document: dict[str, Any]) -> None:
    submit = document["paths"]["/v1/jobs"]["post"]
    assert submit["responses"]["202"]["content"]["application/json"]["schema"]["$ref"].endswith("/Job")
    assert set(document["components"]["schemas"]["Job"]["properties"]) >= {
        "id", "state", "stage", "progress", "attempt", "created_at", "started_at", "finished_at", "spec", "labels",
        "verdict", "gates", "error", "result",
    }  # fmt: skip


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            found = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return found + [one for value in node.values() for one in references(value)]
        return [one for value in node for one in references(value)] if isinstance(node, list) else []

    for reference in references(document):
        assert reference.rpartition("/")[2] in document["components"]["schemas"], reference


def all_errors(kind: type[ServiceError] = ServiceError) -> list[type[ServiceError]]:
    return [one for child in kind.__subclasses__() for one in (child, *all_errors(child))]


def test_every_error_has_a_meaning_and_a_code_of_its_own() -> None:
    kinds = [kind for kind in all_errors() if kind.__module__.startswith(f"{errors.__name__}.")]
    assert all(kind.__doc__ for kind in kinds)
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)
