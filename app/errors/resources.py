"""What is not there, or is in a state that does not allow what is asked of it."""

from app.errors import ServiceError
from app.errors.requests import NotFound


class JobNotFound(NotFound):
    """There is no job of this id."""

    code = "job_not_found"
    title = "No such job"


class DatasetNotFound(NotFound):
    """There is no data set of this id."""

    code = "dataset_not_found"
    title = "No such data set"


class WebhookNotFound(NotFound):
    """There is no webhook of this id."""

    code = "webhook_not_found"
    title = "No such webhook"


class DeliveryNotFound(NotFound):
    """The webhook has no delivery of this id."""

    code = "delivery_not_found"
    title = "No such delivery"


class KeyNotFound(NotFound):
    """There is no API key of this id."""

    code = "key_not_found"
    title = "No such API key"


class FileNotFound(NotFound):
    """The job has no such file (yet)."""

    code = "file_not_found"
    title = "No such file"


class IdempotencyKeyInFlight(ServiceError):  # noqa: N818
    """A request with this Idempotency-Key is being worked on; ask again after `Retry-After` seconds."""

    code = "idempotency_key_in_flight"
    title = "A request with this Idempotency-Key is under way"
    status = 409


class JobIsFinal(ServiceError):  # noqa: N818
    """The job has ended and can no longer be cancelled."""

    code = "job_is_final"
    title = "The job has already ended"
    status = 409


class JobNotRetryable(ServiceError):  # noqa: N818
    """Only a failed or cancelled job can be tried again."""

    code = "job_not_retryable"
    title = "The job cannot be retried"
    status = 409


class NoFirstKey(ServiceError):  # noqa: N818
    """The service has no API keys, and the first one is made where it runs, by who may read its data directory."""

    code = "no_first_key"
    title = "The first API key is made where the service runs"
    status = 409


class OwnKey(ServiceError):  # noqa: N818
    """A key does not revoke itself: whoever does so by mistake would be shut out."""

    code = "own_key"
    title = "A key does not revoke itself"
    status = 409


class TooManyWebhooks(ServiceError):  # noqa: N818
    """The API key has as many webhooks as it may have; one has to be removed first."""

    code = "too_many_webhooks"
    title = "The API key has no room for another webhook"
    status = 409


class WebhookDisabled(ServiceError):  # noqa: N818
    """The webhook has answered 410 or failed for days, and is told nothing more until it is enabled again."""

    code = "webhook_disabled"
    title = "The webhook is disabled"
    status = 409


class WebhookMuted(ServiceError):  # noqa: N818
    """Nothing is sent: it was registered before there were keys, or its key has ended or may not know of the job."""

    code = "webhook_muted"
    title = "The webhook may not be told of this any more"
    status = 409
