"""Where `streamline keys` looks after keys: in the database of the service on this machine, or over HTTP of another."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from app.auth.scopes import Scope

if TYPE_CHECKING:
    from app.auth.keys import Limits

_OF_THE_SERVICE: Final = ("STREAMLINE_DATA_DIR", "STREAMLINE_DATABASE_URL")
_OF_CLIENTS: Final = ("STREAMLINE_URL", "STREAMLINE_API_KEY")


@dataclass(frozen=True)
class ListedKey:
    """A key as lists show it."""

    id: str
    name: str
    scope: str
    state: str
    expires_at: datetime | None
    limits: "Limits"


@dataclass(frozen=True)
class MadeKey:
    """A key that has just been made."""

    id: str
    name: str
    scope: str
    key: str
    told: str
    """Sentences, a line each: which service it is good for, where there may be several, and what it has changed."""


class KeyAdministration(Protocol):
    """What can be done with a service's keys."""

    def create(self, name: str, scope: Scope, days: float | None, limits: "Limits") -> MadeKey:
        """Make a key that is valid for so many days, or (None) until it is revoked."""

    def listing(self) -> Sequence[ListedKey]:
        """Return all keys, the oldest first."""

    def revoke(self, key_id: str) -> bool:
        """Make a key worthless from now on; False where there is none of this id."""


def is_over_http(data: Path | None) -> bool:
    """Tell whether a service elsewhere is meant: STREAMLINE_URL and STREAMLINE_API_KEY say which and with what right.

    A data directory or a database that is named, by --data or in the environment, is this machine's own service, and so
    is one that has run in this directory: who runs one may have both. Without a key there is nothing to ask for over
    HTTP, as the first key is made by the service's own machine.
    """
    here = data is not None or any(os.environ.get(name) for name in _OF_THE_SERVICE) or has_run_here()
    return not here and not _missing()


def how_over_http() -> str:
    """What has to be set for a service to be asked over HTTP; where one of two is, the other one."""
    missing = _missing()
    if len(missing) == len(_OF_CLIENTS):
        return f"set {' and '.join(_OF_CLIENTS)} to ask one over HTTP"
    there = " and ".join(name for name in _OF_CLIENTS if name not in missing)
    return f"set {' and '.join(missing)}, which is missing beside {there}, to ask one over HTTP"


def _missing() -> list[str]:
    return [name for name in _OF_CLIENTS if not os.environ.get(name, "").strip()]


def has_run_here() -> bool:
    """Tell whether a service has kept its data in the directory that it has without any setting."""
    from app.settings import Settings

    return (Path(Settings.model_fields["data_dir"].default) / "streamline.db").exists()


@contextmanager
def administration(data: Path | None, *, may_be_new: bool = False) -> "Iterator[KeyAdministration]":
    """The keys of the service that is meant; with `may_be_new` of one that has not been started yet, too.

    Raises:
        UsageError: no service keeps its data where this one should.
    """
    if is_over_http(data):
        from app.cli.key_service import KeysOverHttp
        from app.client import Streamline

        with Streamline() as service:
            yield KeysOverHttp(service)
    else:
        from app.cli.key_database import database_keys

        with database_keys(data, may_be_new=may_be_new) as found:
            yield found
