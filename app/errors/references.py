"""Refusals of what a request names or asks of it: models, data sets, tasks, addresses, and what they allow."""

from app.errors import ServiceError
from app.errors.requests import InvalidRequest


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
