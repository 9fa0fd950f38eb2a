"""Every way the service can refuse or fail, one class each.

A class's docstring is the meaning of its `code`, which is stable; the `detail` given when it is raised says what to do
next. `app.api.problems` turns them into RFC 9457 documents.
"""

from collections.abc import Mapping
from typing import ClassVar


class ServiceError(Exception):
    """Base of all: something the service refuses or cannot do."""

    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"
    status: ClassVar[int] = 500

    def __init__(
        self,
        detail: str,
        *,
        pointer: str | None = None,
        parameter: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Describe one occurrence.

        Args:
            detail: what is wrong here and what to do about it.
            pointer: JSON pointer (RFC 6901) of the offending field in the request's body.
            parameter: name of the offending query, path or header parameter.
            headers: headers of the answer, such as Retry-After.
        """
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer
        self.parameter = parameter
        self.headers = dict(headers or {})


# --- the request as such ---------------------------------------------------------------------------------------------


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


# --- what the request refers to --------------------------------------------------------------------------------------


class BadRepoName(InvalidRequest):
    """The text cannot name a repository; `detail` holds the allowed form."""

    code = "bad_repo_name"
    title = "Not a repository name"


class UnknownModel(InvalidRequest):
    """No repository of this name is in the hub."""

    code = "unknown_model"
    title = "The model is not in the hub"


class ModelNotAllowed(InvalidRequest):
    """The API key may not read the model's files (it is gated), or not publish to the repository that it names."""

    code = "model_not_allowed"
    title = "The API key may not use the repository"


class ModelNotFetched(InvalidRequest):
    """The model is at the upstream hub, and is not fetched from there: too large, or names that cannot be kept."""

    code = "model_not_fetched"
    title = "The model is not fetched from the upstream hub"


class UnknownRevision(InvalidRequest):
    """The model's repository has no such branch, tag or commit."""

    code = "unknown_revision"
    title = "The model has no such revision"


class UnreadableModel(InvalidRequest):
    """A file of the model cannot be understood: config.json, tokenizer.json or a safetensors header."""

    code = "unreadable_model"
    title = "The model cannot be read"


class NoSafetensors(InvalidRequest):
    """The model has no weights in the safetensors format; other formats are not opened because they can run code."""

    code = "no_safetensors"
    title = "The model has no safetensors weights"


class DirectoryNotAllowed(InvalidRequest):
    """The directory lies outside those that models may be imported from; `detail` names the setting."""

    code = "directory_not_allowed"
    title = "The directory may not be imported from"


class UnsupportedFamily(InvalidRequest):
    """The model's family is not supported; `detail` lists the families that are."""

    code = "unsupported_family"
    title = "The model family is not supported"


class UnsupportedModel(InvalidRequest):
    """The family is supported, but this model cannot be cut: own code, packed weights, layers that share something."""

    code = "unsupported_model"
    title = "The model cannot be compressed"


class PlanNeedsWeights(InvalidRequest):
    """The config alone does not tell how many parameters the model has: no formula is known for its family."""

    code = "plan_needs_weights"
    title = "This family cannot be planned from its config alone"


class BadTarget(InvalidRequest):
    """The target lies outside the model or leaves too little of it; `detail` names what can be reached."""

    code = "bad_target"
    title = "The target cannot be met"


class NativeFormRefused(InvalidRequest):
    """The replacement cannot be written as a stock layer of this family."""

    code = "native_form_refused"
    title = "The replacement has no native form here"


class ReplacementRefused(InvalidRequest):
    """The replacement, or what it is to start from, makes no sense in this family; `detail` says what does."""

    code = "replacement_refused"
    title = "The replacement makes no sense here"


class UnknownDataset(InvalidRequest):
    """No data set has this id; `detail` names those nearest to it."""

    code = "unknown_dataset"
    title = "There is no such data set"


class UnknownColumn(InvalidRequest):
    """The data set has no such column of text; `detail` lists those that it has."""

    code = "unknown_column"
    title = "The data set has no such column"


class TextTooShort(InvalidRequest):
    """The text has fewer tokens than are needed; `detail` has both numbers."""

    code = "text_too_short"
    title = "The text is too short"


class BadWebhookUrl(InvalidRequest):
    """Nothing is sent to such a URL; `detail` says why and what is allowed."""

    code = "bad_webhook_url"
    title = "The URL is none that messages are sent to"


class UnknownTask(InvalidRequest):
    """There is no task of this name, and no data set with this id; `detail` names those nearest to it."""

    code = "unknown_task"
    title = "There is no such task"


class MissingTaskData(InvalidRequest):
    """The service has no data for this task; `detail` says under which name to upload them."""

    code = "missing_task_data"
    title = "The task has no data here"


class BadTaskData(InvalidRequest):
    """The rows are not what the task is made of; `detail` has the line."""

    code = "bad_task_data"
    title = "The task cannot be made of these rows"


class NoUsableQuestion(InvalidRequest):
    """No row has a right answer among its options, and a task without questions has no score."""

    code = "no_usable_question"
    title = "The task has no usable question"


class BadDataset(InvalidRequest):
    """The uploaded file is neither JSONL with text in it nor plain text in UTF-8; `detail` names the line."""

    code = "bad_dataset"
    title = "The file is not a data set"


class DatasetNameTaken(ServiceError):  # noqa: N818
    """Tasks find their rows by this name, and another key has uploaded those that count; `detail` says how to go on."""

    code = "dataset_name_taken"
    title = "The name is another key's"
    status = 403


class IdempotencyKeyReused(InvalidRequest):
    """The Idempotency-Key was used for another request."""

    code = "idempotency_key_reused"
    title = "The Idempotency-Key belongs to another request"


# --- what exists -----------------------------------------------------------------------------------------------------


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


# --- the service itself ----------------------------------------------------------------------------------------------


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
