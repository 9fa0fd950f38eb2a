"""Repositories as such: made, moved, deleted, configured; their branches and tags; who may read them."""

import re
from typing import Annotated, Any, Literal

from fastapi import Body, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.orm import Session

from app.api.hub.routing import CallerOf, Context, RepoName, RepoRoutes, base_url, hub_router
from app.db.models import RepoRow
from app.hub import directory, repository, wire
from app.hub.access import Caller, administered, writable
from app.hub.card import model_tags, read_card, recipe_tags
from app.hub.context import HubContext
from app.hub.errors import (
    AlreadyExists,
    BadRequest,
    InvalidCredentials,
    JobsTag,
    NotAllowed,
    ReadOnlyCopy,
    RevisionNotFound,
)
from app.hub.names import check_ref_name, check_repo_name
from app.hub.publishing import JOB_TAG, begin_repo, check_unprotected, move_branch
from app.hub.raw_path import decode_segment
from app.hub.revisions import DEFAULT_BRANCH, resolve
from app.jobs import repository as jobs

Visibility = Literal["public", "private"]

routes = RepoRoutes()
router = hub_router()


class NamedRepo(BaseModel):
    """A repository as clients name it in a body: `organization` and `name`."""

    name: str
    organization: str | None = None
    type: str | None = None

    def full_name(self) -> str:
        """`namespace/name` or `name`.

        Raises:
            BadRequest: it is no model.
        """
        _check_type(self.type)
        return f"{self.organization}/{self.name}" if self.organization else self.name


class NewRepo(NamedRepo):
    """What POST /api/repos/create asks for; old clients send `private`, new ones `visibility`."""

    private: bool | None = None
    visibility: Visibility | None = None


class RepoMove(BaseModel):
    """What POST /api/repos/move asks for."""

    fromRepo: str  # noqa: N815 - the Hub's names
    toRepo: str  # noqa: N815
    type: str | None = None


class RepoSettings(BaseModel):
    """What PUT settings changes."""

    private: bool | None = None
    visibility: Visibility | None = None
    gated: Literal["auto", "manual", False] | None = None


def _check_type(kind: str | None) -> None:
    if kind not in {None, "model"}:
        raise BadRequest(f"This hub holds models, and nothing of the type {kind[:50] if kind else kind!r}.")


def _is_private(private: bool | None, visibility: Visibility | None) -> bool | None:
    return private if visibility is None else visibility == "private"


@router.post("/api/repos/create")
def create_repo(asked: NewRepo, request: Request, context: Context, who: CallerOf) -> Response:
    """Make a repository, with a first, empty commit on `main`."""
    name = check_repo_name(asked.full_name())
    if not who.may_read:
        raise InvalidCredentials
    who.check_may_submit()
    url = f"{base_url(request, context)}/{name}"
    with context.sessions.begin() as session:
        private = _is_private(asked.private, asked.visibility) or False
        repo = directory.create_repo(session, name, directory.NewRepo(private=private, owner=who.key))
        if repo is None:
            raise AlreadyExists(f"The repository {name}", url=url)
        begin_repo(session, repo, author=who.name if who.key else "")
    return JSONResponse({"url": url, "name": name, "id": wire.object_id(name)})


@router.delete("/api/repos/delete")
def delete_repo(asked: NamedRepo, context: Context, who: CallerOf) -> Response:
    """Delete a repository with everything in it."""
    with context.sessions.begin() as session:
        directory.delete_repo(session, administered(session, who, asked.full_name()))
    return Response(status_code=200)


@router.post("/api/repos/move")
def move_repo(asked: RepoMove, request: Request, context: Context, who: CallerOf) -> Response:
    """Give a repository another name; nothing stays behind at the old one."""
    _check_type(asked.type)
    with context.sessions.begin() as session:
        repo = administered(session, who, asked.fromRepo)
        if repo.upstream is not None:  # under another name it could not be fetched further
            raise ReadOnlyCopy(repo.name, repo.upstream)
        target = check_repo_name(asked.toRepo)
        url = f"{base_url(request, context)}/{target}"
        if target != repo.name and not directory.rename_repo(session, repo, target):
            raise AlreadyExists(f"The repository {target}", url=url)
    return JSONResponse({"url": url})


@routes.route("/api/models/{repo}/settings", "PUT")
def change_settings(asked: RepoSettings, context: Context, who: CallerOf, name: RepoName) -> Response:
    """Say who sees the repository, and whether its files have to be granted."""
    changes: dict[str, Any] = {}
    private = _is_private(asked.private, asked.visibility)
    if private is not None:
        changes["private"] = private
    if asked.gated is not None:
        changes["gated"] = asked.gated or None
    with context.sessions.begin() as session:
        repo = administered(session, who, name)
        if changes:
            directory.configure(session, repo, changes)
    return JSONResponse(changes)


@routes.route("/api/models/{repo}/branch/{rev}", "POST")
def create_branch(
    context: Context,
    who: CallerOf,
    name: RepoName,
    rev: str,
    startingPoint: Annotated[str | None, Body()] = None,  # noqa: N803 - the Hub's name
    overwrite: Annotated[bool, Body()] = False,
) -> Response:
    """Make a branch at a revision (default: `main`); with `overwrite`, one that is there goes to that revision."""
    branch = check_ref_name(decode_segment(rev))
    if overwrite:
        return _move_branch(context, who, name, branch, startingPoint or DEFAULT_BRANCH)
    with context.sessions.begin() as session:
        repo = writable(session, who, name)
        commit = resolve(session, repo, startingPoint or DEFAULT_BRANCH)
        if branch == DEFAULT_BRANCH:
            check_unprotected(session, repo)
        _check_not_a_jobs(session, repo, branch)
        if not repository.create_ref(session, repo, "branch", branch, commit):
            raise AlreadyExists(f"The branch {branch!r} of {repo.name}")
    return Response(status_code=201)


