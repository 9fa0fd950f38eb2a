"""Commands about jobs: submit, look, wait, stop, and compare what came out."""

import json
from pathlib import Path
from typing import Annotated

import typer

from app.cli import exits
from app.cli.exits import UsageError
from app.cli.options import KINDS, JobArgument, JsonOption, RoundsOption, TimeoutOption, WindowsOption, print_json

commands = typer.Typer()


@commands.command()
def submit(
    spec: Annotated[
        Path | None, typer.Argument(metavar="[SPEC.json]", help="The whole request as a file; options override it.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Repo of the hub, as team/name or team/name@revision.")] = None,
    sparsity: Annotated[
        float | None, typer.Option(help="Share of the parameters to remove, net of what is added.")
    ] = None,
    layers: Annotated[int | None, typer.Option(help="How many decoder blocks fewer the result has.")] = None,
    window: Annotated[tuple[int, int] | None, typer.Option(help="Replace exactly the layers START to END-1.")] = None,
    kind: Annotated[
        str | None,
        typer.Option(help=f"What takes the window's place: {KINDS}."),
    ] = None,
    windows: WindowsOption = None,
    rounds: RoundsOption = None,
    calibration: Annotated[str | None, typer.Option(help="Id of a data set, or builtin:self.")] = None,
    evaluate: Annotated[list[str] | None, typer.Option(help="Data set for perplexity; may be repeated.")] = None,
    stride: Annotated[
        int | None, typer.Option(help="Tokens from one perplexity window to the next; default: they do not overlap.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Questions: a task's name (piqa), or a data set's id; may be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Questions per task.")] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(help="A bar, as max_perplexity_ratio=1.3, or piqa.min_stability=0.9 for a task; may be repeated."),
    ] = None,
    output: Annotated[str | None, typer.Option(help="Repo that the checkpoint is published to.")] = None,
    output_format: Annotated[
        str | None, typer.Option("--format", help="auto, or native (a stock architecture).")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="key=value, to find the job by; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same bytes.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key gives the same job.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result and fail when a gate is missed.")] = False,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> int:
    """Submit a job.

    Example: streamline submit --model demo/stories-24l --sparsity 0.25 --gate max_perplexity_ratio=1.3 --wait
    """
    from app.cli.jobs import announce, follow
    from app.cli.request import build
    from app.client import Streamline

    request = build(
        spec,
        model=model,
        target={"sparsity": sparsity, "layers": layers, "window": list(window) if window else None},
        kind=kind,
        selection={"windows": windows, "rounds": rounds, "mode": "iterative" if rounds else None},
        calibration=calibration,
        evaluate=evaluate,
        stride=stride,
        tasks=task,
        limit=limit,
        gates=gate,
        output={"repo": output, "format": output_format},
        labels=label,
        seed=seed,
    )
    with Streamline() as service:
        job = service.submit(request, idempotency_key=idempotency_key)
        if wait:
            if not as_json:
                announce(service, job)
            return follow(service, job["id"], timeout=timeout, as_json=as_json)
        print_json(job) if as_json else announce(service, job)
    return exits.PASSED


