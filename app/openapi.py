"""Print the OpenAPI document of this version: `python -m app.openapi > docs/openapi.json`, or `make openapi`."""

import json
import sys
from typing import Any

from app.main import create_app
from app.settings import load_settings


def document() -> dict[str, Any]:
    """The document that `/openapi.json` serves; nothing is connected to."""
    return create_app(load_settings()).openapi()


if __name__ == "__main__":
    json.dump(document(), sys.stdout, indent=1, ensure_ascii=False, sort_keys=True)
    sys.stdout.write("\n")
