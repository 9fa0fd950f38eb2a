"""The report as one page that needs nothing else: it can be saved, mailed and printed.

No script, no request, every word escaped; a policy in the page and in the answer's header lets nothing else happen.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import ChainableUndefined, Environment, FileSystemLoader, select_autoescape

from app.core.speedup import in_words as speedup_in_words
from app.core.windows import runs
from app.report import quantities
from app.report.comparison import mean_stability
from app.report.plots import drawn, stages
from app.report.plots.windows import named
from app.report.versions import upgraded

_TEMPLATES: Final = Path(__file__).parent / "templates"
PLOT_STYLE: Final = (_TEMPLATES / "plots.css").read_text(encoding="utf-8")
"""What the plots need, on whatever page they stand."""
_STYLE: Final = PLOT_STYLE + (_TEMPLATES / "report.css").read_text(encoding="utf-8")
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; base-uri 'none'; form-action 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": f"{_POLICY}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""What the page is to be answered with."""

PAGE_HASH: Final = hashlib.sha256(
    b"\0".join(
        path.read_bytes()
        for path in sorted(Path(__file__).parent.rglob("*"))
        if path.suffix in {".py", ".html", ".css"}
    )
).hexdigest()
"""Changes with everything that draws the page, so that a cached one is not taken for the newest."""


@dataclass(frozen=True)
class Measure:
    """One of the large numbers at the top."""

    name: str
    value: str
    detail: str
    good: bool | None = None


_RECIPE: Final = (
    "model", "target", "scoring", "selection", "replacement", "healing", "calibration", "evaluation", "benchmark",
    "output", "seed",
)  # fmt: skip


def render(report: Mapping[str, Any], job: Mapping[str, Any], names: Mapping[str, str] | None = None) -> str:
    """The page of a report.

    Args:
        report: of any version.
        job: the job as the API answers it: id, verdict, gates, spec, result, times.
        names: what people call the data sets, by their ids.

    Raises:
        UnknownVersion: the report is newer than this service.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(quantities, name) for name in ("count", "size", "seconds", "ratio", "percent", "digits", "moment")
    }
    found = _with_names(upgraded(report), names or {})
    return environment.get_template("report.html").render(
        policy=_POLICY,
        style=_STYLE,
        job=job,
        report=found,
        layers=_layers(found),
        cut=" and ".join(named(run) for run in runs(found.get("removed_layers") or [])) or "no layers",
        measures=_measures(found),
        sections=drawn(found),
        stages=stages.draw(found),
        recipe=_recipe(job["spec"], names or {}),
        missing=_missing(found),
    )


def _with_names(report: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The report with its data sets called by their names, where two of them do not share one."""
    unique = {id_: name for id_, name in names.items() if list(names.values()).count(name) == 1}

    def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
        taken = values.keys()  # of two tasks of one name none may vanish
        return {key if unique.get(key) in taken else unique.get(key, key): value for key, value in values.items()}

    found = dict(report)
    if evaluation := report.get("evaluation"):
        texts, tasks = renamed(evaluation["perplexity"]), renamed(evaluation.get("tasks") or {})
        found["evaluation"] = {**evaluation, "perplexity": texts, "tasks": tasks}
    if lineage := report.get("lineage"):
        found["lineage"] = {**lineage, "data": renamed(lineage["data"])}
    return found


def _layers(report: Mapping[str, Any]) -> list[str]:
    """The strip of layers of the result: `kept`, `gone` and, where something was put in, `new`, in order."""
    total = (report.get("scores") or {}).get("layers") or 0
    removed = set(report.get("removed_layers") or [])
    if known := (report.get("selection") or {}).get("layers"):
        return strip_of(known, total)
    replacement = (report.get("recipe") or {}).get("replacement") or {}
    adds = replacement.get("kind") not in (None, "none", "linear_merged")
    strip: list[str] = []
    for layer in range(total):
        strip.append("gone" if layer in removed else "kept")
        if adds and layer in removed and layer + 1 not in removed:
            strip += ["new"] * (replacement.get("layers") or 1)
    return strip


