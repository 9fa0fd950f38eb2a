"""The texts of a request, as the door sees them: is there such a data set, and does it make the sequences it has to?"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from app.core import defaults
from app.core.architectures import Config
from app.datasets import repository as datasets
from app.datasets.inspection import Format
from app.datasets.tokens import UnreadableTokenizer, count_tokens
from app.errors.references import TextTooShort, UnknownColumn, UnknownDataset, UnreadableModel
from app.errors.requests import ConflictingFields, InvalidRequest
from app.jobs.consistency import sequences_needed
from app.jobs.facts import ModelFacts
from app.jobs.spec.request import JobRequest, PlanRequest
from app.storage.blobs import BlobCorrupt, BlobNotFound, BlobStore

_SUGGESTIONS = 3


@dataclass(frozen=True)
class TextFacts:
    """A data set that the request names."""

    pointer: str
    name: str
    format: Format
    sha256: str
    sequences: int
    """Sequences that it must make."""


def texts_of(session: Session, request: JobRequest | PlanRequest) -> tuple[TextFacts, ...]:
    """The data sets that the request names.

    Raises:
        UnknownDataset, UnknownColumn, ConflictingFields: as their docstrings say.
    """
    column = request.calibration.column or defaults.TEXT_COLUMN
    dataset = request.calibration.dataset or defaults.SELF_TEXT
    calibration = []
    if dataset != defaults.SELF_TEXT:
        needed = sequences_needed(request)
        calibration.append(_text(session, dataset, column, pointer="/calibration/dataset", sequences=needed))
    judged: dict[str, TextFacts] = {}
    for index, name in enumerate(request.evaluation.perplexity or ()):
        pointer = f"/evaluation/perplexity/{index}"
        if name in judged:  # the report has one entry per id
            raise ConflictingFields(f"The evaluation data set {name} is named twice; name it once.", pointer=pointer)
        judged[name] = _text(session, name, column, pointer=pointer, sequences=1)
    return (*calibration, *judged.values())


def _text(session: Session, dataset: str, column: str, *, pointer: str, sequences: int) -> TextFacts:
    row = datasets.get(session, dataset)
    if row is None:
        raise UnknownDataset(_nearest_datasets(session, dataset), pointer=pointer)
    if row.format == "jsonl" and column not in row.columns:
        raise UnknownColumn(
            f"{row.name} ({row.id}) has no text in a column {column!r} of every row; there are: "
            f"{', '.join(row.columns)}. Name one of them as calibration.column.",
            pointer="/calibration/column",
        )
    return TextFacts(pointer, row.name, "jsonl" if row.format == "jsonl" else "text", row.sha256, sequences)


def _nearest_datasets(session: Session, dataset: str) -> str:
    known = datasets.names(session)
    words = {word: f"{id_} ({name})" for id_, name in known for word in (id_, name)}
    near = list(dict.fromkeys(words[word] for word in difflib.get_close_matches(dataset, words, n=_SUGGESTIONS)))
    near = near or [f"{id_} ({name})" for id_, name in known[:_SUGGESTIONS]]
    nearest = f"The nearest: {', '.join(near)}." if near else "None has been uploaded yet."
    return (
        f"There is no data set with the id {dataset!r}. {nearest} Upload one with POST /v1/datasets; calibration "
        f"without any is {defaults.SELF_TEXT}, which cannot be used for evaluation."
    )


def check_texts(
    texts: Iterable[TextFacts],
    store: BlobStore,
    model: ModelFacts,
    tokenizer: Path | None,
    *,
    length: int,
    column: str,
) -> None:
    """Refuse text that does not make the sequences that it has to make.

    Raises:
        TextTooShort: with the tokens that were found and needed.
        UnknownDataset: the store has lost its bytes.
        UnreadableModel: the tokenizer is not one.
    """
    for text in texts:
        try:
            path = store.local_path(text.sha256)
        except (BlobNotFound, BlobCorrupt) as error:
            raise UnknownDataset(f"{text.name}: {error}", pointer=text.pointer) from None
        if tokenizer is None:
            continue
        needed = length * text.sequences
        try:
            found = count_tokens(
                path,
                text.format,
                column,
                tokenizer=tokenizer,
                enough=needed,
                separators=_has_separator(model.config),
            )
        except UnreadableTokenizer as error:
            raise UnreadableModel(
                f"tokenizer.json of {model.repo} cannot be read: {error}. Import the model again.",
                pointer="/model/repo",
            ) from None
        if found < needed:
            raise _too_short(text, found=found, needed=needed, length=length)


def _too_short(text: TextFacts, *, found: int, needed: int, length: int) -> InvalidRequest:
    what = f"one sequence of {length}" if text.sequences == 1 else f"one sequence of {length} and one held out"
    remedy = "" if text.sequences == 1 else ", name an evaluation data set"
    return TextTooShort(
        f"{text.name} has {found:,} tokens and {needed:,} are needed for {what}. Upload more text{remedy}, or lower "
        "scoring.sequence_length.",
        pointer=text.pointer,
    )


def _has_separator(config: Config) -> bool:
    return any(config.get(name) is not None for name in ("bos_token_id", "eos_token_id"))
