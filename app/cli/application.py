"""The command line: what there is, and what each failure means for the exit code."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import exits, keys
from app.cli.exits import UsageError
from app.core.architectures import BLOCK_KINDS

application = typer.Typer(
    name="streamline",
    help="Compress large language models: prune layers, train one light replacement, prove the result.\n\n"
    "Start a service on this machine with `streamline up`, then in another terminal:\n\n"
    "    streamline submit --model demo/stories-24l --sparsity 0.25 --wait",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

application.add_typer(keys.commands, name="keys")

WindowsOption = Annotated[
    int | None, typer.Option(help="Separate windows of one score table, with a replacement each.")
]
RoundsOption = Annotated[
    int | None, typer.Option(help="Iterative: rounds that each remove, replace and score anew what is left.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on standard output.")]
JobArgument = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as `submit` printed it.")]
TimeoutOption = Annotated[
    float | None, typer.Option(help="Stop waiting after this many seconds (exit 3; the job goes on).")
]
KINDS = ", ".join(BLOCK_KINDS)
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Data directory [STREAMLINE_DATA_DIR; streamline-data].")
]


def run(arguments: list[str]) -> int:
    """Run the command; the exit code."""
    try:
        outcome = application(arguments or ["--help"], standalone_mode=False)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        return exits.INTERRUPTED
    except typer.TyperException as error:
        return _say(_sentence(error), exits.BAD_USAGE)
    except (UsageError, OSError) as error:
        return _say(str(error), exits.BAD_USAGE)
    except Exception as error:
        return _known_failure(error)
    return outcome if isinstance(outcome, int) else exits.PASSED


def _sentence(error: typer.TyperException) -> str:
    """What typer would print, on one line; the help of a group without a command stays as it is."""
    said = error.format_message()
    return said if said.startswith("Usage:") else " ".join(said.split())


def _known_failure(error: Exception) -> int:
    from sqlalchemy.exc import OperationalError

    from app.client import ProblemError, UnreachableError
    from app.settings import SettingsError
    from app.storage.blobs import StorageError

    match error:
        case ProblemError(status=401 | 403):
            return _say(str(error), exits.NOT_ALLOWED)
        case ProblemError() | UnreachableError() | SettingsError() | StorageError():
            return _say(str(error), exits.BAD_USAGE)
        case OperationalError():
            return _say("The database does not answer; look at STREAMLINE_DATABASE_URL.", exits.BAD_USAGE)
    raise error


def _say(sentence: str, code: int) -> int:
    typer.echo(f"streamline: {sentence}", err=True)
    return code


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))


# --- running a service ---------------------------------------------------------------------------------------------


@application.command()
def up(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    data: DataOption = None,
    workers: Annotated[int, typer.Option(help="Worker processes.", min=1, max=64)] = 1,
) -> int:
    """Start everything on this machine: API, worker and reconciler, with SQLite and no other services.

    Ctrl-C stops all of it; the next start on the same data directory goes on where this one stopped.
    """
    from app.cli.embedded import run_embedded

    return run_embedded(host=host, port=port, data_dir=data, workers=workers)


@application.command()
def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
    leashed: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Start the API alone (the database must be migrated: `streamline migrate`)."""
    from app.cli.serve import run_api

    run_api(host=host, port=port, leashed=leashed)


@application.command()
def worker() -> None:
    """Start one worker; start as many as there are GPUs."""
    import os

    os.execv(sys.executable, [sys.executable, "-m", "worker"])  # noqa: S606 - becomes the worker, no shell


@application.command()
def migrate(as_json: JsonOption = False) -> None:
    """Bring the database to this version's schema."""
    from app.db.migrate import migrate as run_migrations
    from app.settings import load_settings

    settings = load_settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    run_migrations(settings.database)
    typer.echo(json.dumps({"up_to_date": True}) if as_json else "The database is up to date.")


# --- jobs ----------------------------------------------------------------------------------------------------------


@application.command()
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
        _print_json(job) if as_json else announce(service, job)
    return exits.PASSED


@application.command()
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
    _print_json(answer) if as_json else show_plan(answer)
    return exits.PASSED


