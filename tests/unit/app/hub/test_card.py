import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.hub.card import MAX_METADATA_BYTES, BadCard, Card, model_tags, parse_card
from app.hub.objects import TreeFile


def file(path: str) -> TreeFile:
    return TreeFile(path, 1, "0" * 64, "0" * 40)


def test_a_card_is_front_matter_and_markdown() -> None:
    card = parse_card("---\nlicense: mit\nlanguage: [en, de]\ndate: 2026-01-31\n---\n\n# Title\n")
    assert card == Card({"license": "mit", "language": ["en", "de"], "date": "2026-01-31"}, "# Title\n")


@pytest.mark.parametrize("text", ["", "# Title", "--- \nno end", "----\na: b\n----\n"])
def test_without_front_matter_all_is_markdown(text: str) -> None:
    assert parse_card(text) == Card(body=text)


@pytest.mark.parametrize(
    "source",
    [
        "a: [",
        "- a\n- b",
        "a: &x [1]\nb: *x",
        "!!python/object:os.system x",
        "a: .nan",
        'a: "\\ud800"',
        "x" * MAX_METADATA_BYTES,
    ],
)
def test_front_matter_that_cannot_be_kept_is_refused(source: str) -> None:
    with pytest.raises(BadCard):
        parse_card(f"---\n{source}\n---\n")


@given(source=st.text(alphabet="ab:-[]{}&*!|>\n \"'", max_size=60))
def test_whatever_the_front_matter_it_is_parsed_or_refused(source: str) -> None:
    with contextlib.suppress(BadCard):
        assert isinstance(parse_card(f"---\n{source}\n---\n").metadata, dict)


def test_tags_come_from_files_card_and_publisher() -> None:
    card = Card({"tags": ["tiny", 5], "license": "mit", "base_model": ["a/b"], "pipeline_tag": "text-generation"})
    tags = model_tags([file("config.json"), file("model.safetensors")], card, ["streamline", "tiny"])
    assert tags == [
        *("transformers", "safetensors", "text-generation", "tiny"),
        *("license:mit", "base_model:a/b", "streamline"),
    ]
