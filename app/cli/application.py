"""The command line: what there is, and what each failure means for the exit code."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from app.cli import exits, job_commands, keys
from app.cli.exits import UsageError
from app.cli.options import DataOption, JsonOption, print_json

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

application.add_typer(job_commands.commands)
application.add_typer(keys.commands, name="keys")


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
    print_json(found) if as_json else show(found)
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
    print_json({"directory": str(directory), "files": files}) if as_json else typer.echo(
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
    print_json(answer) if as_json else typer.echo(f"Imported as {answer['repo']} at {answer['revision']}")
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
    print_json(dataset) if as_json else typer.echo(f"{dataset['id']}  {dataset['name']}  {dataset['rows']} rows")
    return exits.PASSED
