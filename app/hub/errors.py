"""What can go wrong in the hub. Each class is one case; its message says what to do next."""


class HubError(Exception):
    """Base of the hub's errors."""


class BadName(HubError, ValueError):  # noqa: N818 - named for what happened
    """A repository, revision or file name that the hub does not allow."""


class BadRequest(HubError, ValueError):  # noqa: N818
    """A body or parameter that cannot be understood."""


class AlreadyExists(HubError):  # noqa: N818
    """A repository, branch or tag of this name is there."""

    def __init__(self, what: str, *, url: str = "") -> None:
        super().__init__(f"{what} already exists.")
        self.url = url


class StaleParent(HubError):  # noqa: N818
    """The branch has moved since: the commit was made for content that is no longer the newest."""

    def __init__(self, repo: str, branch: str) -> None:
        super().__init__(f"A commit has happened on {branch!r} of {repo} since. Please refresh and try again.")


class BadFile(HubError):  # noqa: N818
    """A file of an upload or commit is refused, and with it all of the commit."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path[:300]!r}: {reason} Nothing was committed.")
        self.path = path


class TooLarge(HubError):  # noqa: N818
    """A file, a line or a commit is larger than the service takes."""


class ContentMismatch(HubError):  # noqa: N818
    """The bytes that came are others than those that were announced."""

    def __init__(self, announced: str, found: str) -> None:
        super().__init__(f"The bytes sent have sha256 {found}, announced was {announced}; nothing was kept.")


class BadXetObject(HubError):  # noqa: N818
    """A xorb or a shard that cannot be read, or that names what is not here."""


class ForbiddenPullRequest(HubError):  # noqa: N818
    """This hub has no pull requests."""

    def __init__(self) -> None:
        super().__init__("This hub has no pull requests; make a branch and commit to it.")


class LinkExpired(HubError):  # noqa: N818
    """An upload's URL is too old, or was not made here."""

    def __init__(self) -> None:
        super().__init__("This upload link is not valid (any more); begin the upload again.")


class RepositoryNotFound(HubError):  # noqa: N818
    """No such repository, or one that the caller may not know of."""

    def __init__(self, repo: str, *, nobody: bool = False) -> None:
        """`nobody`: the request came without a token to a service that shows nothing without one."""
        more = (
            " that you can see: no token was sent; set HF_TOKEN, or log in with `hf auth login`."
            if nobody
            else "; `GET /api/models` lists those that you can read."
        )
        super().__init__(f"There is no repository {repo!r} here{more}")
        self.repo = repo


class RevisionNotFound(HubError):  # noqa: N818
    """The repository has no such branch, tag or commit."""

    def __init__(self, repo: str, revision: str) -> None:
        missing = (
            f"{repo} has nothing at `main`, where a job's model comes once it has passed its gates"
            if revision == "main"
            else f"{repo} has no branch, tag or commit {revision!r}"
        )
        super().__init__(f"{missing}; `GET /api/models/{repo}/refs` lists what it has.")
        self.repo = repo
        self.revision = revision


class EntryNotFound(HubError):  # noqa: N818
    """The commit has no such file or directory."""

    def __init__(self, repo: str, commit: str, path: str) -> None:
        super().__init__(f"{repo} has no file {path!r} at {commit}; `GET /api/models/{repo}/tree/{commit}` lists all.")
        self.repo = repo
        self.commit = commit
        self.path = path


class ContentLost(HubError):  # noqa: N818
    """The commit names a file whose bytes are gone from the store."""

    def __init__(self, repo: str, commit: str, path: str) -> None:
        super().__init__(
            f"The store has lost {path!r} of {repo} at {commit}; its operator has to publish or import the model again."
        )
        self.repo = repo
        self.commit = commit
        self.path = path


class GatedRepository(HubError):  # noqa: N818
    """The caller may know of the repository but not read its files."""

    def __init__(self, repo: str) -> None:
        super().__init__(f"Access to {repo} has to be granted first; ask its owner.")
        self.repo = repo


class InvalidCredentials(HubError):  # noqa: N818
    """The request carries a token that is not known (any more)."""

    advice = (
        "The API key that was sent is not known here, was revoked or has expired: set HF_TOKEN to one that is valid "
        "(`streamline keys create NAME` makes it where the service runs), or log in with `hf auth login`."
    )

    def __init__(self) -> None:
        super().__init__("Invalid credentials in Authorization header")  # clients compare this very sentence


