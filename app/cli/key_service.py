"""A service's keys over HTTP, with a key of scope `admin`."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from app.auth.keys import Limits
from app.auth.scopes import Scope
from app.cli.key_administration import ListedKey, MadeKey
from app.client import ProblemError, Streamline


class KeysOverHttp:
    """What `/v1/keys` offers."""

    def __init__(self, service: Streamline) -> None:
        self._service = service

    def create(self, name: str, scope: Scope, days: float | None, limits: Limits) -> MadeKey:
        """Make a key.

        Raises:
            ProblemError: the service refuses.
        """
        made = self._service.create_key(name, scope=scope.value, days=days, **asdict(limits))
        told = f"It is a key of the service at {self._service.url}."
        return MadeKey(made["id"], made["name"], made["scope"], made["key"], told)

    def listing(self) -> Sequence[ListedKey]:
        """Return all keys, the oldest first.

        Raises:
            ProblemError: the service refuses.
        """
        return [_listed(key) for key in reversed(self._service.api_keys())]

    def revoke(self, key_id: str) -> bool:
        """Revoke a key; False where there is none of this id.

        Raises:
            ProblemError: the service refuses.
        """
        try:
            self._service.revoke_key(key_id)
        except ProblemError as error:
            if error.code == "key_not_found":
                return False
            raise
        return True


def _listed(key: dict[str, Any]) -> ListedKey:
    ends = datetime.fromisoformat(key["expires_at"]) if key["expires_at"] else None
    limits = Limits(**{field.name: key[field.name] for field in fields(Limits)})
    return ListedKey(key["id"], key["name"], key["scope"], key["state"], ends, limits)
