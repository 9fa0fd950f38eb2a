"""Commands that bring models and data in and out."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli import exits
from app.cli.options import JsonOption, print_json

commands = typer.Typer()


@commands.command()
def download(
    repo: Annotated[str, typer.Argument(help="team/name or team/name@revision.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to put the files.")],
    as_json: JsonOption = False,
) -> int:
    """Download a checkpoint from the hub at STREAMLINE_URL, or without it at HF_ENDPOINT (then with HF_TOKEN)."""
    from app.cli.download import download_repo
    from app.cli.hub_address import hub_address

    files = download_repo(hub_address(), repo, directory)
    print_json({"directory": str(directory), "files": files}) if as_json else typer.echo(
        f"{len(files)} files in {directory}"
    )
    return exits.PASSED


@commands.command()
def verify(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A downloaded model.")],
    key: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|URL",
            help="Public key of the service that made the model [/v1/signing-key at STREAMLINE_URL or HF_ENDPOINT].",
        ),
    ] = None,
    require_passed: Annotated[
        bool, typer.Option("--require-passed", help="Exit 1 as well if the checkpoint has not passed its gates.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Check a downloaded model against its signed manifest; with `--key FILE` no network is needed. Exit 0 or 1."""
    from app.cli.verify import verify_directory

    return verify_directory(directory, key, require_passed=require_passed, as_json=as_json)


@commands.command("import")
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


@commands.command()
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
