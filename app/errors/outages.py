"""What the service cannot do at the moment, whatever is asked: faults, and parts of it that do not answer."""

from app.errors import ServiceError


class InternalError(ServiceError):
    """A fault of the service; its log has the details under the answer's request id."""


class Unavailable(ServiceError):  # noqa: N818
    """The database does not answer or the service stops; send the request again after `Retry-After` seconds."""

    code = "unavailable"
    title = "The service cannot answer at the moment"
    status = 503


class DatabaseBehind(ServiceError):  # noqa: N818
    """The database lacks a migration of this release; after `streamline migrate`, send the request again."""

    code = "database_behind"
    title = "The database is older than this release"
    status = 503


class StorageUnavailable(ServiceError):  # noqa: N818
    """The object store does not answer or does not let the service in; its log says which and what to do."""

    code = "storage_unavailable"
    title = "The store cannot be reached at the moment"
    status = 503


class UpstreamUnavailable(ServiceError):  # noqa: N818
    """The upstream hub does not answer as it should, and what is asked for has not been fetched before."""

    code = "upstream_unavailable"
    title = "The upstream hub cannot be used at the moment"
    status = 502


class UpstreamTimeout(ServiceError):  # noqa: N818
    """The upstream hub does not answer in time, and what is asked for has not been fetched before."""

    code = "upstream_timeout"
    title = "The upstream hub does not answer in time"
    status = 504


class StorageFull(ServiceError):  # noqa: N818
    """The disk or the bucket cannot take the upload; nothing of it was kept."""

    code = "storage_full"
    title = "The store is full"
    status = 507
