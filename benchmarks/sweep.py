"""A sweep over sparsities and replacements on the bundled model, judged on texts and tasks: its cost and its pages.

    python -m benchmarks.sweep --data DIR [--sparsity 0.25 0.375 0.5] [--kinds none swiglu layer]
        [--tasks blimp story_cloze] [--limit 100] [--sequences 200] [--out sweep-output] [--service DIR]

DIR has `tinystories_train.jsonl`, `tinystories_test.jsonl` and the tasks' files. An embedded service does the jobs. As
each ends, its report is left in `--out` as a page that opens without the service and as JSON, its model card goes
through huggingface_hub's validation, and its tasks are told; at last comes the page that compares all. A sweep that was
stopped goes on with the job that it stood at where `--service` names a directory. Exits 1 where a card is refused,
where the event log shows that the dense model was measured more than once by any text or task, or where the compare
page lacks its plot.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
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
_VALIDATE = "import sys, huggingface_hub; huggingface_hub.ModelCard.load(sys.argv[1]).validate()"
_KNOWN = "known from an earlier run"  # what the engine logs of a text or task that it did not measure again


def main() -> int:
    """Run the sweep; returns the exit status."""
    arguments = _parser().parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as empty:
        data_dir = arguments.service or Path(empty)
        with embedded_service(data_dir, arguments.data) as url, Streamline(url) as service:
            submitted = _submitted(service, arguments)
            jobs, measured = [], []
            for job_id in submitted:
                job = service.wait(job_id)
                if job["state"] != "succeeded":
                    print(f"{job['id']} {job['state']}: {job['error']}")
                    return 1
                jobs.append(job)
                per_job = len(job["spec"]["evaluation"]["tasks"]) + 1
                measured.append(per_job - _known(service, job_id))
                report = service.report(job_id)
                _save_report(url, job, report, arguments.out)
                _validate_card(url, job)
                print(f"{_name(job)}: the dense model was measured on {measured[-1]} of {per_job} texts and tasks")
                _show_tasks(report)
            query = "&".join(f"job={job['id']}" for job in jobs)
            page = _with_styles(url, httpx.get(f"{url}/compare?{query}").raise_for_status().text)
    (arguments.out / "compare.html").write_text(page, encoding="utf-8")
    show_comparison(compare(jobs))
    print(f"{len(jobs)} jobs in {time.monotonic() - began:.0f} s; pages in {arguments.out}/")
    return 0 if measured[0] == per_job and not any(measured[1:]) and "<svg" in page else 1


def _with_styles(url: str, page: str) -> str:
    """The page with its styles in it, so that it opens without the service."""

    def fetched(link: re.Match[str]) -> str:
        return f"<style>{httpx.get(url + link[1]).raise_for_status().text}</style>"

    return re.sub(r'<link rel="stylesheet" href="([^"]+)">', fetched, page)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="texts and tasks' files")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.25, 0.375, 0.5])
    parser.add_argument("--kinds", nargs="+", default=["none", "swiglu", "layer"])
    parser.add_argument("--tasks", nargs="+", default=["blimp", "story_cloze"])
    parser.add_argument("--limit", type=int, default=100, help="questions per task")
    parser.add_argument("--sequences", type=int, default=200, help="of 256 tokens, to train on")
    parser.add_argument("--out", type=Path, default=Path("sweep-output"))
    parser.add_argument("--service", type=Path, metavar="DIR", help="the service's data, to go on from; default: new")
    return parser


def _submitted(service: Streamline, arguments: argparse.Namespace) -> list[str]:
    """Submit all combinations, and return the jobs' ids; a worker does them one after the other."""
    train, test = (
        service.upload_dataset(arguments.data / f"tinystories_{part}.jsonl")["id"] for part in ("train", "test")
    )
    found = []
    for kind, sparsity in itertools.product(arguments.kinds, arguments.sparsity):
        name = f"{kind}-{round(1000 * sparsity)}"
        request = {
            "model": {"repo": MODEL},
            "target": {"sparsity": sparsity},
            "replacement": {"kind": kind, "tokens": arguments.sequences * 256},
            "calibration": {"dataset": train},
            "evaluation": {"perplexity": [test], "tasks": arguments.tasks, "limit": arguments.limit},
            "benchmark": {"batch_sizes": [1, 4], "prompt_tokens": 32, "new_tokens": 16},
            "output": {"repo": f"sweep/{name}"},
            "labels": {"sweep": "stories-24l"},
        }
        found.append(service.submit(request, idempotency_key=name)["id"])
    return found


def _known(service: Streamline, job_id: str) -> int:
    """Return how many texts and tasks the job's event log says the dense model was not measured on again."""
    return sum(_KNOWN in str(event["data"].get("message", "")) for event in service.events(job_id))


def _save_report(url: str, job: Any, report: dict[str, Any], out: Path) -> None:
    answer = httpx.get(f"{url}/v1/jobs/{job['id']}/report", headers={"Accept": "text/html"}).raise_for_status()
    (out / f"{_name(job)}.html").write_text(answer.text, encoding="utf-8")
    (out / f"{_name(job)}.json").write_text(json.dumps(report, indent=1), encoding="utf-8")


def _validate_card(url: str, job: Any) -> None:
    """Have the card validated by the client that a user has, in a process that knows no other hub."""
    with tempfile.TemporaryDirectory() as home:
        subprocess.run(
            [sys.executable, "-c", _VALIDATE, job["result"]["repo"]],
            env=os.environ | {"HF_ENDPOINT": url, "HF_HOME": home, "HF_HUB_OFFLINE": "0"},
            check=True,
        )


def _show_tasks(report: dict[str, Any]) -> None:
    for name, task in report["evaluation"]["tasks"].items():
        accuracy, stability, flips = task["accuracy"], task["stability"], task["flips"]
        print(
            f"  {name:<48} accuracy {accuracy['dense']:.3f} -> {accuracy['pruned']:.3f}, stability "
            f"{stability['value']:.3f} ({stability['low']:.3f} to {stability['high']:.3f}), right to wrong "
            f"{flips['right_to_wrong']}, wrong to right {flips['wrong_to_right']}"
        )


def _name(job: Any) -> str:
    return str(job["result"]["repo"].partition("/")[2])


if __name__ == "__main__":
    sys.exit(main())
