"""What the card of a checkpoint promises: the Hub reads it, its numbers are the report's, and it repeats itself."""

import dataclasses
from typing import Any

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import EvalResult

from app.hub.card import parse_card
from tests.unit.app.report.reports import JOB, full
from worker.model_card import CardFacts, model_card

SPEC: dict[str, Any] = JOB["spec"] | {"output": {"repo": "team/small", "format": "auto", "dtype": "bfloat16"}}
NAMES = {"ds-a74db30d90bb843181a4ba14": "tiny stories | test", "ds-d267221565bccba402de7cc9": "train.jsonl"}


@pytest.fixture
def facts() -> CardFacts:
    base = {"license": "apache-2.0", "language": ["en"], "tags": ["theirs"], "pipeline_tag": "fill-mask"}
    return CardFacts(SPEC, full(), JOB["gates"], base, NAMES, custom_code=False)


def test_the_hub_reads_the_metadata_and_the_licence_is_carried_over(facts: CardFacts) -> None:
    data = ModelCard(model_card(facts)).data
    assert (data.license, data.language) == ("apache-2.0", ["en"])
    assert (data.base_model, data.base_model_relation) == ("demo/stories-24l", "finetune")
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    assert {"streamline", "layer-pruning", "replacement:layer"} <= set(data.tags)
    assert data.datasets == ["train.jsonl", "tiny-stories-test"]
    assert parse_card(model_card(facts)).metadata["license"] == "apache-2.0", "our own hub reads it too"


def test_a_model_without_a_licence_gets_none(facts: CardFacts) -> None:
    assert ModelCard(model_card(dataclasses.replace(facts, base={}))).data.license is None


def test_the_model_index_holds_the_measured_values(facts: CardFacts) -> None:
    data = ModelCard(model_card(facts)).data
    assert data.model_name == "small"
    results: dict[tuple[str, str], EvalResult] = {
        (result.metric_type, result.dataset_name): result for result in data.eval_results
    }
    assert results["perplexity", "tiny stories | test"].metric_value == pytest.approx(13.2513)
    assert results["accuracy", "piqa"].metric_value == 0.58
    assert results["stability", "story_cloze"].metric_value == 0.83


def test_the_body_has_the_table_the_lineage_and_lines_that_can_be_pasted(facts: CardFacts) -> None:
    body = ModelCard(model_card(facts)).text
    assert "without layers 5 to 12 of 24, with one trained decoder layer in their place: 26.1% fewer" in body
    assert "| perplexity, tiny stories \\| test | 12.9 | 19.6 | 13.3 |" in body
    assert "| data, train.jsonl | sha256 | " + "cd" * 32 + " |" in body
    assert "hf download team/small\nvllm serve team/small\n" in body
    assert 'from_pretrained("team/small", dtype="auto")' in body


def test_a_task_of_ones_own_is_called_by_its_files_name(facts: CardFacts) -> None:
    report = full()
    report["evaluation"]["tasks"] = {"ds-1": report["evaluation"]["tasks"]["piqa"]}
    card = model_card(dataclasses.replace(facts, report=report, names={"ds-1": "riddles.jsonl"}))
    assert "| accuracy, riddles.jsonl | 62.0 % |" in card
    assert "ds-1" not in card
    report["evaluation"]["tasks"]["ds-2"] = report["evaluation"]["tasks"]["ds-1"]
    names = {"ds-1": "riddles.jsonl", "ds-2": "riddles.jsonl"}
    card = model_card(dataclasses.replace(facts, report=report, names=names))
    assert "| accuracy, riddles.jsonl (ds-1) | 62.0 % |" in card
    assert "| accuracy, riddles.jsonl (ds-2) | 62.0 % |" in card


def test_own_modelling_code_is_asked_for_and_told(facts: CardFacts) -> None:
    card = model_card(dataclasses.replace(facts, custom_code=True))
    assert "trust_remote_code=True" in card
    assert "vllm serve" not in card
    assert "custom_code" in ModelCard(card).data.tags


def test_a_card_repeats_itself_and_names_no_job_and_no_time(facts: CardFacts) -> None:
    card = model_card(facts)
    assert card == model_card(facts)
    assert JOB["id"] not in card
    assert "2026" not in card
    assert JOB["finished_at"] not in card


def test_a_report_with_gaps_has_a_card(facts: CardFacts) -> None:
    report = full() | {"evaluation": None, "benchmark": None, "lineage": None, "metrics": {"stage_seconds": {}}}
    card = ModelCard(model_card(dataclasses.replace(facts, report=report, gates=[])))
    assert card.data.eval_results is None
    assert "## Lineage" not in card.text
