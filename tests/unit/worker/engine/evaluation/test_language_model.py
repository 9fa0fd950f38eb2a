"""The engine's models give the harness what its own Hugging Face model gives it, however requests are batched."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from torch import Tensor, nn

from worker.engine.decoder import Decoder, load_decoder
from worker.engine.errors import EngineError
from worker.engine.evaluation.definitions import load_task
from worker.engine.evaluation.language_model import LanguageModel
from worker.engine.hidden_states import LayeredModel
from worker.engine.recipe import Over, TaskData
from worker.engine.streamed import load_streamed

LONG = " ".join(f"w{number % 60 + 2}" for number in range(90))  # more than the 64 positions
PAIRS = [
    ("w3 w4 w5", " w6"),
    ("w3 w4 w5", " w7"),  # the same input as the one above
    ("w3 w4 w5", " w8 w9 w10"),
    ("", "w11 w12"),
    ("w20 ", "w21"),  # the space belongs to the option
    (LONG, " w30 w31"),
    ("w2", f" {LONG[:100]}"),
    ("w40 w41 w42 w43 w44 w45", " w46"),
]


def instances(pairs: Sequence[tuple[Any, ...]], kind: str = "loglikelihood") -> list[Instance]:
    return [Instance(kind, {}, pair, number) for number, pair in enumerate(pairs)]


def wrapped(model: LayeredModel, over: Over = "option", sequences: int | None = None) -> LanguageModel:
    def within(size: int, work: Callable[[LayeredModel, int], Any]) -> Any:
        return work(model, sequences or size)

    return LanguageModel(model, within, over, lambda *_: None)


def rows_of_passes(model: LayeredModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sequences of each pass that the model makes from now on."""
    rows: list[int] = []
    plain = model.last_states

    def counted(windows: Tensor, *arguments: Any) -> None:
        rows.append(len(windows))
        plain(windows, *arguments)

    monkeypatch.setattr(model, "last_states", counted)
    return rows


def sums(found: list[tuple[float, bool]]) -> list[float]:
    return [total for total, _ in found]


