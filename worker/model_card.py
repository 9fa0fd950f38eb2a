"""The model card of a published checkpoint: what it is, what was measured, how it came about, how to use it.

It names no job and no time, so that publishing again what a job has made is the same commit. Measured speeds are in
it, which is why the checkpoint's hash leaves it out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from huggingface_hub import EvalResult, ModelCardData

from app.core.windows import runs
from app.report import quantities
from app.report.plots.windows import named

_LICENCE_FIELDS: Final = ("license", "license_name", "license_link", "language")
_CONTENTS: Final = {
    "none": "nothing in their place",
    "layer": "trained decoder layers in their place",
    "ffn": "one trained feed-forward block in their place",
    "swiglu": "the trained MLP half of one block in their place",
    "linear_residual": "one linear map, fitted in closed form, in their place",
    "linear_merged": "a linear map, fitted in closed form and folded into the layer before, in their place",
}


_ELSEWHERE: Final = (("output", "repo"), ("evaluation", "task_data"))  # in the title, and under the lineage


@dataclass(frozen=True)
class CardFacts:
    """What a card is made from.

    Attributes:
        spec: the resolved request.
        report: of the newest form.
        gates: each as {"name", "limit", "value", "passed"}.
        base: the dense model's own card metadata; empty where it has none.
        names: what people call the data sets, by their ids.
        custom_code: whether the checkpoint ships a modelling file.
    """

    spec: Mapping[str, Any]
    report: Mapping[str, Any]
    gates: Sequence[Mapping[str, Any]]
    base: Mapping[str, Any]
    names: Mapping[str, str]
    custom_code: bool

    @property
    def texts(self) -> Mapping[str, Any]:
        """Perplexities by what people call the text."""
        return self._called((self.report.get("evaluation") or {}).get("perplexity") or {})

    @property
    def tasks(self) -> Mapping[str, Any]:
        """Measured tasks by what people call them: a task of one's own by its file."""
        return self._called((self.report.get("evaluation") or {}).get("tasks") or {})

    def _called(self, measured: Mapping[str, Any]) -> Mapping[str, Any]:
        """By names instead of ids, and by both where several files have one name."""
        names = Counter(self.names.get(id_, id_) for id_ in measured)
        called = {id_: self.names.get(id_, id_) for id_ in measured}
        return {name if names[name] == 1 else f"{name} ({id_})": measured[id_] for id_, name in called.items()}


def model_card(facts: CardFacts) -> str:
    """The README.md: front matter as the Hub reads it, then Markdown."""
    parts = [_title(facts), _results(facts), _use(facts), _recipe(facts), _lineage(facts), _limits(facts)]
    return f"---\n{_metadata(facts).to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _metadata(facts: CardFacts) -> ModelCardData:
    carried = {name: facts.base[name] for name in _LICENCE_FIELDS if facts.base.get(name)}
    datasets = [facts.names.get(name, name) for name in _datasets(facts.spec)]
    kind = facts.spec["replacement"]["kind"]
    more = ["custom_code"] if facts.custom_code else []
    return ModelCardData(
        **carried,
        base_model=facts.spec["model"]["repo"],
        base_model_relation="finetune",  # the nearest of what the Hub knows: adapter, finetune, merge, quantized
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["streamline", "layer-pruning", "compressed", f"replacement:{kind}", *more],
        datasets=[re.sub(r"[^\w./-]+", "-", name) for name in datasets] or None,
        model_name=facts.spec["output"]["repo"].rpartition("/")[2],
        eval_results=list(_eval_results(facts)) or None,
    )


def _datasets(spec: Mapping[str, Any]) -> list[str]:
    named_sets = [spec["calibration"]["dataset"], *(spec["evaluation"]["perplexity"] or ())]
    return [name for name in dict.fromkeys(named_sets) if not name.startswith("builtin:")]


def _eval_results(facts: CardFacts) -> Iterable[EvalResult]:
    def result(task: str, dataset: str, metric: str, name: str, value: float | None) -> Iterable[EvalResult]:
        if value is not None:
            yield EvalResult(
                task_type=task, task_name=task.replace("-", " ").capitalize(), dataset_type=_slug(dataset),
                dataset_name=dataset, metric_type=metric, metric_name=name, metric_value=float(f"{value:.6g}"),
            )  # fmt: skip

    for text, values in facts.texts.items():
        yield from result("text-generation", text, "perplexity", "Perplexity", values["pruned"])
        yield from result(
            "text-generation", text, "perplexity_ratio", "Perplexity over the dense model's", values["ratio"]
        )
    for task, values in facts.tasks.items():
        yield from result("multiple-choice", task, "accuracy", "Accuracy", values["accuracy"].get("pruned"))
        stability = (values.get("stability") or {}).get("value")
        yield from result("multiple-choice", task, "stability", "Stability against the dense model", stability)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-") or "text"


def _title(facts: CardFacts) -> str:
    report, repo = facts.report, facts.spec["output"]["repo"]
    removed = " and ".join(named(run) for run in runs(report["removed_layers"] or []))
    total = (report.get("scores") or {}).get("layers")
    kind = _contents(facts.spec)
    smaller = report["metrics"].get("sparsity")
    return (
        f"# {repo.rpartition('/')[2]}\n\n"
        f"`{facts.spec['model']['repo']}` without {removed}{f' of {total}' if total else ''}, with {kind}"
        f"{f': {smaller:.1%} fewer parameters' if smaller is not None else ''}. Made with Streamline by the method of "
        "[LLM-Streamline](https://arxiv.org/abs/2403.19135)."
    )


