"""Who asks the hub, and what they may see.

A keyless start listens on loopback only and holds every scope, private repositories included. Once there are keys, a
caller without one sees nothing: every repository looks exactly like a missing one.
"""

from dataclasses import dataclass

from app.db.models import RepoRow
from app.hub.errors import GatedRepository, RepositoryNotFound


@dataclass(frozen=True)
class Caller:
    """The caller, as routes ask before they show anything."""

    has_token: bool = False
    """Whether the request carries a token: the Hub answers 401 without one where it answers 404 with one."""
    name: str = "local"
    may_read: bool = True
    """Whether the caller holds the scope `read`: by a key, or because the service has none."""

    def may_know_of(self, repo: RepoRow) -> bool:
        """Whether the repository exists for this caller; if not, it must look exactly like a missing one."""
        return self.may_read

    def may_read_files(self, repo: RepoRow) -> bool:
        """Whether the caller may list and read files of a repository that it knows of."""
        return self.may_read

    @property
    def sees_private(self) -> bool:
        """Whether listings show private repositories."""
        return self.may_read

    def check(self, repo: RepoRow, *, files: bool) -> None:
        """Let pass, or raise.

        Raises:
            RepositoryNotFound: the caller may not know of it.
            GatedRepository: `files` are asked for and the caller may not read them.
        """
        if not self.may_know_of(repo):
            raise RepositoryNotFound(repo.name)
        if files and not self.may_read_files(repo):
            raise GatedRepository(repo.name)
