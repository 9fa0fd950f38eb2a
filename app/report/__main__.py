"""``python -m app.report out/report.json report.html``: the page of a run without a service.

Exit codes: 0 done, 64 bad usage (one sentence on stderr).
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from app.report.page import render
from app.report.versions import UnknownVersion, upgraded

EXIT_USAGE = 64  # EX_USAGE of sysexits.h


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}\n")
        raise SystemExit(EXIT_USAGE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and return the exit code."""
    parser = _Parser(prog="python -m app.report", description="Draw the page of a report that the engine wrote.")
    parser.add_argument("report", type=Path, metavar="REPORT.json", help="as it lies in the engine's --out")
    parser.add_argument("page", type=Path, metavar="PAGE.html", help="where to write the page")
    options = parser.parse_args(arguments)
    try:
        report = json.loads(options.report.read_text(encoding="utf-8"))
        job = _without_a_job(upgraded(report))
    except OSError as error:
        parser.error(f"{options.report}: {error.strerror}")
    except UnknownVersion as error:
        parser.error(str(error))
    except (ValueError, KeyError, TypeError, AttributeError):
        parser.error(f"{options.report} is no report of a run; name the report.json in the directory of --out.")
    try:
        options.page.write_text(render(report, job), encoding="utf-8")
    except OSError as error:
        parser.error(f"{options.page}: {error.strerror}")
    sys.stderr.write(f"Written to {options.page}\n")
    return 0


def _without_a_job(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the page tells of a job, as far as a recipe has it: no gates, no times and no repository."""
    recipe = report["recipe"]
    calibration, judging = recipe["calibration"], recipe.get("judging") or {}
    spec = {
        **{name: value for name, value in recipe.items() if name not in ("model", "judging")},
        "model": {"repo": recipe["model"]["name"], "revision": recipe["model"]["revision"]},
        "calibration": {"dataset": calibration["name"], "column": calibration["column"]},
        "evaluation": {
            "perplexity": [text["name"] for text in recipe["evaluation"]],
            "tasks": [task["name"] for task in judging.get("tasks") or ()],
            **{name: judging.get(name) for name in ("limit", "over", "stride")},
        },
        "benchmark": {
            **recipe["benchmark"],
            "rivals": [each["name"] for each in recipe["benchmark"].get("rivals", [])],
        },
    }
    return {"id": None, "verdict": None, "gates": [], "spec": spec, "result": None, "finished_at": None}


if __name__ == "__main__":
    sys.exit(main())
