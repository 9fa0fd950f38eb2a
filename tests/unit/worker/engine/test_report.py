"""What a report promises to its readers: whatever the stages found, it has the published form."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.app.report.strategies import SCHEMA, SURROUNDINGS, found_by_stages
from worker.engine.report import STAGE_FILES, compose

VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(parts=found_by_stages(), seconds=st.dictionaries(st.sampled_from(["fetch", "score"]), st.floats(0, 1e6)))
def test_whatever_the_stages_found_the_report_has_the_published_form(
    parts: dict[str, Any], seconds: dict[str, float]
) -> None:
    report = {**compose(parts, seconds), **SURROUNDINGS}
    written = json.loads(json.dumps(report, allow_nan=False))
    VALIDATOR.validate(written)


def test_the_schema_is_one_and_refuses_another_version() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    report = {**compose(dict.fromkeys(STAGE_FILES), {}), **SURROUNDINGS}
    jsonschema.validate(report, SCHEMA)
    with pytest.raises(jsonschema.ValidationError, match="1 was expected"):
        jsonschema.validate(report | {"schema": 2}, SCHEMA)
