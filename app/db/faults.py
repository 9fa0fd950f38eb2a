"""What a database said when it refused: silence, that it lacks a name, or that a newer release has made it."""

from collections.abc import Collection
from typing import Final

from sqlalchemy.exc import DBAPIError

from app.core.redaction import without_keys

_LACKS: Final = frozenset({"42P01", "42703"})
"""Of Postgres (appendix A of its manual): undefined_table and undefined_column."""
_SQLITE_LACKS: Final = ("no such table", "no such column", "has no column named")


class MadeByNewerReleaseError(Exception):
    """The database has had a migration that this release does not know, as after going back to an older one."""

    def __init__(self, found: str, newest: Collection[str]) -> None:
        """`found` is the revision of the database, `newest` what this release would bring it to."""
        super().__init__(
            f"The database was made by a newer release ({found}); this one knows up to {', '.join(sorted(newest))}. "
            "Start that release, or restore the backup from before it."
        )


def no_answer(error: DBAPIError) -> str:
    """A sentence with the server's or the driver's last line (and no question), without a password."""
    lines = [line for line in map(str.strip, str(error.orig).splitlines()) if line and not line.endswith("?")]
    said = f" ({without_keys(lines[-1]).rstrip('.')})" if lines else ""
    return f"The database does not answer{said}; look at STREAMLINE_DATABASE_URL."


def lacks_what_is_named(error: Exception) -> bool:
    """Tell whether a statement named a table or a column that the database does not have.

    The migrations that have not run yet are one reason; a mistake in the statement is the other.
    """
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    return state in _LACKS if state else any(words in str(error.orig) for words in _SQLITE_LACKS)
