"""Uploads over links count for the key that asked for the link: the link itself carries none."""

from app.api.quotas import bytes_exceeded
from app.auth import keys
from app.auth.quotas import Usage, charge
from app.hub.context import HubContext
from app.hub.errors import LinkExpired


def charge_upload(context: HubContext, key_id: str, size: int) -> None:
    """Count `size` bytes for the key; empty: the service had none when the link was made.

    Raises:
        LinkExpired: the key was revoked meanwhile, or has expired.
        QuotaExceeded: it has used up its bytes of this day.
    """
    if not key_id:
        return
    with context.read_sessions() as session:
        found = keys.get(session, key_id)
        if found is None or found[1] is not keys.KeyState.VALID:
            raise LinkExpired
        limit = found[0].max_bytes_per_day
    if limit is None:
        return
    with context.sessions.begin() as session:
        seconds = charge(session, key_id, Usage.BYTES, size, limit)
    if seconds is not None:
        raise bytes_exceeded(limit, seconds, size)
