"""The upstream hub that the settings name."""

from dataclasses import dataclass

from sqlalchemy.orm import Session, sessionmaker

from app.hub.upstream import ring, rows
from app.hub.upstream.downloads import Downloads, Source
from app.hub.upstream.mirror import Mirror
from app.hub.upstream.remote import RemoteHub
from app.hub.upstream.store import PullThroughStore
from app.settings import Settings
from app.storage.blobs import BlobStore


@dataclass(frozen=True)
class Upstream:
    """What a service with an upstream hub has more than others."""

    mirror: Mirror
    store: PullThroughStore
    """To be used in place of the one below it."""


def open_upstream(
    settings: Settings, sessions: sessionmaker[Session], read_sessions: sessionmaker[Session], store: BlobStore
) -> Upstream | None:
    """The upstream hub, not asked for anything yet; None where the settings name none."""
    if not settings.upstream:
        return None
    token = settings.upstream_token
    asker = ring.own_name(settings.upstream_dir)
    hub = RemoteHub(settings.upstream, token.get_secret_value() if token else None, asker=asker)

    def source_of(sha256: str) -> Source | None:
        with read_sessions() as session:
            return rows.source_of(session, hub.url, sha256)

    mirror = Mirror(
        hub,
        sessions,
        read_sessions,
        store,
        settings.upstream_dir,
        max_bytes=settings.upstream_max_bytes,
        fresh_seconds=settings.upstream_fresh_seconds,
    )
    return Upstream(mirror, PullThroughStore(store, hub, Downloads(hub, store, settings.upstream_dir), source_of))
