"""What the pages are made of besides their words: styles and scripts, from this machine alone.

Their address holds a hash over all of them, so that a browser keeps them for good and never mixes two releases.
"""

import hashlib
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import Response

from app.errors.resources import FileNotFound
from app.report.page import PLOT_STYLE

router = APIRouter(include_in_schema=False)

_TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
_FILES: Final[dict[str, bytes]] = {
    path.name: path.read_bytes() for path in sorted((Path(__file__).parent / "static").iterdir())
} | {"plots.css": PLOT_STYLE.encode()}
_CONTENT: Final = b"\0".join(name.encode() + content for name, content in _FILES.items())
_VERSION: Final = hashlib.sha256(_CONTENT).hexdigest()[:16]
_HEADERS: Final = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}


def address(name: str) -> str:
    """Where a page finds the file."""
    assert name in _FILES, name
    return f"/static/{_VERSION}/{name}"


@router.get("/static/{version}/{name}")
def static_file(version: str, name: str) -> Response:
    """A style or a script. Pages of an older release that are still open get those of this one, uncached."""
    if name not in _FILES:
        raise FileNotFound(f"The pages have no file {name[:200]!r}.", parameter="name")
    headers = _HEADERS if version == _VERSION else _HEADERS | {"Cache-Control": "no-cache"}
    return Response(_FILES[name], media_type=_TYPES[Path(name).suffix], headers=headers)
