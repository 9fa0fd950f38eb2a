"""Why an endpoint may not be told of a job, in words for whoever looks after it."""

from collections.abc import Mapping
from typing import Final

from sqlalchemy.orm import Session

from app.webhooks import repository
from app.webhooks.repository import Muted

_SENTENCES: Final[Mapping[Muted | None, str]] = {
    Muted.KEYLESS: "It was registered before there were keys, and is told nothing now that there are some; register "
    "it again with a key.",
    Muted.KEY_ENDED: "Its API key is no longer valid: it was revoked or has expired; register it again with another.",
    None: "Its API key may not know of the job any more.",
}


def why_untold(session: Session, owner: str, job_id: str) -> str | None:
    """Return the reason why an endpoint of this owner may not be told of the job now; None: it may."""
    if repository.job_heard_of(session, owner, job_id) is not None:
        return None
    return _SENTENCES[repository.muted(session, {owner}).get(owner)]
