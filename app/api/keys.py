"""API keys: listed, made and revoked by keys of scope `admin`."""

from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Response

from app.api.deps import Admin, Caller, Parts
from app.api.jobs import AUTH_ERRORS, BODY_ERRORS, PAGE_ERRORS
from app.api.problems import documented
from app.auth import administration
from app.auth.administration import Administrator
from app.auth.keys import KeyState
from app.auth.views import ApiKey, ApiKeyPage, CreatedApiKey, KeyStateName, NewApiKey
from app.errors import resources

router = APIRouter(prefix="/v1/keys", tags=["keys"])


@router.post("", status_code=201, responses=documented(resources.NoFirstKey, *BODY_ERRORS, *AUTH_ERRORS))
def create_key(body: NewApiKey, response: Response, parts: Parts, caller: Admin) -> CreatedApiKey:
    """Make a key. The answer holds it, this once: the service keeps its hash alone.

    The first key of a service is made where it runs (`streamline keys create NAME --scope admin`).
    """
    with parts.sessions.begin() as session:
        row, key = administration.make(session, body, _administrator(caller))
    response.headers["Location"] = f"/v1/keys/{row.id}"
    response.headers["Cache-Control"] = "no-store"
    return CreatedApiKey.with_key(row, key)


@router.get("", responses=documented(*PAGE_ERRORS, *AUTH_ERRORS))
def list_keys(
    parts: Parts,
    _caller: Admin,
    state: Annotated[KeyStateName | None, Query(description="Only keys in this state.")] = None,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.", max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Entries per page.")] = 20,
) -> ApiKeyPage:
    """List the keys, newest first, revoked and expired ones too."""
    wanted = None if state is None else KeyState(state)
    with parts.read_sessions() as session:
        page = administration.page(session, state=wanted, cursor=cursor, limit=limit)
    return ApiKeyPage(items=[ApiKey.of(row, found) for row, found in page.rows], next_cursor=page.next_cursor)


@router.get("/{key_id}", responses=documented(resources.KeyNotFound, *AUTH_ERRORS))
def get_key(key_id: str, parts: Parts, _caller: Admin) -> ApiKey:
    """One key."""
    with parts.read_sessions() as session:
        return ApiKey.of(*administration.find(session, key_id))


@router.post("/{key_id}/revoke", responses=documented(resources.KeyNotFound, resources.OwnKey, *AUTH_ERRORS))
def revoke_key(key_id: str, parts: Parts, caller: Admin) -> ApiKey:
    """Make a key worthless from now on. Its logins end, and its webhooks are told nothing more; its jobs go on."""
    with parts.sessions.begin() as session:
        return ApiKey.of(*administration.revoke(session, key_id, _administrator(caller)))


def _administrator(caller: Caller) -> Administrator:
    request_id = str(structlog.contextvars.get_contextvars().get("request_id", ""))
    return Administrator(caller.owner, caller.name, request_id)