def _move_branch(context: HubContext, who: Caller, name: str, branch: str, revision: str) -> Response:
    with context.read_sessions() as session:
        repo = writable(session, who, name)
        _check_not_a_jobs(session, repo, branch)
        commit = resolve(session, repo, revision)
        files = repository.files(session, commit)
        job = jobs.get(session, commit.job_id) if commit.job_id else None
    tags = model_tags(files, read_card(context.store, files), recipe_tags(job.spec) if job else ())
    with context.sessions.begin() as session:
        move_branch(session, name, branch, commit.oid, tags=tags, by_admin=who.sees_all)
    return Response(status_code=201)


@routes.route("/api/models/{repo}/branch/{rev}", "DELETE")
def delete_branch(context: Context, who: CallerOf, name: RepoName, rev: str) -> Response:
    """Remove a branch; its commits stay readable by their names."""
    branch = decode_segment(rev)
    if branch == DEFAULT_BRANCH:
        raise NotAllowed(f"The branch {DEFAULT_BRANCH!r} cannot be deleted.")
    return _delete_ref(context, who, name, "branch", branch)


@routes.route("/api/models/{repo}/tag/{rev}", "POST")
def create_tag(
    context: Context, who: CallerOf, name: RepoName, rev: str, tag: Annotated[str, Body(embed=True)]
) -> Response:
    """Tag a revision."""
    check_ref_name(tag)
    if tag == DEFAULT_BRANCH:
        raise NotAllowed(
            f"A tag cannot be called {DEFAULT_BRANCH!r}: where that branch is missing it would stand for it."
        )
    with context.sessions.begin() as session:
        repo = writable(session, who, name)
        _check_not_a_jobs(session, repo, tag)
        commit = resolve(session, repo, decode_segment(rev))
        if not repository.create_ref(session, repo, "tag", tag, commit):
            raise AlreadyExists(f"The tag {tag!r} of {repo.name}")
    return Response(status_code=201)


@routes.route("/api/models/{repo}/tag/{rev}", "DELETE")
def delete_tag(context: Context, who: CallerOf, name: RepoName, rev: str) -> Response:
    """Remove a tag."""
    return _delete_ref(context, who, name, "tag", decode_segment(rev))


def _check_not_a_jobs(session: Session, repo: RepoRow, ref: str) -> None:
    """Let pass a name that no job's tag has: those tell for good which checkpoint a job made.

    Raises:
        JobsTag: the name is of that form, and jobs publish to the repository.
    """
    if ref.startswith(JOB_TAG) and repository.has_commit_of_a_job(session, repo.id):
        raise JobsTag(repo.name, ref)


def _delete_ref(context: Context, who: CallerOf, name: str, kind: repository.RefKind, ref: str) -> Response:
    with context.sessions.begin() as session:
        repo = writable(session, who, name)
        _check_not_a_jobs(session, repo, ref)
        if "\0" in ref or not repository.delete_ref(session, repo, kind, ref):
            raise RevisionNotFound(repo.name, ref)
    return Response(status_code=200)


@routes.route("/api/models/{repo}/user-access-request/grant", "POST")
def grant_access(context: Context, who: CallerOf, name: RepoName, user: Annotated[str, Body(embed=True)]) -> Response:
    """Let an API key, named by its id or its name, read a private or gated repository."""
    with context.sessions.begin() as session:
        repo = administered(session, who, name)
        directory.grant(session, repo, _keys(session, user))
    return JSONResponse({})  # the client reads JSON, and nothing in it


@routes.route("/api/models/{repo}/user-access-request/handle", "POST")
def handle_access(
    context: Context,
    who: CallerOf,
    name: RepoName,
    user: Annotated[str, Body()],
    status: Annotated[Literal["accepted", "rejected", "pending"], Body()],
) -> Response:
    """Grant access (`accepted`), or take it back."""
    with context.sessions.begin() as session:
        repo = administered(session, who, name)
        change = directory.grant if status == "accepted" else directory.withdraw
        change(session, repo, _keys(session, user))
    return JSONResponse({})


def _keys(session: Any, user: str) -> Any:
    listed = re.fullmatch(r"hf_(\w+)\.\.\.", user)  # an id as lists show it
    called = listed[1] if listed else user
    found = [] if "\0" in user else directory.keys_called(session, called)
    if not found:
        raise BadRequest(
            f"No API key has the id or the name {_without_tokens(user)[:100]!r}; `streamline keys list` shows them."
        )
    return found


def _without_tokens(text: str) -> str:
    """The text with no more of a token than lists show of keys, however short it was cut: it may be whole and valid."""
    return re.sub(r"(?i)(hf_[a-z0-9]{0,8})[\w-]*", r"\1...", text)


@routes.route("/api/models/{repo}/user-access-request/{status}")
def list_access(
    context: Context, who: CallerOf, name: RepoName, status: Literal["accepted", "rejected", "pending"]
) -> Response:
    """Who was granted access; nobody has to ask here, so that none waits and none was turned down."""
    with context.read_sessions() as session:
        repo = administered(session, who, name)
        granted = directory.granted_keys(session, repo) if status == "accepted" else []
    return JSONResponse([wire.access_request(key, moment) for key, moment in granted])
