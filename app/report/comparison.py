"""Several jobs side by side: what they did differently, what came of it, and which of them no other one beats.

A field in which two jobs differ is told only where it did something: a loss of a kind that is not trained did nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from app.core.architectures import FITTED_KINDS
from app.core.training_fields import OF_TRAINING

MOST_JOBS: Final = 32
_IGNORED: Final = frozenset({"output.repo", "labels", "gates"})  # what names or judges a run does not change it
_WHERE_THERE: Final = ("replacement.", "healing.", "evaluation.task_data.")
"""What belongs to a choice (a kind, a task) differs between the jobs that made it; the choice itself tells the rest."""
_CHOICES: Final = frozenset({"replacement.kind", "healing.kind"})


@dataclass(frozen=True)
class Entry:
    """One job of a comparison.

    Attributes:
        id: the job's.
        model: repository of its dense model.
        kind: of its replacement.
        repo: repository of its checkpoint; None while there is none.
        state: as the API says.
        verdict: `pass`, `fail`, or None.
        recipe: those fields that differ between the jobs, by dotted name.
        labels: those of the user's labels that differ between the jobs.
        sparsity: share of the parameters that is gone.
        parameters: of the result.
        perplexity_ratio: pruned over dense; over several texts the geometric mean.
        retained_accuracy: mean accuracy of the pruned model over the dense one's.
        stability: mean over the tasks.
        speedup: of decoding.
        speedup_interval: [low, high], 95 %; None where there were not two rounds.
        seconds: of all stages.
        fastest_for_its_quality: no other job has both a better quality and a higher speed.
        smallest_for_its_quality: no other job has both a better quality and fewer parameters.
    """

    id: str
    model: str
    kind: str
    repo: str | None
    state: str
    verdict: str | None
    recipe: Mapping[str, str]
    labels: Mapping[str, str]
    sparsity: float | None
    parameters: int | None
    perplexity_ratio: float | None
    retained_accuracy: float | None
    stability: float | None
    speedup: float | None
    speedup_interval: Sequence[float] | None
    seconds: float | None
    fastest_for_its_quality: bool = False
    smallest_for_its_quality: bool = False


@dataclass(frozen=True)
class Comparison:
    """Jobs in the order in which they were named.

    Attributes:
        fields: the recipe's fields in which they differ.
        entries: the jobs.
        same_texts: whether all perplexities were measured on the same texts; else they say little about each other.
    """

    fields: Sequence[str]
    entries: Sequence[Entry]
    same_texts: bool

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "fields": list(self.fields),
            "same_texts": self.same_texts,
            "jobs": [asdict(entry) for entry in self.entries],
        }


def compare(jobs: Sequence[Mapping[str, Any]]) -> Comparison:
    """Compare jobs, each as the API answers it."""
    recipes = [flattened(_effective(job["spec"])) for job in jobs]
    fields = _differing(recipes)
    labels = [{key: str(value) for key, value in (job["spec"].get("labels") or {}).items()} for job in jobs]
    keys = _differing(labels)
    entries = [
        _entry(
            job,
            {name: recipe.get(name, "") for name in fields},
            {key: of_job[key] for key in keys if key in of_job},
        )
        for job, recipe, of_job in zip(jobs, recipes, labels, strict=True)
    ]
    fast = front([(entry.perplexity_ratio, _negative(entry.speedup)) for entry in entries])
    small = front([(entry.perplexity_ratio, entry.parameters) for entry in entries])
    marked = [
        Entry(**{**asdict(entry), "fastest_for_its_quality": index in fast, "smallest_for_its_quality": index in small})
        for index, entry in enumerate(entries)
    ]
    texts = {tuple(sorted(_metrics(job).get("perplexity", {}).get("dense", {}))) for job in jobs if _metrics(job)}
    return Comparison(fields, marked, len(texts) <= 1)


def _differing(jobs: Sequence[Mapping[str, str]]) -> list[str]:
    """The names under which the jobs have different values, in the order in which they come."""
    names = dict.fromkeys(name for job in jobs for name in job)
    return [name for name in names if len(_values(jobs, name)) > 1]


def _values(jobs: Sequence[Mapping[str, str]], name: str) -> set[str]:
    there = name.startswith(_WHERE_THERE) and name not in _CHOICES
    return {job.get(name, "") for job in jobs if name in job or not there}


def _effective(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The specification without those fields of the replacement that its kind or its loss makes no use of."""
    replacement = spec.get("replacement") or {}
    kind, loss = replacement.get("kind"), str(replacement.get("loss"))
    idle = set() if kind == "layer" else {"layers"}
    if kind in ("none", *FITTED_KINDS):
        idle |= {*OF_TRAINING, "init"}
    if "+" not in loss:
        idle |= {"second_epochs", "second_learning_rate"}
    if "kd" not in loss:
        idle.add("divergence")
    return {**spec, "replacement": {name: value for name, value in replacement.items() if name not in idle}}


def front(points: Iterable[tuple[float | None, float | None]]) -> set[int]:
    """Indices of the points that no other one beats, both coordinates being better when lower (Pareto)."""
    known = [(index, x, y) for index, (x, y) in enumerate(points) if x is not None and y is not None]
    return {index for index, x, y in known if not any((a <= x and b <= y) and (a < x or b < y) for _, a, b in known)}


def flattened(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested fields by dotted name, as text; what is null or empty, and what names or judges a run, is left out."""
    found: dict[str, str] = {}
    for name, each in value.items():
        dotted = prefix + name
        if dotted in _IGNORED or each in (None, [], {}):
            continue
        if isinstance(each, Mapping):
            found |= flattened(each, f"{dotted}.")
        elif isinstance(each, list):
            found[dotted] = ", ".join(map(str, each))
        else:
            found[dotted] = f"{each:g}" if isinstance(each, float) else str(each)
    return found


def mean_stability(metrics: Mapping[str, Any]) -> float | None:
    """The mean stability of a report's metrics, with or without an interval around it."""
    found = metrics.get("stability")
    for name in ("mean", "value"):
        found = found.get(name) if isinstance(found, Mapping) else found
    return float(found) if isinstance(found, int | float) else None


def _metrics(job: Mapping[str, Any]) -> Mapping[str, Any]:
    return (job.get("result") or {}).get("metrics") or {}


def _entry(job: Mapping[str, Any], recipe: Mapping[str, str], labels: Mapping[str, str]) -> Entry:
    metrics = _metrics(job)
    return Entry(
        id=job["id"],
        model=job["spec"]["model"]["repo"],
        kind=(job["spec"].get("replacement") or {}).get("kind") or "",
        repo=(job.get("result") or {}).get("repo"),
        state=job["state"],
        verdict=job.get("verdict"),
        recipe=recipe,
        labels=labels,
        sparsity=metrics.get("sparsity"),
        parameters=(metrics.get("parameters") or {}).get("pruned"),
        perplexity_ratio=metrics.get("perplexity_ratio"),
        retained_accuracy=metrics.get("retained_accuracy"),
        stability=mean_stability(metrics),
        speedup=metrics.get("speedup"),
        speedup_interval=(metrics.get("intervals") or {}).get("speedup"),
        seconds=sum(metrics["stage_seconds"].values()) if metrics.get("stage_seconds") else None,
    )


def _negative(value: float | None) -> float | None:
    return None if value is None else -value
