"""What a database said when it refused, for the operator: a missing name reads otherwise than silence."""

from sqlalchemy.exc import DBAPIError

from app.core.redaction import without_keys


def no_answer(error: DBAPIError) -> str:
    """A sentence with the server's or the driver's last line (and no question), without a password."""
    lines = [line for line in map(str.strip, str(error.orig).splitlines()) if line and not line.endswith("?")]
    said = f" ({without_keys(lines[-1]).rstrip('.')})" if lines else ""
    return f"The database does not answer{said}; look at STREAMLINE_DATABASE_URL."
