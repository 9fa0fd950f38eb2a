"""The commands about jobs: submit, look, wait, cancel, compare."""

import json
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from app.cli import exits
from app.cli.exits import UsageError
from app.cli.job_ids import whole_id, whole_ids
from app.cli.options import (
    KINDS,
    JobArgument,
    JsonOption,
    JunitOption,
    RoundsOption,
    SpecArgument,
    SummaryOption,
    TimeoutOption,
    WindowsOption,
    print_json,
)
from app.core.architectures import BLOCK_KINDS
from app.jobs.states import State

commands = typer.Typer()

_NOT_FOR_PEOPLE = frozenset({"time", "table", "outputs"})
"""Parts of events that fill lines; `events --json` has them."""


@commands.command()
def submit(
    spec: SpecArgument = None,
    model: Annotated[str | None, typer.Option(help="Repo of the hub, as team/name or team/name@revision.")] = None,
    sparsity: Annotated[
        float | None, typer.Option(help="Share of the parameters to remove, net of what is added.")
    ] = None,
    layers: Annotated[int | None, typer.Option(help="How many decoder blocks fewer the result has.")] = None,
    window: Annotated[tuple[int, int] | None, typer.Option(help="Replace exactly the layers START to END-1.")] = None,
    kind: Annotated[
        str | None,
        typer.Option(help=f"What takes the window's place: {KINDS}.", autocompletion=lambda: BLOCK_KINDS),
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
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key gives the same job [in a CI pipeline: made from the run's names].")
    ] = None,
    when_moved: Annotated[
        bool,
        typer.Option(
            "--when-moved", help="One job for each commit of the model: a new one only where it has moved since."
        ),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result and fail when a gate is missed.")] = False,
    timeout: TimeoutOption = None,
    summary: SummaryOption = None,
    junit: JunitOption = None,
    as_json: JsonOption = False,
) -> int:
    """Submit a job.

    Example: streamline submit --model demo/stories-24l --sparsity 0.25 --gate max_perplexity_ratio=1.3 --wait

    In a CI pipeline, or with the same key, a step that is run again attaches to the job that it made before; one that
    had failed or was cancelled goes on from its last finished stage.
    """
    from app.cli.jobs import announce
    from app.cli.pipeline import go_on, pinned
    from app.cli.pipeline import idempotency_key as key_of_this_run
    from app.cli.request import build
    from app.cli.waiting import Outcome, follow
    from app.client import Streamline

    outcome = Outcome(as_json, summary, junit)

    def unless_refused(heading: str) -> AbstractContextManager[None]:
        return outcome.unless_refused(heading) if wait else nullcontext()

    with ExitStack() as connection:
        with unless_refused("not submitted"):
            request = build(
                spec,
                model=model,
                target={"sparsity": sparsity, "layers": layers, "window": list(window) if window else None},
                kind=kind,
                selection={"windows": windows, "rounds": rounds, "mode": "iterative" if rounds else None},
                calibration=calibration,
                evaluate=evaluate,
                tasks=task,
                limit=limit,
                stride=stride,
                gates=gate,
                output={"repo": output, "format": output_format},
                labels=label,
                seed=seed,
            )
            if when_moved and idempotency_key:
                raise UsageError(
                    "--when-moved makes the key itself, of the model's commit; leave out --idempotency-key."
                )
            key = idempotency_key or key_of_this_run(request)
            service = connection.enter_context(Streamline(expected=when_moved or key is not None))
            service.on_silence = lambda sentence: typer.echo(sentence, err=True)
            if when_moved:
                request, key = pinned(service, request)
            job = service.submit(request, idempotency_key=key)
        if key and job["state"] in {"failed", "cancelled"}:
            with unless_refused(f"job {job['id']} does not go on"):
                job = go_on(service, job["id"])
        if wait:
            if not as_json:
                announce(service, job)
            return follow(service, job, timeout=timeout, outcome=outcome)
        print_json(job) if as_json else announce(service, job)
    return exits.PASSED


@commands.command()
def plan(
    spec: SpecArgument = None,
    model: Annotated[str | None, typer.Option(help="Repo of the hub.")] = None,
    config: Annotated[Path | None, typer.Option(help="A config.json instead of a repo: no weights needed.")] = None,
    sparsity: Annotated[float | None, typer.Option(help="Share of the parameters to remove.")] = None,
    layers: Annotated[int | None, typer.Option(help="How many decoder blocks fewer.")] = None,
    window: Annotated[tuple[int, int] | None, typer.Option(help="Exactly the layers START to END-1.")] = None,
    kind: Annotated[str | None, typer.Option(help=f"{KINDS}.", autocompletion=lambda: BLOCK_KINDS)] = None,
    windows: WindowsOption = None,
    rounds: RoundsOption = None,
    output_format: Annotated[str | None, typer.Option("--format", help="auto or native.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Say what a job would remove, why, put in and need, without making one."""
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
    print_json(answer) if as_json else show_plan(answer, request)
    return exits.PASSED


@commands.command()
def wait(
    job_id: JobArgument,
    timeout: TimeoutOption = None,
    summary: SummaryOption = None,
    junit: JunitOption = None,
    as_json: JsonOption = False,
) -> int:
    """Wait for a job: exit 0 when it passed, 1 when it failed or missed a gate, 2 when cancelled, 3 at the timeout."""
    from app.cli.waiting import Outcome, follow
    from app.client import Streamline

    outcome = Outcome(as_json, summary, junit)
    with outcome.unless_refused("not waited for"), Streamline() as service:
        return follow(service, {"id": whole_id(service, job_id)}, timeout=timeout, outcome=outcome)


@commands.command()
def status(
    job_id: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="One job (of its id the beginning will do); without it, the newest ones."),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(help=f"Only jobs in this state: {', '.join(State)}.", autocompletion=lambda: list(State)),
    ] = None,
    limit: Annotated[int, typer.Option(help="How many.", min=1, max=100)] = 20,
    as_json: JsonOption = False,
) -> int:
    """Show one job, or the newest ones."""
    from app.cli.jobs import show_job, show_jobs, workers_of
    from app.client import Streamline

    with Streamline() as service:
        if job_id:
            job = service.job(whole_id(service, job_id))
            print_json(job) if as_json else show_job(job, workers_of(service, job))
        else:
            page = service.jobs(state=state, limit=limit)
            print_json(page) if as_json else show_jobs(page["items"])
    return exits.PASSED


@commands.command()
def events(
    job_id: JobArgument,
    everything: Annotated[bool, typer.Option("--all", help="Also how far each stage came and went on.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Print what has happened to a job, a line each; with --json all of it."""
    from app.client import Streamline

    with Streamline() as service:
        for event in service.events(whole_id(service, job_id)):
            if as_json:
                typer.echo(json.dumps(event))
            elif everything or event["event"] != "progress":
                data = {key: value for key, value in event["data"].items() if key not in _NOT_FOR_PEOPLE}
                said = " ".join(f"{key}={value}" for key, value in data.items())
                typer.echo(f"{event['id']:>5}  {event['time']}  {event['event']:<16} {said}")
    return exits.PASSED


@commands.command()
def cancel(job_id: JobArgument, as_json: JsonOption = False) -> int:
    """Cancel a job; what it has finished is kept for `retry`."""
    from app.client import Streamline

    with Streamline() as service:
        job = service.cancel(whole_id(service, job_id))
    now = "cancelled" if job["state"] == "cancelled" else f"being cancelled (now {job['state']})"
    print_json(job) if as_json else typer.echo(f"{job['id']} is {now}.")
    return exits.PASSED


@commands.command()
def retry(job_id: JobArgument, as_json: JsonOption = False) -> int:
    """Let a failed or cancelled job go on from its last finished stage."""
    from app.client import Streamline

    with Streamline() as service:
        job = service.retry(whole_id(service, job_id))
    print_json(job) if as_json else typer.echo(f"{job['id']} is {job['state']} again.")
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
    job_ids: Annotated[
        list[str], typer.Argument(metavar="ID ID ...", help="Two jobs or more; of an id its beginning will do.")
    ],
    as_json: JsonOption = False,
) -> int:
    """Put several jobs into one table: what they did differently, quality, speed, size, time and verdict."""
    from app.cli.comparison import show_comparison
    from app.client import Streamline
    from app.report.comparison import MOST_JOBS
    from app.report.comparison import compare as compared

    few = UsageError(f"Name 2 to {MOST_JOBS} different jobs; `streamline status` lists them.")
    if not 2 <= len(set(job_ids)) <= MOST_JOBS:
        raise few
    with Streamline() as service:
        different = whole_ids(service, job_ids)
        if len(different) < 2:
            raise few
        comparison = compared([service.job(job_id) for job_id in different])
    print_json(comparison.to_json()) if as_json else show_comparison(comparison)
    return exits.PASSED


@commands.command()
def report(
    job_id: JobArgument,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to: NAME.html is the page, NAME.json the figures."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Fetch a finished job's report: a page with plots that needs nothing else, or JSON for programs.

    Example: streamline report ID --out report.html
    """
    from app.client import Streamline

    if as_json and out is not None and out.suffix == ".html":
        raise UsageError("--json prints the figures; leave it out to write the page.")
    if out is not None and out.suffix not in {".html", ".json"}:
        raise UsageError(f"Name the file report.html or report.json, not {out.name}.")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    with Streamline() as service:
        job_id = whole_id(service, job_id)
        page = out is not None and out.suffix == ".html"
        text = service.report_page(job_id) if page else json.dumps(service.report(job_id), indent=2)
    if out is None:
        typer.echo(text)
    else:
        out.write_text(text, encoding="utf-8")
        typer.echo(f"Written to {out}", err=True)
    return exits.PASSED


@commands.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to write it.")] = Path("streamline.toml"),
    model: Annotated[str, typer.Option(help="Repo of the hub.")] = "demo/stories-24l",
    sparsity: Annotated[float, typer.Option(help="Share of the parameters to remove.", min=0.01, max=0.99)] = 0.25,
    as_json: JsonOption = False,
) -> int:
    """Write a request with every field explained, for `submit` and `plan`.

    Example: streamline init && streamline plan streamline.toml && streamline submit streamline.toml --wait
    """
    from app.cli.specfile import commented

    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(commented(model, sparsity))
    except FileExistsError:
        raise UsageError(f"{file} is there already; name another file.") from None
    print_json({"file": str(file)}) if as_json else typer.echo(
        f"Written to {file}: edit it, then `streamline submit {file} --wait`."
    )
    return exits.PASSED
