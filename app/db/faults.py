"""What a database said when it refused: silence, or that it lacks a name."""

from typing import Final

from sqlalchemy.exc import DBAPIError

from app.core.redaction import without_keys

_LACKS: Final = frozenset({"42P01", "42703"})
"""Of Postgres (appendix A of its manual): undefined_table and undefined_column."""
_SQLITE_LACKS: Final = ("no such table", "no such column", "has no column named")


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
