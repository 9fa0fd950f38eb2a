"""A service's keys in its database, on its own machine and with its settings."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.orm import Session

from app.auth import audit, keys
from app.auth.keys import Limits
from app.auth.scopes import Scope
from app.cli.exits import UsageError
from app.cli.key_administration import ListedKey, MadeKey, how_over_http
from app.db.migrate import migrate
from app.db.session import connect, session_factory
from app.environment import make_data_dir
from app.settings import Settings, load_settings


class KeysInDatabase:
    """What one transaction on the database does; each change is in the audit log with it."""

    def __init__(self, session: Session, told: str) -> None:
        """`told` is said of each key that is made."""
        self._session, self._told = session, told

    def create(self, name: str, scope: Scope, days: float | None, limits: Limits) -> MadeKey:
        """Make a key."""
        muted = "" if keys.exist(self._session) else _muted_by_the_first(self._session)
        row, key = keys.create(self._session, name, scope, valid_days=days, limits=limits)
        self._record("keys create", row.id)
        return MadeKey(row.id, row.name, row.scope, key, "\n".join(filter(None, (self._told, muted))))

    def listing(self) -> Sequence[ListedKey]:
        """Return all keys, the oldest first."""
        return [
            ListedKey(row.id, row.name, row.scope, state.value, row.expires_at, keys.limits_of(row))
            for row, state in keys.listing(self._session)
        ]

    def revoke(self, key_id: str) -> bool:
        """Revoke a key; False where there is none of this id."""
        if not keys.revoke(self._session, key_id):
            return False
        self._record("keys revoke", key_id)
        return True

    def _record(self, action: str, target: str) -> None:
        audit.record(self._session, key_id="", key_name=audit.LOCAL_COMMAND, action=action, target=target)


@contextmanager
def database_keys(data: Path | None, *, may_be_new: bool = False) -> Iterator[KeysInDatabase]:
    """The keys in the database of the service that keeps its data in `data`, or where the settings say.

    Raises:
        UsageError: as `service_database`.
    """
    settings = load_settings(data_dir=data)
    # A key for another directory than the service's would protect nothing.
    new = ", which no service has run with yet" if _is_new(settings) else ""
    where = f"It is a key of the service that keeps its data in {settings.data_dir.absolute()}{new}."
    with service_database(data, may_be_new=may_be_new) as session:
        yield KeysInDatabase(session, where if settings.database_url is None else "")


@contextmanager
def service_database(data: Path | None, *, may_be_new: bool = False) -> Iterator[Session]:
    """A transaction on the service's database.

    `may_be_new` lets a key be made before the service's first start, in a directory that somebody has named.

    Raises:
        UsageError: no service keeps its data there; going on would found a second one beside that which was meant.
    """
    settings = load_settings(data_dir=data)
    if _is_new(settings) and not (may_be_new and "data_dir" in settings.model_fields_set):
        raise UsageError(
            f"No service has run with the directory {settings.data_dir.absolute()}; name the service's own with --data "
            f"or STREAMLINE_DATA_DIR, or {how_over_http()}."
        )
    make_data_dir(settings)
    migrate(settings.database)
    engine = connect(settings.database)
    try:
        with session_factory(engine).begin() as session:
            yield session
    finally:
        engine.dispose()


def _muted_by_the_first(session: Session) -> str:
    """A sentence about the webhooks that are nobody's once there is a key; empty where there is none."""
    from app.webhooks import repository  # nothing else that is done with keys needs it

    count = repository.count_keyless(session)
    if not count:
        return ""
    which = "1 webhook that was" if count == 1 else f"{count} webhooks that were"
    return (
        f"{which} registered without a key {'is' if count == 1 else 'are'} told nothing any more; register "
        f"{'it' if count == 1 else 'them'} again with a key, by `streamline webhooks add`."
    )


def _is_new(settings: Settings) -> bool:
    return settings.database_url is None and not (settings.data_dir / "streamline.db").exists()