def strip_of(layers: Sequence[int | None], total: int) -> list[str]:
    """The strip from the dense model's number of each block of the result, None for what was put in."""
    strip: list[str] = []
    following, new = 0, 0
    for layer in [*layers, total]:
        if layer is None:
            new += 1
            continue
        strip += [*["gone"] * (layer - following), *["new"] * new, "kept"]
        following, new = layer + 1, 0
    return strip[:-1]


def _measures(report: Mapping[str, Any]) -> list[Measure]:
    metrics = report["metrics"]
    found = []
    if parameters := metrics.get("parameters"):
        smaller = f"{quantities.count(parameters['dense'])} → {quantities.count(parameters['pruned'])}"
        found.append(Measure("parameters", quantities.change(quantities.between(parameters)), smaller))
    if (perplexity := metrics.get("perplexity")) and perplexity["dense"]:
        name = next(iter(perplexity["dense"]))
        both = " → ".join(quantities.digits(perplexity[side][name]) for side in ("dense", "pruned"))
        others = f", mean of {len(perplexity['dense'])} texts" if len(perplexity["dense"]) > 1 else ""
        found.append(Measure("perplexity", quantities.ratio(metrics.get("perplexity_ratio")), f"{both}{others}"))
    if retained := metrics.get("retained_accuracy"):
        found.append(Measure("accuracy retained", quantities.percent(retained), "mean over the tasks"))
    if (stability := mean_stability(metrics)) is not None:
        found.append(Measure("stability", quantities.digits(stability), "mean over the tasks"))
    if decode := metrics.get("decode_tokens_per_second"):
        # The rates' own medians may say another thing than the median of the rounds' ratios, on a machine that is busy.
        rates = " → ".join(quantities.digits(decode.get(side), "?") for side in ("dense", "pruned"))
        speedup = metrics.get("speedup")
        value = quantities.UNKNOWN if speedup is None else quantities.ratio(speedup)
        interval = (metrics.get("intervals") or {}).get("speedup")
        rounds = (report.get("benchmark") or {}).get("repeats")
        paired = "" if speedup is None else f"{speedup_in_words(interval, rounds)}; each by itself: "
        found.append(Measure("decoding speed", value, f"{paired}{rates} tokens/s"))
    if (memory := metrics.get("peak_memory_bytes")) and memory.get("dense"):
        both = " → ".join(quantities.size(memory.get(side)) for side in ("dense", "pruned"))
        found.append(Measure("peak memory", quantities.change(quantities.between(memory)), both))
    return found


def _missing(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    benchmark = report.get("benchmark") or {}
    found = [(f"speed of {name}", reason) for name, reason in (benchmark.get("not_measured") or {}).items()]
    parts = {
        "evaluation": "the evaluation did not run",
        "benchmark": "the benchmark did not run",
        "training": "nothing was trained: the layers were only cut",
        "scores": "the windows were not scored",
    }
    found += [(name, reason) for name, reason in parts.items() if not report.get(name)]
    if (evaluation := report.get("evaluation")) is not None:
        found += (evaluation.get("not_measured") or {}).items()
        if not evaluation.get("tasks"):
            found.append(("accuracy and stability", "the request names no tasks (evaluation.tasks)"))
        if not report.get("samples"):
            found.append(("sample texts", "a streamed model would read all its weights for every token"))
    return found


def _recipe(spec: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The specification part by part, as (field, value); what is null or empty is left out.

    Gates stand elsewhere, and so do the hashes of the tasks' rows.
    """
    found = []
    for part in _RECIPE:
        fields = spec.get(part)
        fields = fields if isinstance(fields, Mapping) else {"": fields}
        said = [
            (name, _value(value, names))
            for name, value in fields.items()
            if value not in (None, [], {}) and name != "task_data"
        ]
        if said:
            found.append((part, said))
    return found


def _value(value: Any, names: Mapping[str, str]) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_value(each, names) for each in value)
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else names.get(str(value), str(value))
