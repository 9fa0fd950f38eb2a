"""Refusals of a request by itself: its form, who sends it, its path, and the values of its fields."""

from app.errors import ServiceError


class MalformedBody(ServiceError):  # noqa: N818 - the classes are named for what happened
    """The body is not valid JSON, or not a valid multipart form."""

    code = "malformed_body"
    title = "The body cannot be read"
    status = 400


class InvalidIdempotencyKey(ServiceError):  # noqa: N818
    """The Idempotency-Key is empty, too long, or holds other characters than printable ASCII."""

    code = "invalid_idempotency_key"
    title = "The Idempotency-Key cannot be used"
    status = 400


class InvalidCredentials(ServiceError):  # noqa: N818
    """The service has API keys, and the request carries none that is valid now."""

    code = "invalid_credentials"
    title = "A valid API key is needed"
    status = 401


class InsufficientScope(ServiceError):  # noqa: N818
    """The API key is valid but does not allow this."""

    code = "insufficient_scope"
    title = "The API key does not allow this"
    status = 403


class QuotaExceeded(ServiceError):  # noqa: N818
    """The API key has used up what it may use for now; `Retry-After` says when to come back, if that helps."""

    code = "quota_exceeded"
    title = "The API key's quota is used up"
    status = 429


class ForeignRequest(ServiceError):  # noqa: N818
    """The service has no API keys, and the request is addressed to another host, or a page of another site sends it."""

    code = "foreign_request"
    title = "Without API keys only this machine is served"
    status = 403


class CrossSiteRequest(ServiceError):  # noqa: N818
    """A browser's login came with a change that no page of this service sends."""

    code = "cross_site_request"
    title = "Another site's page may have sent this"
    status = 403


class NotFound(ServiceError):  # noqa: N818
    """There is nothing at this path."""

    code = "not_found"
    title = "Nothing here"
    status = 404


class MethodNotAllowed(ServiceError):  # noqa: N818
    """The path is right but does not take this method; `Allow` lists those that it takes."""

    code = "method_not_allowed"
    title = "The method is not allowed here"
    status = 405


class NotAcceptable(ServiceError):  # noqa: N818
    """The answer does not exist in any of the media types that `Accept` names."""

    code = "not_acceptable"
    title = "No such representation"
    status = 406


class BodyTooLarge(ServiceError):  # noqa: N818
    """The body is longer than the service takes on this route."""

    code = "body_too_large"
    title = "The body is too large"
    status = 413


class UnsupportedMediaType(ServiceError):  # noqa: N818
    """The body's Content-Type is not the one that this route reads."""

    code = "unsupported_media_type"
    title = "The body's media type is not supported"
    status = 415


class InvalidRequest(ServiceError):  # noqa: N818
    """A field or parameter is wrong in a way that no more special code covers."""

    code = "invalid_request"
    title = "The request is not valid"
    status = 422


class UnknownField(InvalidRequest):
    """The body has a field that does not exist: it is refused, because ignoring it would do something else."""

    code = "unknown_field"
    title = "A field does not exist"


class MissingField(InvalidRequest):
    """A required field is missing."""

    code = "missing_field"
    title = "A field is missing"


class WrongType(InvalidRequest):
    """A field has another type than the one that it must have."""

    code = "wrong_type"
    title = "A field has the wrong type"


class OutOfRange(InvalidRequest):
    """A value is outside its allowed range; `detail` names the range."""

    code = "out_of_range"
    title = "A value is out of range"


class NotAvailable(InvalidRequest):
    """A choice that this version does not offer; `detail` lists what it offers."""

    code = "not_available"
    title = "Not available in this version"


class ConflictingFields(InvalidRequest):
    """Fields that cannot be given together, or of which exactly one must be given."""

    code = "conflicting_fields"
    title = "Fields contradict each other"


class GateNotMeasured(InvalidRequest):
    """A gate on something that the job does not measure could never be judged."""

    code = "gate_not_measured"
    title = "The job does not measure what the gate is about"
