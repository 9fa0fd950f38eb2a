"""A model card: README.md, whose YAML front matter says what a list is filtered by and a page shows.

https://huggingface.co/docs/hub/model-cards
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import yaml

from app.hub.objects import TreeFile
from app.storage.blobs import BlobNotFound, BlobStore

CARD_FILE = "README.md"
MAX_CARD_BYTES = 1 << 20
MAX_METADATA_BYTES = 64 << 10
_FENCE = "---"
_MAX_TAGS = 100
_MAX_TAG_LENGTH = 200


class BadCard(ValueError):  # noqa: N818 - named for what happened
    """The front matter is no YAML mapping that the hub could keep; the message says where."""


@dataclass(frozen=True, slots=True)
class Card:
    """A parsed model card."""

    metadata: Mapping[str, Any] = field(default_factory=dict)
    """JSON values alone: a date is text."""
    body: str = ""
    """Markdown."""


class _PlainLoader(yaml.SafeLoader):
    """Safe YAML without aliases: a few nested ones would stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise BadCard("aliases (`*name`) are not allowed; write the value out")
        return super().compose_node(parent, index)


def parse_card(text: str) -> Card:
    """The card of a README.md.

    Raises:
        BadCard: there is front matter, and it is no YAML mapping, or larger than MAX_METADATA_BYTES.
    """
    lines = text.removeprefix("\ufeff").splitlines(keepends=True)
    if not lines or lines[0].rstrip() != _FENCE:
        return Card(body=text)
    end = next((index for index, line in enumerate(lines[1:], 1) if line.rstrip() == _FENCE), None)
    if end is None:
        return Card(body=text)
    return Card(parse_metadata("".join(lines[1:end])), "".join(lines[end + 1 :]).lstrip("\n"))


def parse_metadata(source: str) -> dict[str, Any]:
    """A front matter's YAML, as JSON values.

    Raises:
        BadCard: as parse_card.
    """
    if len(source.encode(errors="surrogatepass")) > MAX_METADATA_BYTES:
        raise BadCard(f"larger than {MAX_METADATA_BYTES:,} bytes")
    try:
        loaded = yaml.load(source, _PlainLoader)  # noqa: S506, TID251 - a SafeLoader
        text = json.dumps(loaded, default=str, allow_nan=False, ensure_ascii=False)
        plain = json.loads(text.encode())  # halves of surrogate pairs, which no answer could hold, end here
    except BadCard:
        raise
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise BadCard(" ".join(str(error).split())[:500]) from None
    if plain is None:
        return {}
    if not isinstance(plain, dict):
        raise BadCard("not a mapping of names to values")
    return plain


def read_card(store: BlobStore, files: Iterable[TreeFile]) -> Card:
    """The card among a revision's files; an empty one where there is none, or none that can be understood."""
    file = next((file for file in files if file.path == CARD_FILE), None)
    if file is None or file.size > MAX_CARD_BYTES:
        return Card()
    try:
        with store.open(file.sha256) as content:
            text = content.read().decode("utf-8", "replace")
    except BlobNotFound:
        return Card()
    return _understood(text)


@lru_cache(maxsize=64)  # YAML of 64 KB can take half a second, and every load of a model asks for its card
def _understood(text: str) -> Card:
    try:
        return parse_card(text)
    except BadCard:
        return Card(body=text)


def model_tags(files: Iterable[TreeFile], card: Card, more: Iterable[str] = ()) -> list[str]:
    """What a list of models can be filtered by: told by the files, by the card, and by whoever publishes (`more`)."""
    paths = {file.path for file in files}
    tags: dict[str, None] = {}
    if "config.json" in paths:
        tags["transformers"] = None
    if any(path.endswith(".safetensors") for path in paths):
        tags["safetensors"] = None
    for name in ("library_name", "pipeline_tag", "tags", "language"):
        tags |= dict.fromkeys(_texts(card.metadata.get(name)))
    for name, prefix in (("license", "license"), ("base_model", "base_model"), ("datasets", "dataset")):
        tags |= dict.fromkeys(f"{prefix}:{value}" for value in _texts(card.metadata.get(name)))
    tags |= dict.fromkeys(more)
    return [tag for tag in tags if 0 < len(tag) <= _MAX_TAG_LENGTH and "\0" not in tag][:_MAX_TAGS]


def recipe_tags(spec: Mapping[str, Any]) -> list[str]:
    """What a list of models finds the result of a job by, besides what its card says."""
    model = spec["model"]["repo"]
    tags = ["streamline", f"base_model:{model}", f"replacement:{spec['replacement']['kind']}"]
    return [*tags, f"scoring:{spec['scoring']['metric']}", f"dataset:{spec['calibration']['dataset']}"]


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]
