"""What a build pipeline is given: a key by which its re-run attaches, a summary page, and test results."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from app.client import Job, ProblemError, Streamline

# Variables that together name one job of one pipeline run and stay the same when it is run again.
_RUNS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("github", ("GITHUB_REPOSITORY", "GITHUB_RUN_ID", "GITHUB_JOB")),
    ("gitlab", ("CI_PROJECT_ID", "CI_PIPELINE_ID", "CI_JOB_NAME")),
    ("buildkite", ("BUILDKITE_BUILD_ID", "BUILDKITE_STEP_ID")),
    ("circleci", ("CIRCLE_WORKFLOW_WORKSPACE_ID", "CIRCLE_JOB")),
    ("azure", ("SYSTEM_COLLECTIONID", "BUILD_BUILDID", "SYSTEM_JOBNAME")),
    ("bitbucket", ("BITBUCKET_PIPELINE_UUID", "BITBUCKET_STEP_UUID")),
)

PIPELINE_VARIABLES: Final = frozenset({name for _, names in _RUNS for name in names} | {"GITHUB_STEP_SUMMARY"})
"""The variables of the environment that change what commands do."""

_NOT_IN_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def idempotency_key(request: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> str | None:
    """The key of this request in this pipeline run, the same when the run is repeated; None outside of pipelines.

    The request is part of it, so that a run may submit several, and a changed one is a new job.
    """
    for provider, names in _RUNS:
        values = [environment.get(name, "") for name in names]
        if all(values):
            told = json.dumps([provider, *values, request], sort_keys=True)
            return f"{provider}-{hashlib.sha256(told.encode()).hexdigest()[:40]}"
    return None


def pinned(service: Streamline, request: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The request on the commit that its model's revision names now, and a key: one job for each commit."""
    model = request["model"]
    commit = service.model_commit(model["repo"], model.get("revision") or "main")
    fixed = {**request, "model": {**model, "revision": commit}}
    told = json.dumps(fixed, sort_keys=True)
    return fixed, f"commit-{hashlib.sha256(told.encode()).hexdigest()[:40]}"


def go_on(service: Streamline, job_id: str) -> Job:
    """Let a failed or cancelled job go on, unless somebody else, or a try whose answer was lost, has done so."""
    try:
        return service.retry(job_id)
    except ProblemError as refusal:
        if refusal.code != "job_not_retryable":
            raise
        return service.job(job_id)


def page_of(service: Streamline, job_id: str) -> str:
    """Where people look at the job; who is not logged in yet is asked for a key there."""
    return f"{service.url}/jobs/{job_id}"


def write_summary(markdown: str, file: Path | None) -> None:
    """Append Markdown to `file`, or to what GITHUB_STEP_SUMMARY names; without either nothing is written."""
    target = file or (Path(name) if (name := os.environ.get("GITHUB_STEP_SUMMARY")) else None)
    if target is not None:
        with target.open("a", encoding="utf-8") as out:
            out.write(markdown)


def unfinished(job: Job, why: str, page: str) -> str:
    """A job that was not waited for to its end, as Markdown: where it is, and the command that waits on."""
    name = _cell(job["spec"]["model"]["repo"]) if "spec" in job else f"Job {job['id']}"
    lines = [f"## {name}: **not finished**", "", why, ""]
    if "state" in job:
        stage = f", stage {job['stage']}" if job["state"] == "running" and job["stage"] else ""
        lines += [f"When it was last seen, it was {job['state']}{stage}, {job['progress']:.0%} done.", ""]
    return "\n".join([*lines, f"Wait on with `streamline wait {job['id']}`.", "", *_link(job, page)])


def refused(heading: str, why: str) -> str:
    """What never came to a job that could be shown, as Markdown."""
    return f"## {heading}\n\n{why}\n"


def _link(job: Job, page: str) -> list[str]:
    return [f"[Job {job['id']}]({page})", ""]


def summary(job: Job, page: str) -> str:
    """A finished job as Markdown: verdict, gates, dense against pruned, where the checkpoint is, and the job's page."""
    verdict = {"pass": "passed", "fail": "**missed a gate**"}.get(job["verdict"] or "", f"**{job['state']}**")
    lines = [f"## {_cell(job['spec']['model']['repo'])}: {verdict}", ""]
    if job["error"]:
        error = job["error"]
        lines += [f"`{error['code']}` in {error['stage']}: {_cell(error['detail'])}", ""]
    if job["gates"]:
        lines += ["| gate | limit | value | 95 % interval | |", "|---|---:|---:|---:|---|"]
        for gate in job["gates"]:
            word = "passed" if gate["passed"] else "**missed**"
            cells = (_cell(gate["name"]), _number(gate["limit"]), _number(gate["value"]), _between(gate), word)
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    if job["result"]:
        lines += _result(job["result"], "; `main` was not moved" if job["verdict"] == "fail" else "")
    return "\n".join([*lines, *_link(job, page)])


