"""A sweep over sparsities and replacements on the bundled model, judged on texts and tasks: its cost and its pages.

    python -m benchmarks.sweep --data DIR [--sparsity 0.25 0.375 0.5] [--kinds none swiglu layer]
        [--tasks blimp story_cloze] [--limit 100] [--sequences 200] [--out sweep-output]

DIR has `tinystories_train.jsonl`, `tinystories_test.jsonl` and the tasks' files. An embedded service does the jobs; its
reports and the page that compares them are left in `--out` as files that open without it. Exits 1 where the event log
shows that the dense model was measured more than once, by any text or task, or where the compare page lacks its plot.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from app.cli.comparison import show_comparison
from app.client import Streamline
from app.report.comparison import compare
from benchmarks.embedded import embedded_service

MODEL = "demo/stories-24l"
_KNOWN = "known from an earlier run"  # what the engine logs of a text or task that it did not measure again


def main() -> int:
    """Run the sweep; returns the exit status."""
    arguments = _parser().parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as data_dir, embedded_service(Path(data_dir), arguments.data) as url:
        with Streamline(url) as service:
            jobs = [service.wait(job_id) for job_id in _submitted(service, arguments)]
            if failed := [job for job in jobs if job["state"] != "succeeded"]:
                print("\n".join(f"{job['id']} {job['state']}: {job['error']}" for job in failed))
                return 1
            measured = [_measured(service, job["id"]) for job in jobs]
            _save_pages(url, jobs, arguments.out)
        show_comparison(compare(jobs))
        page = (arguments.out / "compare.html").read_text(encoding="utf-8")
    per_job = len(arguments.tasks_found) + 1
    for job, known in zip(jobs, measured, strict=True):
        print(f"{_name(job)}: the dense model was measured on {per_job - known} of {per_job} texts and tasks")
    print(f"{len(jobs)} jobs in {time.monotonic() - began:.0f} s; pages in {arguments.out}/")
    once = measured[0] == 0 and all(known == per_job for known in measured[1:])
    return 0 if once and "<svg" in page else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="texts and tasks' files")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.25, 0.375, 0.5])
    parser.add_argument("--kinds", nargs="+", default=["none", "swiglu", "layer"])
    parser.add_argument("--tasks", nargs="+", default=["blimp", "story_cloze"])
    parser.add_argument("--limit", type=int, default=100, help="questions per task")
    parser.add_argument("--sequences", type=int, default=200, help="of 256 tokens, to train on")
    parser.add_argument("--out", type=Path, default=Path("sweep-output"))
    return parser


def _submitted(service: Streamline, arguments: argparse.Namespace) -> list[str]:
    """Submit all combinations, and return the jobs' ids; a worker does them one after the other."""
    train, test = (
        service.upload_dataset(arguments.data / f"tinystories_{part}.jsonl")["id"] for part in ("train", "test")
    )
    found = []
    for kind, sparsity in itertools.product(arguments.kinds, arguments.sparsity):
        job: Any = service.submit(
            {
                "model": {"repo": MODEL},
                "target": {"sparsity": sparsity},
                "replacement": {"kind": kind, "tokens": arguments.sequences * 256},
                "calibration": {"dataset": train},
                "evaluation": {"perplexity": [test], "tasks": arguments.tasks, "limit": arguments.limit},
                "benchmark": {"batch_sizes": [1, 4], "prompt_tokens": 32, "new_tokens": 16},
                "output": {"repo": f"sweep/{kind}-{round(1000 * sparsity)}"},
                "labels": {"sweep": "stories-24l"},
            }
        )
        arguments.tasks_found = job["spec"]["evaluation"]["tasks"]
        found.append(job["id"])
    return found


def _measured(service: Streamline, job_id: str) -> int:
    """Return how many texts and tasks the job's event log says the dense model was not measured on again."""
    return sum(_KNOWN in str(event["data"].get("message", "")) for event in service.events(job_id))


def _save_pages(url: str, jobs: list[Any], out: Path) -> None:
    query = "&".join(f"job={job['id']}" for job in jobs)
    (out / "compare.html").write_text(httpx.get(f"{url}/compare?{query}").raise_for_status().text, encoding="utf-8")
    for job in jobs:
        answer = httpx.get(f"{url}/v1/jobs/{job['id']}/report", headers={"Accept": "text/html"}).raise_for_status()
        (out / f"{_name(job)}.html").write_text(answer.text, encoding="utf-8")


def _name(job: Any) -> str:
    return str(job["result"]["repo"].partition("/")[2])


if __name__ == "__main__":
    sys.exit(main())
