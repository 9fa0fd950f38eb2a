"""Every code that a refusal or a failed job may carry: from the classes of `app.errors`, and the engine's source."""

from collections.abc import Iterator

from app.errors import ServiceError, outages, references, requests, resources
from documentation.source import calls, modules_below, text_of
from documentation.tables import code, prose, table

_ABOVE = """# Error codes

Codes are stable; programs may go by them. The `detail` beside a code says what is wrong here and what to do next, and
for a field of the request `pointer` names it ([RFC 6901](https://www.rfc-editor.org/rfc/rfc6901)).

## Of the HTTP API

An answer of status 400 and above is a document of this form (`application/problem+json`):

```json
{
  "type": "urn:streamline:problem:out_of_range",
  "title": "A value is out of range",
  "status": 422,
  "detail": "...",
  "code": "out_of_range",
  "pointer": "/target/sparsity",
  "request_id": "..."
}
```

"""

_OF_JOBS = """
## Of failed jobs

A job that failed has `error.code`, `error.stage` and `error.detail`. The engine's codes, with what it says (`…`: a
value of the occurrence):

"""


def page() -> str:
    """The page."""
    rows = [
        [code(kind.code), str(kind.status), prose(kind.title), prose(" ".join((kind.__doc__ or "").split()))]
        for kind in kinds()
    ]
    said: dict[str, list[str]] = {}
    for name, text in _of_the_engine():
        said.setdefault(name, []).append(text)
    jobs = [[code(name), "<br>".join(dict.fromkeys(map(prose, said[name])))] for name in sorted(said)]
    return _ABOVE + table(("code", "status", "title", "meaning"), rows) + _OF_JOBS + table(("code", "detail"), jobs)


def kinds() -> list[type[ServiceError]]:
    """Every class that has a code of its own, in the order of the files."""
    named = [value for module in (requests, references, resources, outages) for value in vars(module).values()]
    found = [value for value in named if isinstance(value, type) and issubclass(value, ServiceError)]
    return list({kind.code: kind for kind in found}.values())


def _of_the_engine() -> Iterator[tuple[str, str]]:
    for path in modules_below("worker/engine"):
        for call in calls(path, "EngineError"):
            told = [text_of(argument) for argument in call.args[:2]]
            if len(told) == 2 and told[0]:
                yield told[0], told[1] or "…"