def _between(gate: Mapping[str, Any]) -> str:
    """The interval of the gate's value; empty where it has none."""
    return " to ".join(_number(end) for end in gate.get("interval") or ())


def _result(result: Mapping[str, Any], kept: str) -> list[str]:
    metrics = result["metrics"]
    lines = ["| | dense | cut | pruned |", "|---|---:|---:|---:|"]
    parameters, perplexity = metrics["parameters"], metrics["perplexity"]
    lines.append(f"| parameters | {parameters['dense']:,} | | {parameters['pruned']:,} |")
    for name in perplexity["dense"]:
        values = " | ".join(_number(perplexity[side].get(name)) for side in ("dense", "cut", "pruned"))
        lines.append(f"| perplexity, {_cell(name)} | {values} |")
    accuracy = metrics.get("accuracy") or {}
    for name in accuracy.get("dense", {}):
        dense, pruned = (_number(accuracy[side].get(name)) for side in ("dense", "pruned"))
        lines.append(f"| accuracy, {_cell(name)} | {dense} | | {pruned} |")
    speed = metrics.get("decode_tokens_per_second")
    if speed:
        lines.append(f"| decode tokens/s, each by itself | {_number(speed['dense'])} | | {_number(speed['pruned'])} |")
    if speedup := speedup_of(metrics):
        lines.append(f"| {' | '.join(speedup)} |")
    removed = result["removed_layers"]
    return [
        *lines,
        "",
        f"{metrics['sparsity']:.1%} smaller, without {len(removed)} layers ({_ranges(removed)}). "
        f"Checkpoint: `{result['repo']}` at `{result['revision']}`{kept}",
        "",
    ]


def speedup_of(metrics: Mapping[str, Any]) -> tuple[str, str, str, str] | None:
    """The speed-up as a row beside the models' rates, with its interval; None where none was measured.

    It has a row of its own because no two of those rates give it: it is the median of what each round's pair gave.
    """
    value = metrics.get("speedup")
    if value is None:
        return None
    between = (metrics.get("intervals") or {}).get("speedup")
    spread = f" ({between[0]:.2f} to {between[1]:.2f})" if between else ""
    return "speed-up (median of paired rounds)", "", "", f"x{value:.2f}{spread}"


def _ranges(indices: list[int]) -> str:
    from app.core.windows import runs

    return ", ".join(f"{start} to {end - 1}" if end - start > 1 else f"{start}" for start, end in runs(indices))


def _number(value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1000 else f"{value:.5g}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def write_junit(job: Job, file: Path) -> None:
    """Write the gates as test cases, in the form that build servers read; a job that did not succeed is an error."""
    suite = ElementTree.Element("testsuite", name=f"streamline {job['spec']['model']['repo']}")
    cases: list[dict[str, Any]] = job["gates"] if job["state"] == "succeeded" else []
    for gate in cases:
        case = ElementTree.SubElement(suite, "testcase", classname="streamline.gates", name=str(gate["name"]))
        if not gate["passed"]:
            between = _between(gate)
            spread = f", 95 % interval {between}" if between else ""
            message = f"value {_number(gate['value'])}, limit {_number(gate['limit'])}{spread}"
            ElementTree.SubElement(case, "failure", type="gate_missed", message=message)
    if not cases:
        case = _case_of_the_job(suite)
        if job["state"] != "succeeded":
            error = job["error"] or {"code": job["state"], "detail": f"The job was {job['state']}."}
            _add_error(case, error["code"], error["detail"])
    _write(suite, file)


def write_unknown_junit(name: str, kind: str, message: str, file: Path) -> None:
    """Write an error in the place of results that nobody has: a file without a test case looks as if all passed."""
    suite = ElementTree.Element("testsuite", name=name)
    _add_error(_case_of_the_job(suite), kind, message)
    _write(suite, file)


def _case_of_the_job(suite: ElementTree.Element) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname="streamline.gates", name="job")


def _add_error(case: ElementTree.Element, kind: str, message: str) -> None:
    ElementTree.SubElement(case, "error", type=kind, message=_NOT_IN_XML.sub("?", message))


def _write(suite: ElementTree.Element, file: Path) -> None:
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", str(len(suite.findall("testcase/error"))))
    ElementTree.indent(suite)
    ElementTree.ElementTree(suite).write(file, encoding="utf-8", xml_declaration=True)
    with file.open("a", encoding="utf-8") as out:
        out.write("\n")
