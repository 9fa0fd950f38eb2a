"""Have a job's models here first: what only the upstream hub has of them is fetched, with progress."""

import time
from collections.abc import Callable

from sqlalchemy.orm import Session, sessionmaker

from app.hub import catalog
from app.hub.errors import UpstreamUnavailable
from app.hub.upstream.downloads import Download, Downloads, Source
from app.hub.upstream.store import PullThroughStore
from app.jobs.repository import Claim

_POLL_SECONDS = 0.2
_PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Before each further try at an upstream hub that does not answer."""

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

        def received(source: Source = source, before: int = before) -> None:
            report(before + downloads.received(source), total)

        for pause in (*_PAUSES_SECONDS, None):
            try:
                _fetch_one(downloads.start(source), received)
                break
            except UpstreamUnavailable:  # jobs have more time than clients: a proxy may be starting again
                if pause is None:
                    raise
                _wait(pause, received)
        before += source.size
    report(total, total)


def _fetch_one(download: Download, received: Callable[[], None]) -> None:
    try:
        while True:
            try:
                return download.done.result(timeout=_POLL_SECONDS)
            except TimeoutError:
                received()
    except BaseException:
        download.stopped.set()
        raise


def _wait(seconds: float, received: Callable[[], None]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        received()
        time.sleep(_POLL_SECONDS)
