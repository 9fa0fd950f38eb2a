"""Pages of the hub: the models there are, and one model with its card, files, revisions and ancestors."""

import re
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.api.deps import Reader, hub_caller, services
from app.db.models import CommitRow
from app.hub import directory, repository
from app.hub.access import readable
from app.hub.card import Card, model_tags, read_card
from app.hub.errors import GatedRepository, RepositoryNotFound, RevisionNotFound
from app.hub.revisions import DEFAULT_BRANCH, resolve
from app.jobs.lineage import lineage
from app.web.markdown import render_markdown
from app.web.rendering import render
from app.web.revisions import revisions, short
from app.web.routing import NothingHere, PageRoute

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)
_MODELS_SHOWN = 1000
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_COMMITS_SHOWN = 50
_NAMED_SHOWN = 100


def _in_a_shell(revision: str | None, commit: CommitRow | None) -> str | None:
    """A name of the revision that a shell takes as it is: names of branches and tags may hold what it would act on."""
    if revision is None or _PLAIN.fullmatch(revision) or commit is None:
        return revision
    return commit.oid


@router.get("/models")
def models(request: Request, reader: Reader) -> HTMLResponse:
    """The repositories of the hub, the newest first."""
    who = hub_caller(reader)
    with services(request).read_sessions() as session:
        repos = directory.page_of_repos(session, visible_to=who.visible_to, order="last_modified", limit=_MODELS_SHOWN)
        tags = directory.tags_of(session, [repo.id for repo in repos])
    return render(request, "models.html", repos=repos, tags=tags)


@router.get("/models/{name}")
def model_without_namespace(request: Request, reader: Reader, name: str, revision: str | None = None) -> HTMLResponse:
    """One model whose name has no namespace."""
    return _model(request, reader, name, revision)


@router.get("/models/{namespace}/{name}")
def model(request: Request, reader: Reader, namespace: str, name: str, revision: str | None = None) -> HTMLResponse:
    """One model at a revision: its card, its files, how it came about, and the lines that use it."""
    return _model(request, reader, f"{namespace}/{name}", revision)


def _model(request: Request, reader: Reader, name: str, revision: str | None) -> HTMLResponse:
    who = hub_caller(reader)
    parts = services(request)
    with parts.read_sessions() as session:
        try:
            repo = readable(session, who, name, files=False)
            refs = repository.refs(session, repo.id)
            commit = None
            if revision is not None or any(ref[:2] == ("branch", DEFAULT_BRANCH) for ref in refs):
                commit = resolve(session, repo, revision or DEFAULT_BRANCH)
            gated = False
            try:
                readable(session, who, name, files=True)
            except GatedRepository:
                gated = True
        except RepositoryNotFound:
            unknown = f"There is no model {name!r} here, or this key may not know of it."
            raise NothingHere(unknown, ("/models", "To the models")) from None
        except RevisionNotFound:
            unknown = f"{name} has no branch, tag or commit {revision!r}; its page lists what it has."
            raise NothingHere(unknown, (f"/models/{quote(name)}", f"To {name}")) from None
        files = repository.files(session, commit) if commit and not gated else []
        history = repository.history(session, commit, limit=_COMMITS_SHOWN) if commit and not gated else []
        ancestors = lineage(session, who, commit.job_id) if commit else []
        listed = [] if gated else revisions(session, who, repo.id, refs, history, limit=_NAMED_SHOWN)
    card = read_card(parts.blobs, files) if files else Card()
    shown: dict[str, Any] = {
        "repo": repo,
        "commit": commit,
        "revision": _in_a_shell(revision, commit),
        "has_refs": bool(refs) and not gated,
        "gated": gated,
        "files": files,
        "revisions": listed,
        "left_out": len({oid for _, _, oid in refs} - {each.commit.oid for each in listed}) if listed else 0,
        "by_jobs": any(each.commit.job_id for each in listed),
        "missed": commit is not None
        and any(each.commit.oid == commit.oid and each.verdict == "fail" for each in listed),
        "short": short,
        "ancestors": ancestors,
        "tags": model_tags(files, card),
        "card": render_markdown(card.body),
        "custom_code": any(file.path.endswith(".py") for file in files),
        "endpoint": (parts.settings.public_url or str(request.base_url)).rstrip("/"),
        "keyed": bool(reader.owner),
    }
    return render(request, "model.html", **shown)