@commands.command()
def plan(
    spec: Annotated[Path | None, typer.Argument(metavar="[SPEC.json]", help="The request as a file.")] = None,
    model: Annotated[str | None, typer.Option(help="Repo of the hub.")] = None,
    config: Annotated[Path | None, typer.Option(help="A config.json instead of a repo: no weights needed.")] = None,
    sparsity: Annotated[float | None, typer.Option(help="Share of the parameters to remove.")] = None,
    layers: Annotated[int | None, typer.Option(help="How many decoder blocks fewer.")] = None,
    window: Annotated[tuple[int, int] | None, typer.Option(help="Exactly the layers START to END-1.")] = None,
    kind: Annotated[str | None, typer.Option(help=f"{KINDS}.")] = None,
    windows: WindowsOption = None,
    rounds: RoundsOption = None,
    output_format: Annotated[str | None, typer.Option("--format", help="auto or native.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Say what a job would remove, add and need, without making one."""
    from app.cli.jobs import show_plan
    from app.cli.request import build, read_json
    from app.client import Streamline

    request = build(
        spec,
        model=model,
        target={"sparsity": sparsity, "layers": layers, "window": list(window) if window else None},
        kind=kind,
        selection={"windows": windows, "rounds": rounds, "mode": "iterative" if rounds else None},
        output={"format": output_format},
        config=read_json(config) if config else None,
    )
    with Streamline() as service:
        answer = service.plan(request)
    print_json(answer) if as_json else show_plan(answer)
    return exits.PASSED


@commands.command()
def wait(job_id: JobArgument, timeout: TimeoutOption = None, as_json: JsonOption = False) -> int:
    """Wait for a job: exit 0 when it passed, 1 when it failed or missed a gate, 2 when cancelled, 3 at the timeout."""
    from app.cli.jobs import follow
    from app.client import Streamline

    with Streamline() as service:
        return follow(service, job_id, timeout=timeout, as_json=as_json)


@commands.command()
def status(
    job_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One job; without it, the newest ones.")] = None,
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(help="How many.", min=1, max=100)] = 20,
    as_json: JsonOption = False,
) -> int:
    """Show one job, or the newest ones."""
    from app.cli.jobs import show_job, show_jobs
    from app.client import Streamline

    with Streamline() as service:
        if job_id:
            job = service.job(job_id)
            print_json(job) if as_json else show_job(job)
        else:
            page = service.jobs(state=state, limit=limit)
            print_json(page) if as_json else show_jobs(page["items"])
    return exits.PASSED


@commands.command()
def events(job_id: JobArgument, as_json: JsonOption = False) -> int:
    """Print what has happened to a job, a line each."""
    from app.client import Streamline

    with Streamline() as service:
        for event in service.events(job_id):
            if as_json:
                typer.echo(json.dumps(event))
            else:
                said = " ".join(f"{key}={value}" for key, value in event["data"].items() if key != "time")
                typer.echo(f"{event['id']:>5}  {event['time']}  {event['event']:<16} {said}")
    return exits.PASSED


@commands.command()
def cancel(job_id: JobArgument, as_json: JsonOption = False) -> int:
    """Cancel a job; what it has finished is kept for `retry`."""
    from app.client import Streamline

    with Streamline() as service:
        job = service.cancel(job_id)
    print_json(job) if as_json else typer.echo(f"{job_id} is being cancelled (now {job['state']}).")
    return exits.PASSED


@commands.command()
def retry(job_id: JobArgument, as_json: JsonOption = False) -> int:
    """Let a failed or cancelled job go on from its last finished stage."""
    from app.client import Streamline

    with Streamline() as service:
        job = service.retry(job_id)
    print_json(job) if as_json else typer.echo(f"{job_id} is {job['state']} again.")
    return exits.PASSED


@commands.command()
def stability(
    dense: Annotated[Path, typer.Argument(help="The dense model's samples (lm-eval JSONL), or OpenCompass folder.")],
    pruned: Annotated[Path, typer.Argument(help="The same of the compressed model.")],
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory with tokenizer.json; sample files of lm-eval need it.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Compare two models' answers: stability, accuracy and flips. Needs no service and no model.

    Takes two sample files of lm-evaluation-harness (`--log_samples`) of the same task, or two folders of OpenCompass
    predictions with a TASK.json each.
    """
    from app.cli.stability import measure, show

    found = measure(dense, pruned, tokenizer)
    print_json(found) if as_json else show(found)
    return exits.PASSED


@commands.command()
def compare(
    job_ids: Annotated[list[str], typer.Argument(metavar="ID ID ...", help="Two jobs or more.")],
    as_json: JsonOption = False,
) -> int:
    """Put several jobs into one table: what they did differently, quality, speed, size, time and verdict."""
    from app.cli.comparison import show_comparison
    from app.client import Streamline
    from app.report.comparison import MOST_JOBS
    from app.report.comparison import compare as compared

    if not 2 <= len(set(job_ids)) <= MOST_JOBS:
        raise UsageError(f"Name 2 to {MOST_JOBS} different jobs; `streamline status` lists them.")
    with Streamline() as service:
        comparison = compared([service.job(job_id) for job_id in dict.fromkeys(job_ids)])
    print_json(comparison.to_json()) if as_json else show_comparison(comparison)
    return exits.PASSED
