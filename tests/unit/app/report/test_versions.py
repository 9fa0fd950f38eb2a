"""What reports promise through time: an older one is read as the newest, and the published schema describes it."""

import json
from typing import Any

import jsonschema
import pytest

from app.report.versions import UnknownVersion, schema_names, schema_text, upgraded
from tests.unit.app.report.reports import full, version_0

SCHEMA: dict[str, Any] = json.loads(schema_text(schema_names()[-1]))


def test_a_report_of_version_0_is_brought_to_the_published_form() -> None:
    old = version_0()
    assert "schema" not in old
    new = upgraded(old)
    jsonschema.validate(new, SCHEMA)
    setting = new["benchmark"]["settings"][1]
    assert (setting["batch_size"], setting["prompt_tokens"]) == (4, 128)
    was = old["benchmark"]["batch_sizes"]["4"]
    assert setting["models"]["pruned"]["decode_tokens_per_second"] == was["decode_tokens_per_second"]["pruned"]
    assert setting["speedup"] == was["speedup"]
    assert new["benchmark"]["models"]["dense"]["parameters"] == 4_954_240
    assert old == version_0(), "the given report is left alone"


def test_the_newest_form_stays_as_it_is() -> None:
    jsonschema.validate(full(), SCHEMA)
    assert upgraded(full()) == full()


@pytest.mark.parametrize("version", [2, "1", -1, None])
def test_a_version_that_is_not_known_is_refused_by_name(version: object) -> None:
    with pytest.raises(UnknownVersion, match="schema version"):
        upgraded({"schema": version})
