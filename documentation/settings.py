"""Every setting: from the fields of `app.settings.Settings`."""

import json
from pathlib import Path
from typing import Any, Final

from app.settings import Settings
from documentation.json_schema import range_of, type_of
from documentation.tables import code, prose, table

_LEAST_WITH_UNIT: Final = 1 << 20

_ABOVE = """# Settings

API, workers and the `streamline` commands that run beside them (`migrate`, `keys`, `gc`, `fsck`) read the same
environment variables. A value that is wrong stops the start with one sentence that names the variable. Without any of
them everything lies in `streamline-data` below the current directory.

"""

_OTHERS: Final = (
    ("`STREAMLINE_URL`, `STREAMLINE_API_KEY`", "clients: the commands that ask a service, and `app.client`"),
    ("`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, ...", "the S3 client, where the store is a bucket"),
    ("`OTEL_EXPORTER_OTLP_ENDPOINT` and OpenTelemetry's others", "API and workers: where traces are sent"),
    ("`CUDA_VISIBLE_DEVICES`", "a worker's engine: which GPUs it may use"),
    ("`HF_ENDPOINT`, `HF_TOKEN`", "Hugging Face clients: the address of this service, and a key of it"),
)
"""Variables that are not this service's, and who reads them."""


def page() -> str:
    """The page."""
    schema = Settings.model_json_schema()["properties"]
    rows = [
        [
            code(f"STREAMLINE_{name.upper()}"),
            prose(field.description or ""),
            _type(schema[name]),
            range_of(schema[name]),
            _default(field.default),
        ]
        for name, field in Settings.model_fields.items()
    ]
    return _ABOVE + table(("variable", "meaning", "type", "range", "default"), rows) + _others()


def _others() -> str:
    return "\n## Variables of other programs\n\n" + table(("variable", "who reads it"), _OTHERS)


def _type(schema: dict[str, Any]) -> str:
    return type_of(schema).removesuffix(" or null").replace("password", "text, secret")


def _default(value: Any) -> str:
    if value is None or value == "" or value in ((), frozenset()):
        return ""
    if isinstance(value, int) and value >= _LEAST_WITH_UNIT:
        return f"`{value}` ({_with_unit(value)})"
    return code(str(value) if isinstance(value, Path | str) else json.dumps(value))


def _with_unit(count: int) -> str:
    for power, unit in ((30, "GiB"), (20, "MiB")):
        if count >= 1 << power:
            return f"{count / (1 << power):g} {unit}"
    return str(count)