def _contents(spec: Mapping[str, Any]) -> str:
    replacement, selection = spec["replacement"], spec.get("selection") or {}
    told = _CONTENTS.get(replacement["kind"], "a replacement in their place")
    if replacement["kind"] == "layer" and (replacement.get("layers") or 1) == 1:
        told = "one trained decoder layer in their place"
    several = (selection.get("windows") or 1) * (selection.get("rounds") or 1) > 1
    return told.replace("in their place", "in the place of each run") if several else told


def _results(facts: CardFacts) -> str:
    metrics, rows = facts.report["metrics"], []
    rows += [
        (f"perplexity, {text}", *(quantities.digits(values[side]) for side in ("dense", "cut", "pruned")))
        for text, values in facts.texts.items()
    ]
    for task, values in facts.tasks.items():
        accuracy = values["accuracy"]
        rows.append((f"accuracy, {task}", quantities.percent(accuracy.get("dense")), "",
                     quantities.percent(accuracy.get("pruned"))))  # fmt: skip
        if stability := values.get("stability"):
            rows.append((f"stability, {task}", "", "", quantities.digits(stability.get("value"))))
    for name, title, form in (
        ("parameters", "parameters", quantities.count),
        ("checkpoint_bytes", "weight files", quantities.size),
        ("flops_per_token", "FLOPs per token", quantities.count),
        ("peak_memory_bytes", "peak memory", quantities.size),
        ("decode_tokens_per_second", "decoded tokens/s", _rate),
        ("prefill_tokens_per_second", "prompt tokens/s", _rate),
    ):
        if pair := metrics.get(name):
            rows.append((title, form(pair["dense"]), "", form(pair["pruned"])))
    found = ["## Measured", _table(("", "dense", "only cut", "this model"), rows), _measured_on(facts)]
    if facts.gates:
        judged = [
            (gate["name"], quantities.digits(gate["limit"]), quantities.digits(gate["value"]),
             "passed" if gate["passed"] else "missed")
            for gate in facts.gates
        ]  # fmt: skip
        found.append(_table(("gate", "limit", "value", ""), judged))
    return "\n\n".join(part for part in found if part)


def _rate(value: float | None) -> str:
    return quantities.digits(value, quantities.UNKNOWN)


def _measured_on(facts: CardFacts) -> str:
    benchmark, environment = facts.report.get("benchmark") or {}, facts.report["environment"]
    said = "“Only cut” is the same model without those layers and with nothing put in."
    if settings := benchmark.get("settings"):
        first = settings[0]
        said += (
            f" Speed: {environment['device_name']} ({benchmark['device']}, {benchmark['dtype']}, "
            f"{benchmark['threads']} threads), {benchmark['backend']}, batch size {first['batch_size']}, prompts of "
            f"{first['prompt_tokens']} tokens, median of {benchmark['repeats']} interleaved rounds."
        )
    return _plain(said)


def _use(facts: CardFacts) -> str:
    repo, trust = facts.spec["output"]["repo"], ", trust_remote_code=True" if facts.custom_code else ""
    serve = "" if facts.custom_code else f"vllm serve {repo}\n"
    note = "\n\nThe checkpoint ships its modelling code (`modeling_streamline.py`)." if facts.custom_code else ""
    return (
        "## Use\n\nWith `HF_ENDPOINT` set to the service that published it:\n\n"
        f"```sh\nhf download {repo}\n{serve}```\n\n"
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{repo}", dtype="auto"{trust})\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n```{note}'
    )


def _recipe(facts: CardFacts) -> str:
    rows = []
    for part in ("target", "scoring", "selection", "replacement", "healing", "calibration", "evaluation", "output"):
        fields = facts.spec.get(part) or {}
        said = ", ".join(
            f"{name} {_value(value, facts.names)}"
            for name, value in fields.items()
            if value not in (None, [], {}) and (part, name) not in _ELSEWHERE
        )
        if said:
            rows.append((part, said))
    return f"## Recipe\n\n{_table(('', ''), rows)}"


def _value(value: Any, names: Mapping[str, str]) -> str:
    if isinstance(value, list):
        return " ".join(_value(each, names) for each in value)
    return f"{value:g}" if isinstance(value, float) else names.get(str(value), str(value))


def _lineage(facts: CardFacts) -> str:
    lineage = facts.report.get("lineage")
    if not lineage:
        return ""
    rows = [("model", lineage["model"]["name"], lineage["model"]["revision"])]
    if lineage["model"]["hash"]:
        rows.append(("model, all files", "sha256", lineage["model"]["hash"]))
    rows += [
        (f"data, {facts.names.get(name, name)}", "sha256", digest or "") for name, digest in lineage["data"].items()
    ]
    rows += [("code", "sha256", lineage["code"]), ("seed", "", str(lineage["seed"]))]
    versions = facts.report["environment"]["versions"]
    rows += [(name, "version", versions[name]) for name in ("torch", "transformers") if versions.get(name)]
    intro = "On the same kind of processor the same model, data, recipe and seed give the same bytes."
    return f"## Lineage\n\n{intro}\n\n{_table(('', '', ''), rows)}"


def _limits(facts: CardFacts) -> str:
    held_out = (facts.report.get("evaluation") or {}).get("held_out")
    said = [
        "What the dense model gets wrong, this one does too. Removing layers costs long and exact generation more than "
        "perplexity and multiple choice show: judge it on your own prompts."
    ]
    if held_out:
        said.append("Perplexity was measured on a held-out part of the calibration text, not on a text of its own.")
    if not facts.tasks:
        said.append("No task was measured.")
    return "## Limits\n\n" + " ".join(said)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is: no markup, no end of a cell."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))
