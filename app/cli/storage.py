"""`streamline gc` and `streamline fsck`: run where the service runs, with its settings, also while it runs."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from app.cli import exits

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from app.settings import Settings
    from app.storage.integrity import Findings

_PROGRESS_SECONDS = 2.0
_PLACES_SHOWN = 3


@contextlib.contextmanager
def _service(data: Path | None) -> "Iterator[tuple[Settings, sessionmaker[Session]]]":
    from app.db.migrate import migrate
    from app.db.session import connect, session_factory
    from app.environment import make_data_dir
    from app.settings import load_settings

    settings = load_settings(data_dir=data)
    make_data_dir(settings)
    migrate(settings.database)
    engine = connect(settings.database)
    try:
        yield settings, session_factory(engine)
    finally:
        engine.dispose()


def collect_garbage(data: Path | None, *, dry_run: bool, as_json: bool) -> int:
    """Collect once and say what went."""
    from app.storage.collection import collect
    from app.storage.opening import open_stores

    with _service(data) as (settings, sessions):
        blobs, _ = open_stores(settings, sessions)
        done = collect(sessions, blobs, grace_seconds=settings.gc_grace_seconds, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps(asdict(done) | {"dry_run": dry_run}))
    else:
        would = "Would remove" if dry_run else "Removed"
        typer.echo(f"{would} {done.blobs} blobs ({done.bytes:,} bytes) that nothing needs.")
        if done.abandoned:
            typer.echo(f"Removed {done.abandoned} half-written files of writers that died.")
    return exits.PASSED


def check_integrity(data: Path | None, *, repair: bool, as_json: bool) -> int:
    """Rehash everything and say what is wrong."""
    from app.storage import register
    from app.storage.integrity import check
    from app.storage.opening import open_stores

    with _service(data) as (settings, sessions):
        blobs, artefacts = open_stores(settings, sessions)

        def named() -> dict[str, int]:
            with sessions() as session:
                return dict(register.named(session))

        findings = check(blobs, artefacts, named, repair=repair, progress=Progress())
        if repair:  # whoever uploads these again is asked to send them, not told that they are here
            with sessions.begin() as session:
                register.mark_absent(session, [*findings.damaged, *findings.missing])
        with sessions() as session:
            of_blobs = register.places(session, [name for name in _bad(findings) if "/" not in name])
    named_by = {name: of_blobs.get(name, []) if "/" not in name else [_of_job(name)] for name in _bad(findings)}
    if as_json:
        typer.echo(json.dumps(asdict(findings) | {"named_by": named_by, "clean": findings.clean}, indent=2))
    else:
        _show(findings, named_by)
    return exits.PASSED if findings.clean else exits.FAILED_OR_GATE_MISSED


def _bad(findings: "Findings") -> list[str]:
    return [*findings.missing, *findings.corrupt]


def _of_job(artefact: str) -> str:
    job_id, _, file = artefact.partition("/")
    return f"job {job_id}: {file}"


def _show(findings: "Findings", named_by: Mapping[str, Sequence[str]]) -> None:
    for kind, names in (("missing", findings.missing), ("corrupt", findings.corrupt)):
        for name in names:
            places = named_by[name]
            more = f" and {len(places) - _PLACES_SHOWN} more" if len(places) > _PLACES_SHOWN else ""
            typer.echo(f"{kind:<8} {name}  {', '.join(places[:_PLACES_SHOWN]) or 'nothing names it'}{more}")
    for where in findings.set_aside:
        typer.echo(f"moved to {where}")
    typer.echo(
        f"{findings.blobs} blobs and {findings.artefacts} artefacts, {findings.bytes:,} bytes read: "
        f"{len(findings.missing)} missing, {len(findings.corrupt)} corrupt, {len(findings.unreferenced)} unreferenced."
    )
    if not findings.clean:
        typer.echo("Import or publish the models again that held them; `fsck --repair` makes room for damaged ones.")


class Progress:
    """A line on standard error every two seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _PROGRESS_SECONDS

    def __call__(self, done: int, read: int) -> None:
        """Say how many files and bytes have been read, if it is time."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _PROGRESS_SECONDS
            print(f"{done} files, {read / 1e9:.1f} GB read ...", file=sys.stderr, flush=True)  # noqa: T201