def test_log_likelihoods_are_those_of_the_harness_own_model(llama: Decoder) -> None:
    own = HFLM(pretrained=llama.model, tokenizer=llama.tokenizer, batch_size=3)
    expected = own.loglikelihood(instances(PAIRS), disable_tqdm=True)
    found = wrapped(llama).loglikelihood(instances(PAIRS))
    assert sums(found) == pytest.approx(sums(expected), abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    texts = [(LONG,), ("w5 w6 w7",)]
    rolling = own.loglikelihood_rolling(instances(texts, "loglikelihood_rolling"), disable_tqdm=True)
    assert wrapped(llama).loglikelihood_rolling(instances(texts)) == pytest.approx(rolling, abs=1e-3)


def test_every_question_gets_the_answer_that_it_gets_from_the_harness_own_model(
    stories_model: Path, shared_data: Path, tmp_path: Path
) -> None:
    """Of a few; `python -m benchmarks.harness` asks all, through the service and by the harness' command line."""
    text = (shared_data / "commonsenseqa.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()[:10]]
    for row in rows:  # as the set has them on the Hub, which the harness' own definition reads
        options = row["question"]["choices"]
        row["choices"] = {name: [option[name] for option in options] for name in ("label", "text")}
        row["question"] = row["question"]["stem"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = {
        "blimp_principle_A_case_1": shared_data / "blimp" / "principle_A_case_1.jsonl",
        "story_cloze": shared_data / "story_cloze.jsonl",
        "commonsense_qa": tmp_path / "rows.jsonl",
    }
    model = load_decoder(stories_model, "cpu")

    def samples(asked: Any) -> dict[str, list[dict[str, Any]]]:
        tasks = {name: load_task(TaskData(name, name, str(path))) for name, path in files.items()}
        found: Any = evaluate(lm=asked, task_dict={"tasks": tasks}, limit=10, bootstrap_iters=0)
        return dict(found["samples"])

    ours, theirs = samples(wrapped(model)), samples(HFLM(model.model, tokenizer=model.tokenizer, batch_size=7))
    for name in files:
        assert len(ours[name]) == 10
        for mine, own in zip(ours[name], theirs[name], strict=True):
            assert (mine["doc_id"], mine["arguments"], mine["acc"]) == (own["doc_id"], own["arguments"], own["acc"])
            assert sums([one[0] for one in mine["resps"]]) == pytest.approx(
                sums([one[0] for one in own["resps"]]), abs=1e-3
            )


def test_batches_of_any_size_give_the_same_in_every_family(any_decoder: Decoder) -> None:
    lengths = [(3, 1), (3, 2), (1, 4), (12, 1), (70, 3), (20, 9)]
    requests = [
        ((f"context {n}", "option"), list(range(2, 2 + before % 60)) * (1 + before // 60), list(range(30, 30 + behind)))
        for n, (before, behind) in enumerate(lengths)
    ]
    alone = [wrapped(any_decoder)._loglikelihood_tokens([request])[0][0] for request in requests]
    for sequences in (1, 3, 50):
        together = wrapped(any_decoder, sequences=sequences)._loglikelihood_tokens(requests)
        assert sums(together) == pytest.approx(alone, abs=1e-4)


def test_options_that_go_on_from_one_context_get_the_same_in_every_family(
    any_decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contexts of several lengths, options of one token and of more, and one that is cut off at the front."""
    lengths = {"a": (40, (1, 3, 6)), "b": (36, (2, 2)), "c": (34, (5, 1, 1)), "d": (5, (2, 3)), "e": (60, (2, 4, 7))}
    requests = [
        ((name, f"{option} of {behind}"), [2 + (7 * place + ord(name)) % 60 for place in range(before)],
         [3 + (11 * place + 5 * option + ord(name)) % 60 for place in range(behind)])
        for name, (before, options) in lengths.items() for option, behind in enumerate(options)
    ]  # fmt: skip
    alone = [wrapped(any_decoder)._loglikelihood_tokens([request])[0][0] for request in requests]
    rows: list[list[int]] = []
    plain = any_decoder.last_states_behind

    def counted(shared: Tensor, owners: Sequence[int], tails: Tensor) -> Tensor:
        rows.append([len(shared), len(tails)])
        return plain(shared, owners, tails)

    monkeypatch.setattr(any_decoder, "last_states_behind", counted)
    for sequences in (1, 50):
        rows.clear()
        together = wrapped(any_decoder, sequences=sequences)._loglikelihood_tokens(requests)
        assert sums(together) == pytest.approx(alone, abs=1e-4)
        assert sum(shared for shared, _ in rows) == 4, "what is cut off at the front begins differently"


def test_a_streamed_model_gives_the_same_in_few_passes(
    tiny_directory: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: Decoder
) -> None:
    streamed = load_streamed(tiny_directory("llama"), "cpu", tmp_path)
    passes = rows_of_passes(streamed, monkeypatch)
    found = wrapped(streamed).loglikelihood(instances(PAIRS))
    assert sums(found) == pytest.approx(sums(wrapped(llama).loglikelihood(instances(PAIRS))), abs=1e-5)
    assert len(passes) <= 6, "at most one for each power of two up to the positions"
    with pytest.raises(EngineError, match="leave those tasks out"):
        wrapped(streamed).generate_until(instances([("w3", {"until": []})]))


def test_options_of_one_token_share_the_pass_of_their_context(llama: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = rows_of_passes(llama, monkeypatch)
    wrapped(llama).loglikelihood(instances([("w3 w4", f" w{number}") for number in range(2, 30)]))
    assert passes == [1]


def test_over_the_prompt_the_mean_is_of_everything_behind_the_first_token(llama: Decoder) -> None:
    model = wrapped(llama, "prompt")
    pair = ("w3 w4 w5", " w8 w9")
    model.loglikelihood(instances([pair, ("w3", " w4")]))
    ids = torch.tensor([llama.tokenizer.encode("".join(pair))])
    logits: Tensor = llama.logits(ids)[0, :-1].double()
    expected = nn.functional.cross_entropy(logits, ids[0, 1:])
    assert model.found[pair].prompt_nll == pytest.approx(float(expected), abs=1e-5)
    assert model.found[pair].tokens == 2


def test_an_option_that_never_fits_is_named(llama: Decoder) -> None:
    with pytest.raises(EngineError, match=r"90 tokens, and the model has 64 positions: 'w2 w3"):
        wrapped(llama).loglikelihood(instances([("", LONG)]))


def test_text_is_written_as_the_harness_own_model_writes_it(llama: Decoder) -> None:
    options = {"until": ["w9"], "do_sample": False, "max_gen_toks": 12}
    asked = [("w3 w4 w5", options), ("w6", options), (LONG, options), ("w7", {**options, "max_gen_toks": 3})]
    own = HFLM(pretrained=llama.model, tokenizer=llama.tokenizer, batch_size=1)
    expected = own.generate_until(instances(asked, "generate_until"), disable_tqdm=True)
    assert wrapped(llama).generate_until(instances(asked, "generate_until")) == expected
    assert wrapped(llama, sequences=1).generate_until(instances(asked, "generate_until")) == expected
