"""`streamline verify`: is a downloaded model what was published?"""

import json
from dataclasses import asdict
from pathlib import Path

import httpx
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.cli import exits
from app.cli.exits import UsageError
from app.cli.hub_address import hub_address
from app.cli.storage import Progress
from app.provenance.manifest import Verification, verify
from app.provenance.signing import BadPublicKeyError, parse_public_key

KEY_PATH = "/v1/signing-key"
_GATES = {
    "pass": "It has passed every gate that was set.",
    "fail": "It MISSED its gates: a job made it, and did not put it on `main`.",
}


def verify_directory(directory: Path, key: str | None, *, require_passed: bool, as_json: bool) -> int:
    """Check a directory and say what is wrong; with `require_passed`, a checkpoint that missed its gates is wrong too.

    Raises:
        UsageError: no such directory, or no key there.
    """
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a directory; name the one that the model was downloaded to.")
    found = verify(directory, _public_key(key), progress=Progress())
    if as_json:
        typer.echo(json.dumps(asdict(found) | {"passed": found.passed}, indent=2))
    else:
        _show(found, directory)
    if found.passed and require_passed and found.verdict != "pass":
        why = "it missed its gates" if found.verdict == "fail" else "its manifest does not say whether it did"
        typer.echo(f"A checkpoint that has passed its gates is required: {why}.", err=True)
        return exits.FAILED_OR_GATE_MISSED
    return exits.PASSED if found.passed else exits.FAILED_OR_GATE_MISSED


def _public_key(key: str | None) -> Ed25519PublicKey:
    if key is None:
        key = f"{hub_address().url}{KEY_PATH}"
    try:
        return parse_public_key(_fetch(key) if key.startswith(("http://", "https://")) else Path(key).read_bytes())
    except BadPublicKeyError as error:
        raise UsageError(f"{key} holds {error}; save the service's GET {KEY_PATH} and name that file.") from None
    except OSError as error:
        raise UsageError(f"{key} cannot be read: {error.strerror}.") from None


def _fetch(url: str) -> bytes:
    try:
        return httpx.get(url, timeout=30, follow_redirects=True).raise_for_status().content
    except httpx.HTTPError as error:
        raise UsageError(
            f"There is no key at {url} ({type(error).__name__}); set STREAMLINE_URL to the service that made the "
            "model, or name a file that holds its key with --key."
        ) from None


def _show(found: Verification, directory: Path) -> None:
    for flaw in found.flaws:
        typer.echo(f"{flaw.file} {flaw.reason}")
    if found.passed:
        made = f", made from {found.base.get('repo')} at {found.base.get('commit')}"
        typer.echo(f"{directory} is as it was published: {found.files} files, {found.bytes:,} bytes{made}.")
        if found.verdict is not None:
            typer.echo(_GATES.get(found.verdict, f"Its gates said {found.verdict[:20]!r}."))
    else:
        count = len(found.flaws)
        typer.echo(f"{directory} is NOT as it was published ({count} {'difference' if count == 1 else 'differences'}).")
