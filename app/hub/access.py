"""Who asks the hub, and what they may see and change.

A keyless start listens on loopback only and holds every scope, private repositories included. Once there are keys, a
caller without one sees nothing: every repository looks exactly like a missing one.

| | read | write | delete, move, settings |
|---|---|---|---|
| public | scope `read` | scope `submit` | its owner, and scope `admin` |
| gated | information by `read`, files by a grant, its owner, `admin` | the same with `submit` | the same |
| private | a grant, its owner, `admin`; for others it is not there | the same with `submit` | the same |

A key owns what it made. Scope `admin` sees and changes everything.
"""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.auth.scopes import Scope
from app.db.models import RepoRow
from app.hub import directory
from app.hub.errors import BadName, GatedRepository, NotAllowed, ReadOnlyCopy, RepositoryNotFound
from app.hub.names import check_repo_name


@dataclass(frozen=True)
class Caller:
    """The caller, as routes ask before they show anything."""

    has_token: bool = False
    """Whether the request carries a token: the Hub answers 401 without one where it answers 404 with one."""
    name: str = "local"
    key: str = ""
    """Id of the API key; empty where the service has none."""
    scope: Scope | None = Scope.ADMIN
    """None: nobody in particular, at a service that has keys."""
    via: tuple[str, ...] = ()
    """Services that look something up at this one, for a caller of the first of them (app/hub/upstream/ring.py)."""

    @property
    def may_read(self) -> bool:
        """Whether the caller may ask anything at all."""
        return self.scope is not None

    @property
    def sees_all(self) -> bool:
        """Whether private repositories of others are shown."""
        return self.scope is Scope.ADMIN

    @property
    def visible_to(self) -> str | None:
        """Whose repositories a list shows: those that this key may know of; None stands for all."""
        return None if self.sees_all else self.key

    def may_know_of(self, repo: RepoRow, *, granted: bool) -> bool:
        """Whether the repository exists for this caller; if not, it must look exactly like a missing one."""
        return self.may_read and (not repo.private or self._is_close_to(repo, granted))

    def may_read_files(self, repo: RepoRow, *, granted: bool) -> bool:
        """Whether the caller may list and read files of a repository that it knows of."""
        return repo.gated is None or self._is_close_to(repo, granted)

    def _is_close_to(self, repo: RepoRow, granted: bool) -> bool:
        return self.administers(repo) or granted

    def administers(self, repo: RepoRow) -> bool:
        """Whether the caller may delete the repository and say who sees it."""
        return self.sees_all or (self.scope is Scope.SUBMIT and bool(self.key) and repo.owner == self.key)

    def check_may_submit(self) -> None:
        """Let pass whom the service takes changes from.

        Raises:
            NotAllowed: the key's scope is `read`.
        """
        if self.scope is None or not self.scope.includes(Scope.SUBMIT):
            raise NotAllowed("This needs an API key of scope submit; `streamline keys create NAME --scope submit`.")


def readable(session: Session, who: Caller, name: str, *, files: bool) -> RepoRow:
    """The repository, for who may read it (with `files`: its files too). One query, whether it is there or not.

    Raises:
        RepositoryNotFound: there is none, there can be none of this name, or the caller may not know of it.
        GatedRepository: `files` are asked for and the caller may not read them.
    """
    try:
        repo, granted = directory.find_for(session, check_repo_name(name), who.key)
    except BadName:
        repo, granted = None, False
    if repo is None or not who.may_know_of(repo, granted=granted):
        raise RepositoryNotFound(name, nobody=not who.may_read)
    if files and not who.may_read_files(repo, granted=granted):
        raise GatedRepository(repo.name)
    return repo


def writable(session: Session, who: Caller, name: str) -> RepoRow:
    """The repository, for who may change its content.

    Raises:
        RepositoryNotFound, GatedRepository: as readable.
        NotAllowed: the key's scope is `read`; ReadOnlyCopy where the repository is an upstream hub's.
    """
    repo = readable(session, who, name, files=True)
    who.check_may_submit()
    if repo.upstream is not None:
        raise ReadOnlyCopy(repo.name, repo.upstream)
    return repo


def check_may_publish(session: Session, who: Caller, name: str) -> None:
    """Let pass whoever may publish under this name: to a repository of theirs or of all, or to a new one.

    Raises:
        NotAllowed: the name is taken by what the caller may not write to. (Names are unique, so a refusal tells that.)
    """
    who.check_may_submit()
    if directory.find_repo(session, name) is None:
        return
    try:
        writable(session, who, name)
    except (RepositoryNotFound, GatedRepository):
        raise NotAllowed(f"This API key may not publish to {name}; choose another name.") from None


def check_as_closed(session: Session, source: RepoRow | None, name: str) -> None:
    """Let pass what shows the outcome of a model to no more than those who may read the model.

    Raises:
        NotAllowed: the repository `name` is there and open to more.
    """
    target = directory.find_repo(session, name)
    if source is None or target is None or target.private:
        return
    if source.private or (source.gated and not target.gated):
        kind = "private" if source.private else "gated"
        raise NotAllowed(
            f"{source.name} is {kind} and {name} is open to more; choose another name, or make that repository {kind}."
        )


def administered(session: Session, who: Caller, name: str) -> RepoRow:
    """The repository, for who may delete, move and configure it.

    Raises:
        RepositoryNotFound: as readable.
        NotAllowed: it is another key's.
    """
    repo = readable(session, who, name, files=False)
    who.check_may_submit()
    if not who.administers(repo):
        raise NotAllowed(f"{repo.name} belongs to another API key; only that key and keys of scope admin may do this.")
    return repo
