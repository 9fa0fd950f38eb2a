"""Which pages are made from the code, and by what."""

from collections.abc import Callable, Mapping
from typing import Final

from documentation import (
    commands,
    error_codes,
    families,
    http_api,
    job_fields,
    methods,
    prometheus,
    settings,
)

PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "reference/job.md": job_fields.page,
    "reference/methods.md": methods.page,
    "reference/models.md": families.page,
    "reference/cli.md": commands.page,
    "reference/http.md": http_api.page,
    "reference/errors.md": error_codes.page,
    "reference/settings.md": settings.page,
    "reference/prometheus.md": prometheus.page,
}
"""Path below docs/ -> what makes the page."""
