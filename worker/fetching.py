"""Have a job's models here first: what only the upstream hub has of them is fetched, with progress."""

from collections.abc import Callable

from sqlalchemy.orm import Session, sessionmaker

from app.hub import catalog
from app.hub.upstream.downloads import Download, Downloads, Source
from app.hub.upstream.store import PullThroughStore
from app.jobs.repository import Claim

_POLL_SECONDS = 0.2

Report = Callable[[int, int], None]
"""(bytes here, bytes in all); may raise, which ends the fetching."""


def fetch_model(claim: Claim, sessions: sessionmaker[Session], store: PullThroughStore, report: Report) -> None:
    """Fetch every file of the job's model and rivals that is not here; what had come before is not fetched again.

    Raises:
        HubError: a revision is no longer there, or the upstream hub does not give a file.
        StorageError: there is no room.
    """
    spec = claim.spec
    named = [(spec["model"]["repo"], spec["model"]["revision"])]
    named += [name.split("@", 1) for name in spec["benchmark"].get("rivals") or ()]
    with sessions() as session:
        files = [file for repo, revision in named for file in catalog.revision_of(session, repo, revision).files]
    missing = {file.sha256: source for file in files if (source := store.missing(file.sha256)) is not None}
    if missing:
        _fetch(list(missing.values()), store.downloads, report)


def _fetch(sources: list[Source], downloads: Downloads, report: Report) -> None:
    total = sum(source.size for source in sources)
    before = 0
    for source in sources:
        download = downloads.start(source)
        try:
            while not _ended(download):
                report(before + downloads.received(source), total)
        except BaseException:
            download.stopped.set()
            raise
        download.done.result()
        before += source.size
    report(total, total)


def _ended(download: Download) -> bool:
    try:
        download.done.exception(timeout=_POLL_SECONDS)
    except TimeoutError:
        return False
    return True
