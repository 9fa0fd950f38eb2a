"""How jobs look in a terminal, and in the log of a build."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from app.cli.output import print_table, standard_output
from app.cli.pipeline import page_of, speedup_of
from app.client import FINAL_STATES, Job, ProblemError, Streamline, UnreachableError
from app.core import defaults
from app.jobs.waiting import too_large, waiting_sentence


def announce(service: Streamline, job: Job) -> None:
    """Say what was submitted and where to look, and if no worker is large enough for it."""
    print(f"job {job['id']} is {job['state']}: {page_of(service, job['id'])}")  # noqa: T201
    need, workers = job.get("required_memory_bytes"), workers_of(service, job)
    if workers and too_large(need, workers):
        print(waiting_sentence(need, workers))  # noqa: T201


def show_job(job: Mapping[str, Any], workers: Sequence[int | None] | None = None) -> None:
    """One job: its state, and dense against pruned when it has a result.

    `workers` are those of the service, by their memory; of a job that waits, they tell whether one can take it.
    """
    console = standard_output()
    console.print(f"job {job['id']}  {job['state']}" + (f", verdict {job['verdict']}" if job["verdict"] else ""))
    if job["state"] not in FINAL_STATES:
        where = f"{job['stage'] or 'waiting'}, {job['progress']:.0%}, attempt {job['attempt']}"
        console.print(f"{job['spec']['model']['repo']}, {_target(job)}: {where}", highlight=False, soft_wrap=True)
    if job["state"] == "queued" and workers is not None:
        console.print(waiting_sentence(job.get("required_memory_bytes"), workers), highlight=False, soft_wrap=True)
    if job["error"]:
        said = f"{job['error']['code']} in {job['error']['stage']}: {job['error']['detail']}"
        console.print(said, style="red", markup=False, highlight=False, soft_wrap=True)
    for gate in job["gates"]:
        word = "passed" if gate["passed"] else "MISSED"
        between = gate.get("interval")
        spread = f", 95 % interval {between[0]:.6g} to {between[1]:.6g}" if between else ""
        value = _number(gate["value"], ".6g")
        told = f"gate {gate['name']}: {word} (value {value}, limit {gate['limit']:.6g}{spread})"
        console.print(told, markup=False, soft_wrap=True)
    if job["result"]:
        print_table(metrics_table(job["result"]["metrics"]), console)
        kept = "; `main` was not moved" if job["verdict"] == "fail" else ""
        where = f"checkpoint: {job['result']['repo']} at {job['result']['revision']}{kept}"
        console.print(where, highlight=False, soft_wrap=True)


def _target(job: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in job["spec"]["target"].items() if value is not None)


def metrics_table(metrics: Mapping[str, Any]) -> Table:
    """Dense, cut and pruned side by side, and the speed-up that a gate is held against."""
    table = Table(title=f"{metrics['sparsity']:.1%} smaller")
    for column in ("", "dense", "cut", "pruned"):
        table.add_column(column, justify="left" if not column else "right")
    parameters = metrics["parameters"]
    table.add_row("parameters", f"{parameters['dense']:,}", "", f"{parameters['pruned']:,}")
    perplexity = metrics["perplexity"]
    for name in perplexity["dense"]:
        table.add_row(
            f"perplexity, {name}", *(_number(perplexity[side][name], ".2f") for side in ("dense", "cut", "pruned"))
        )
    for key, title in (
        ("decode_tokens_per_second", "decode tokens/s, each by itself"),
        ("prefill_tokens_per_second", "prefill tokens/s, each by itself"),
    ):
        if key in metrics:
            dense, pruned = (_number(metrics[key][side], ",.1f", "not measured") for side in ("dense", "pruned"))
            table.add_row(title, dense, "", pruned)
    if speedup := speedup_of(metrics):
        table.add_row(*speedup)
    return table


def _number(value: float | None, form: str, missing: str = "not a number") -> str:
    return missing if value is None else format(value, form)


def show_jobs(jobs: Iterable[Mapping[str, Any]]) -> None:
    """The list, newest first."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    console = standard_output()
    for column in ("id", "state", "done", "verdict", "created", "model"):
        table.add_column(column, no_wrap=column != "model", overflow="fold")
    for job in jobs:
        table.add_row(
            job["id"],
            job["state"],
            f"{job['progress']:.0%}",
            job["verdict"] or "",
            job["created_at"][5:16].replace("T", " "),
            job["spec"]["model"]["repo"],
        )
    print_table(table, console)


def show_plan(answer: Mapping[str, Any], request: Mapping[str, Any]) -> None:
    """What a job would do, why, and what it would cost, in sentences."""
    standard_output().print("\n".join(plan_sentences(answer, request)), highlight=False, soft_wrap=True)


def plan_sentences(answer: Mapping[str, Any], request: Mapping[str, Any]) -> list[str]:
    """The plan's answer as sentences, one a line."""
    which, parameters, cost = answer["removed_layers"], answer["parameters"], answer["replacements"]
    if which is not None:
        chosen = f"layers {which[0]} to {which[-1]}, as the request says"
    else:
        metric = (request.get("scoring") or {}).get("metric") or defaults.METRIC
        what = (
            "whose loss costs the text least"
            if metric in {"perplexity", "task"}
            else "that change the hidden state least"
        )
        chosen = f"those {what}; the job scores every window by {metric} to find them"
    rounds = f" in {len(answer['rounds'])} rounds ({', '.join(map(str, answer['rounds']))})"
    kind = (request.get("replacement") or {}).get("kind") or defaults.KIND
    put = f"{kind}, {answer['added_parameters']:,} parameters" if answer["added_parameters"] else f"nothing ({kind})"
    sentences = [
        f"Removes {answer['removed_count']} decoder layers{rounds if len(answer['rounds']) > 1 else ''}: {chosen}.",
        f"Puts in their place: {put}.",
        f"{parameters['dense']:,} -> {parameters['pruned']:,} parameters: {answer['sparsity']:.1%} smaller.",
        f"Needs about {_bytes(answer['estimated']['memory_bytes'])} of memory and "
        f"{_bytes(answer['estimated']['disk_bytes'])} of disk beside the dense model's own files.",
    ]
    if cost["count"] > 1:
        sentences.insert(2, f"{cost['count']} replacements give {cost['share_given_back']:.1%} of what goes back.")
    return sentences


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def workers_of(service: Streamline, job: Mapping[str, Any]) -> list[int | None] | None:
    """The memory of the service's workers where it matters: while the job waits. None from one that cannot tell."""
    if job["state"] != "queued":
        return None
    try:
        return [each["memory_bytes"] for each in service.workers()]
    except (ProblemError, UnreachableError):  # of an older release, or away: the job is there all the same
        return None
