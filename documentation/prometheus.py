"""What Prometheus is told: from the metrics that the source of API and worker makes."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from documentation.source import calls, modules_below, text_of
from documentation.tables import code, prose, table

_KINDS: Final = ("Counter", "Gauge", "Histogram")

_ABOVE = """# Prometheus metrics

The API answers `GET /metrics`; a worker serves its own where `STREAMLINE_WORKER_METRICS` says. What to watch, and
alerts to begin with: [Monitoring](../operate/monitoring.md). Python's own `process_*` and `python_*` metrics come
along.

"""


@dataclass(frozen=True)
class Measure:
    """A metric as it is made."""

    name: str
    kind: str
    meaning: str
    labels: tuple[str, ...]

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which Prometheus keeps it."""
        match self.kind:
            case "Counter":
                return (f"{self.name}_total",)
            case "Histogram":
                return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)


def page() -> str:
    """The page."""
    return _ABOVE + "\n".join(["## API\n", _table("app"), "## Worker\n", _table("worker")])


def measures(directory: str) -> Iterator[Measure]:
    """Every metric that is made below a directory of the source."""
    for path in modules_below(directory):
        for kind in _KINDS:
            for call in calls(path, kind):
                told = [text_of(argument) for argument in call.args[:2]]
                if len(told) == 2 and told[0] and told[1]:
                    yield Measure(told[0], kind, told[1], _labels(call))


def _table(directory: str) -> str:
    rows = [
        [", ".join(map(code, each.series)), each.kind.lower(), ", ".join(map(code, each.labels)), prose(each.meaning)]
        for each in measures(directory)
    ]
    return table(("series", "kind", "labels", "meaning"), rows)


def _labels(call: ast.Call) -> tuple[str, ...]:
    given = call.args[2] if len(call.args) > 2 else None
    names = given.elts if isinstance(given, ast.List) else []
    return tuple(found for found in map(text_of, names) if found)
