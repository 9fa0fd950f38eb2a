"""How pages are rendered: the one set of templates, and the filters that they use."""

from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates

from app.report import quantities

_UNIT = 1000
_templates = Jinja2Templates(Path(__file__).parent / "templates")


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < _UNIT:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= _UNIT
    return f"{size:.1f} TB"


_templates.env.filters |= {name: getattr(quantities, name) for name in ("ratio", "percent", "digits", "seconds")}
_templates.env.filters["bytes"] = _bytes


def render(request: Request, template: str, **values: Any) -> HTMLResponse:
    """The page that a template makes of these values."""
    return _templates.TemplateResponse(request, template, values)