@application.command()
def wait(job_id: JobArgument, timeout: TimeoutOption = None, as_json: JsonOption = False) -> int:
    """Wait for a job: exit 0 when it passed, 1 when it failed or missed a gate, 2 when cancelled, 3 at the timeout."""
    from app.cli.jobs import follow
    from app.client import Streamline

    with Streamline() as service:
        return follow(service, job_id, timeout=timeout, as_json=as_json)


@application.command()
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
            _print_json(job) if as_json else show_job(job)
        else:
            page = service.jobs(state=state, limit=limit)
            _print_json(page) if as_json else show_jobs(page["items"])
    return exits.PASSED


@application.command()
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


@application.command()
def cancel(job_id: JobArgument, as_json: JsonOption = False) -> int:
    """Cancel a job; what it has finished is kept for `retry`."""
    from app.client import Streamline

    with Streamline() as service:
        job = service.cancel(job_id)
    _print_json(job) if as_json else typer.echo(f"{job_id} is being cancelled (now {job['state']}).")
    return exits.PASSED


@application.command()
def retry(job_id: JobArgument, as_json: JsonOption = False) -> int:
    """Let a failed or cancelled job go on from its last finished stage."""
    from app.client import Streamline

    with Streamline() as service:
        job = service.retry(job_id)
    _print_json(job) if as_json else typer.echo(f"{job_id} is {job['state']} again.")
    return exits.PASSED


@application.command()
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
    _print_json(found) if as_json else show(found)
    return exits.PASSED


@application.command()
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
    _print_json(comparison.to_json()) if as_json else show_comparison(comparison)
    return exits.PASSED


# --- the store -----------------------------------------------------------------------------------------------------


@application.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> int:
    """Remove the bytes that no commit, data set or running job needs (the API does it by itself now and then)."""
    from app.cli.storage import collect_garbage

    return collect_garbage(data, dry_run=dry_run, as_json=as_json)


@application.command()
def fsck(
    repair: Annotated[
        bool, typer.Option("--repair", help="Move damaged bytes aside, so that importing again mends them.")
    ] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> int:
    """Read and rehash everything in the store: exit 0 when all that is named is there and whole, 1 when not."""
    from app.cli.storage import check_integrity

    return check_integrity(data, repair=repair, as_json=as_json)


# --- models and data -----------------------------------------------------------------------------------------------


@application.command()
def download(
    repo: Annotated[str, typer.Argument(help="team/name or team/name@revision.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to put the files.")],
    as_json: JsonOption = False,
) -> int:
    """Download a checkpoint from the hub (the same as `hf download` with HF_ENDPOINT set)."""
    from app.cli.download import download_repo
    from app.client import Streamline

    with Streamline() as service:
        files = download_repo(service, repo, directory)
    _print_json({"directory": str(directory), "files": files}) if as_json else typer.echo(
        f"{len(files)} files in {directory}"
    )
    return exits.PASSED


@application.command()
def verify(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A downloaded model.")],
    key: Annotated[
        str | None,
        typer.Option(metavar="FILE|URL", help="The service's public key [STREAMLINE_URL/v1/signing-key]."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Check a downloaded model against its signed manifest; with `--key FILE` no network is needed. Exit 0 or 1."""
    from app.cli.verify import verify_directory

    return verify_directory(directory, key, as_json=as_json)


@application.command("import")
def import_(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A Hugging Face model directory (safetensors).")],
    repo: Annotated[str, typer.Argument(help="team/name in the hub.")],
    as_json: JsonOption = False,
) -> int:
    """Import a model from this machine into the hub (below the directories that STREAMLINE_MODEL_ROOTS names)."""
    from app.client import Streamline

    with Streamline() as service:
        answer = service.import_model(directory.resolve(), repo)
    _print_json(answer) if as_json else typer.echo(f"Imported as {answer['repo']} at {answer['revision']}")
    return exits.PASSED


@application.command()
def upload(
    file: Annotated[Path, typer.Argument(help="Calibration or evaluation text: JSONL, or plain text.")],
    name: Annotated[str | None, typer.Option(help="Name to show; default: the file's.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Upload a data set; its id can be named in `--calibration` and `--evaluate`."""
    from app.client import Streamline

    with Streamline() as service:
        dataset = service.upload_dataset(file, name=name)
    _print_json(dataset) if as_json else typer.echo(f"{dataset['id']}  {dataset['name']}  {dataset['rows']} rows")
    return exits.PASSED
