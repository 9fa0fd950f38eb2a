"""The report's form through time: the published schemas, and older reports brought to the newest form.

Everything that reads a report reads the newest form; what stands in an artefact stays as it was written.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from app.core.report_version import REPORT_VERSION

_SCHEMAS: Final = Path(__file__).parent / "schemas"
_MEASURES: Final = (
    "decode_tokens_per_second",
    "prefill_tokens_per_second",
    "time_to_first_token_s",
    "peak_memory_bytes",
)


class UnknownVersion(Exception):  # noqa: N818 - named for what happened
    """The report has a form that this version of the service does not know."""


def schema_names() -> list[str]:
    """The published schemas, oldest first: `report-1.json` and so on."""
    return [f"report-{version}.json" for version in range(1, REPORT_VERSION + 1)]


def schema_text(name: str) -> bytes:
    """The JSON Schema of that name, one of `schema_names()`."""
    return (_SCHEMAS / name).read_bytes()


def upgraded(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report in the newest form; the given one stays as it is.

    Raises:
        UnknownVersion: it was written by a later version of the service.
    """
    version = report.get("schema", 0)
    if version not in range(REPORT_VERSION + 1):
        raise UnknownVersion(
            f"The report has schema version {json.dumps(version)}; this service knows those up to {REPORT_VERSION}."
        )
    return _from_0(report) if version == 0 else dict(report)


def _from_0(report: Mapping[str, Any]) -> dict[str, Any]:
    """Version 0 named no version and no lineage, and kept its measures by batch size and by measure."""
    found: dict[str, Any] = {"schema": 1, "lineage": None, **report}
    if benchmark := report.get("benchmark"):
        found["benchmark"] = {
            "settings": [
                _setting(int(size), benchmark, measured) for size, measured in benchmark["batch_sizes"].items()
            ],
            "models": {
                name: {measure: benchmark[measure][name] for measure in ("parameters", "checkpoint_bytes")}
                | {"flops_per_token": benchmark["flops_per_token"][name]}
                for name in benchmark["parameters"]
            },
            "rivals": [],
            "backend": "transformers",
            **{
                name: benchmark[name]
                for name in ("new_tokens", "repeats", "threads", "device", "dtype", "not_measured")
                if name in benchmark
            },
        }
    return found


def _setting(batch_size: int, benchmark: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    names = {name for measure in _MEASURES for name in measured.get(measure, {})}
    return {
        "batch_size": batch_size,
        "prompt_tokens": benchmark["prompt_tokens"],
        "new_tokens": benchmark["new_tokens"],
        "models": {
            name: {measure: measured[measure][name] for measure in _MEASURES if name in measured.get(measure, {})}
            for name in sorted(names)
        },
        **{name: measured[name] for name in ("speedup", "prefill_speedup") if name in measured},
    }