class NotAllowed(HubError):  # noqa: N818
    """The caller may see this but not change it."""


class ProtectedBranch(NotAllowed):
    """`main` of a job's output repository moves by a passing verdict alone."""

    def __init__(self, repo: str) -> None:
        super().__init__(
            f"`main` of {repo} holds what jobs publish and moves only when one passes its gates; use another branch. "
            "To serve an older one, name its revision or make a branch of it."
        )


class MissedItsGates(NotAllowed):
    """A commit that no passing verdict stands for is to become `main` where jobs publish."""

    def __init__(self, repo: str, commit: str) -> None:
        super().__init__(
            f"{commit} has not passed its gates, and `main` of {repo}, where jobs publish, goes to commits that have. "
            "Name one that has, or serve this one by its revision or from another branch."
        )


class MovedByAdministrators(NotAllowed):
    """A key without scope `admin` is to move `main` where jobs publish."""

    def __init__(self, repo: str) -> None:
        super().__init__(
            f"`main` of {repo}, where jobs publish, is moved by keys of scope admin alone, and this key is none. Ask "
            "an administrator, or serve the revision from another branch."
        )


class JobsTag(NotAllowed):
    """A name that tells which checkpoint a job made."""

    def __init__(self, repo: str, tag: str) -> None:
        super().__init__(
            f"{tag[:300]!r} of {repo} tells for good which checkpoint a job made, and such names are made by jobs "
            "alone and never removed; choose another name."
        )


class ForeignRequest(HubError):  # noqa: N818
    """The service has no API keys, and the request is addressed to another host."""


class ModelRefused(HubError):  # noqa: N818
    """A directory that cannot be imported as a model; `file` names the offending file where there is one."""

    def __init__(self, reason: str, *, file: str | None = None) -> None:
        super().__init__(reason)
        self.file = file


class DirectoryNotAllowed(ModelRefused):
    """The directory lies in none of those that models may be imported from."""


class NoSafetensors(ModelRefused):
    """The directory holds no weights in the safetensors format."""


class UnreadableModel(HubError):  # noqa: N818
    """A revision whose config or weights cannot be understood; `file` names the offending file."""

    def __init__(self, repo: str, commit: str, file: str, reason: str) -> None:
        super().__init__(f"{repo} at {commit}: {file}: {reason}")
        self.file = file
        self.reason = reason


class UpstreamError(HubError):
    """Something is not here, and the upstream hub did not give it."""


class UpstreamUnavailable(UpstreamError):  # noqa: N818
    """The upstream hub does not answer as it should; the same may work in a moment."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The upstream hub {reason}. What has been fetched before is served; try again in a moment.")


class UpstreamTimeout(UpstreamUnavailable):
    """The upstream hub does not answer in time."""


class UpstreamLoop(UpstreamUnavailable):
    """Looking a name up at the upstream hub leads back to who asked."""

    def __init__(self) -> None:
        super().__init__("leads back to the service that asks it; STREAMLINE_UPSTREAM must name another hub")


class UpstreamDamaged(UpstreamError):  # noqa: N818
    """The upstream hub sends other bytes than it names."""

    def __init__(self, repo: str, path: str) -> None:
        super().__init__(f"The upstream hub sends other bytes for {path!r} of {repo} than it names; nothing was kept.")


class UpstreamRefused(UpstreamError):  # noqa: N818
    """A revision of the upstream hub that is not copied; the message says why."""


class PickledWeights(UpstreamRefused):
    """The upstream hub's repository has no other weights than pickled ones."""

    def __init__(self, repo: str, file: str) -> None:
        super().__init__(
            f"{repo} has its weights only in {file!r} and the like, which run code when they are opened, and is not "
            "fetched. Convert it: load it with transformers, save it with save_pretrained, and import that directory."
        )


class ReadOnlyCopy(NotAllowed):
    """A copy of another hub's repository takes no changes."""

    def __init__(self, repo: str, upstream: str) -> None:
        super().__init__(f"{repo} is a read-only copy of {upstream}/{repo}; choose another name.")
