"""How pages are rendered: the one set of templates, and the filters that they use."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates
from markupsafe import Markup, escape

from app.api.deps import Caller
from app.auth.logins import cookie_in
from app.auth.scopes import Scope
from app.core.speedup import in_words as speedup_in_words
from app.report import quantities
from app.web import assets

_templates = Jinja2Templates(Path(__file__).parent / "templates")


def _moment(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M")


def _commands(sentence: str) -> Markup:
    """A sentence of ours with its commands, which stand between backticks, as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(sentence))))  # noqa: S704 - escaped


_templates.env.filters |= {
    name: getattr(quantities, name) for name in ("count", "size", "ratio", "percent", "digits", "seconds")
}
_templates.env.filters |= {"commands": _commands, "moment": _moment, "speedup_in_words": speedup_in_words}
_templates.env.globals["static"] = assets.address


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """The page that a template makes of these values; its navigation leads where the caller may go."""
    caller: Caller | None = getattr(request.state, "caller", None)
    known = {
        "caller": caller,
        "may_administer": caller is not None and caller.scope.includes(Scope.ADMIN),
        "may_submit": caller is not None and caller.scope.includes(Scope.SUBMIT),
        "logged_in": bool(caller and caller.owner and cookie_in(request.headers)),
    }
    return _templates.TemplateResponse(request, template, known | values, status_code=status)
