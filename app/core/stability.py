"""How much a compressed model still behaves like the dense one, question by question.

Stability as LLM-Streamline (arXiv 2403.19135, section 4.1) defines it: the share of questions on which both models are
right or both are wrong, each question weighted by how confident the dense model was. The published script adds up the
first k weights, k being the number of such questions, instead of those questions' own weights; this is the definition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
"""Bootstrap resamples of the questions; the interval is that of the middle 95 %."""

GROUPS = 10
"""Groups of questions by confidence at most."""

_LEAST_IN_GROUP = 10
_AT_ONCE = 1 << 20  # drawn questions that exist at one time

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Answer:
    """What one model made of one question.

    Attributes:
        score: 1 for right and 0 for wrong; what lies between is a grade (ROUGE).
        nll: mean negative log-likelihood in nats per token of each option; empty where there are no options.
        preference: of each option, what the choice is made by, in nats: the highest is chosen.
    """

    score: float
    nll: tuple[float, ...] = ()
    preference: tuple[float, ...] = ()


@dataclass(frozen=True)
class Interval:
    """A value and the middle 95 % of its bootstrap."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    def to_json(self) -> dict[str, float]:
        """Return plain JSON data."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Flips:
    """Questions of which the verdict changed.

    Attributes:
        right_to_wrong: questions that only the dense model has right.
        wrong_to_right: questions that only the pruned model has right.
        rate: both, as a share of all questions.
        confident_flipped: the share that flipped among the half of the questions that the dense model is most
            confident about; None without options.
    """

    right_to_wrong: int
    wrong_to_right: int
    rate: Interval
    confident_flipped: float | None


@dataclass(frozen=True)
class Group:
    """Questions that the dense model was about equally confident about.

    Attributes:
        confidence: mean over the questions, as `confidence` gives it.
        questions: how many.
        agreement: share on which both models are right or both are wrong.
    """

    confidence: float
    questions: int
    agreement: float


@dataclass(frozen=True)
class Comparison:
    """Two models on the same questions of one task.

    Attributes:
        questions: how many.
        accuracy: mean score of ``dense`` and ``pruned``.
        stderr: standard error of each, from the sample standard deviation; None for a single question.
        stability: None where there are no two options to be confident about.
        flips: None where answers are graded.
        kl: mean over questions of KL(dense || pruned) in nats between the softmaxes of the preferences; None where
            there are no two options.
        by_confidence: the questions in groups of equal size, from those the dense model was least confident about on;
            empty without options, where answers are graded, or for fewer questions than make two groups.
        resampled: of each bootstrap resample [RESAMPLES]: ``stability``, ``flip_rate``, ``dense`` and ``pruned``
            (the accuracies), so that several tasks can be averaged with an interval.
    """

    questions: int
    accuracy: Mapping[str, float]
    stderr: Mapping[str, float | None]
    stability: Interval | None
    flips: Flips | None
    kl: float | None
    by_confidence: Sequence[Group]
    resampled: Mapping[str, Floats] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data, without the resamples."""
        flips = self.flips
        return {
            "questions": self.questions,
            "accuracy": {**self.accuracy, "stderr": dict(self.stderr)},
            "stability": None if self.stability is None else self.stability.to_json(),
            "flips": None
            if flips is None
            else {
                "right_to_wrong": flips.right_to_wrong,
                "wrong_to_right": flips.wrong_to_right,
                "confident_flipped": flips.confident_flipped,
            },
            "flip_rate": None if flips is None else flips.rate.to_json(),
            "kl": self.kl,
            "by_confidence": [asdict(group) for group in self.by_confidence],
        }


def confidence(nll: Iterable[Sequence[float]]) -> Floats:
    """Return the population standard deviation over the options of each question's mean token NLL [questions]."""
    return np.array([np.std(options) for options in nll], dtype=np.float64)


def weights(confidences: Floats) -> Floats:
    """Return the softmax over questions of the dense model's confidence [questions]; they add up to 1."""
    exponentials = np.exp(confidences - confidences.max())
    normalised: Floats = exponentials / exponentials.sum()
    return normalised


def stability(confidences: Floats, dense_right: Bools, pruned_right: Bools) -> float:
    """Return the summed weights of the questions that both models have right or both have wrong: 0 to 1.

    Args:
        confidences: of the dense model, as `confidence` gives them [questions].
        dense_right: whether the dense model has each question right [questions].
        pruned_right: the same of the pruned model.
    """
    weight = weights(confidences)
    # Over the same sum, and in the same order, so that all questions together are 1 and not a rounding beside it.
    return float((weight * (dense_right == pruned_right)).sum() / weight.sum())


def compare(dense: Sequence[Answer], pruned: Sequence[Answer], *, seed: int = 0) -> Comparison:
    """Compare two models' answers to the same questions, in the same order.

    Args:
        dense: one answer per question, at least one.
        pruned: the same questions, with as many options each.
        seed: of the bootstrap.

    Raises:
        ValueError: no questions, or not the same.
    """
    if not dense or len(dense) != len(pruned):
        raise ValueError(f"{len(dense)} answers of the dense model and {len(pruned)} of the pruned one")
    if any(
        len(a.nll) != len(b.nll) or len(a.preference) != len(b.preference) for a, b in zip(dense, pruned, strict=True)
    ):
        raise ValueError("the two models were given different numbers of options")
    scores = {
        name: np.array([answer.score for answer in answers], dtype=np.float64)
        for name, answers in (("dense", dense), ("pruned", pruned))
    }
    graded = any(bool(np.any((values != 0) & (values != 1))) for values in scores.values())
    options = all(len(answer.nll) > 1 for answer in dense)
    certain = confidence([answer.nll for answer in dense]) if options else None
    same = scores["dense"] == scores["pruned"]
    resampled = _resample(scores, None if graded else same, certain, seed)
    return Comparison(
        questions=len(dense),
        accuracy={name: float(values.mean()) for name, values in scores.items()},
        stderr={name: _stderr(values) for name, values in scores.items()},
        stability=None
        if certain is None or graded
        else interval_of(stability(certain, scores["dense"] == 1, scores["pruned"] == 1), resampled["stability"]),
        flips=None if graded else _flips(scores, certain, resampled["flip_rate"]),
        kl=_mean_kl(dense, pruned) if options else None,
        by_confidence=() if certain is None or graded else _by_confidence(certain, same),
        resampled=resampled,
    )


@dataclass(frozen=True)
class Mean:
    """Several tasks together, each counting the same.

    Attributes:
        accuracy: mean accuracy of ``dense`` and ``pruned``.
        stability: over the tasks that have one.
        retained_accuracy: mean accuracy pruned / dense; None where the dense model has nothing right.
        flip_rate: over the tasks that have one.
    """

    accuracy: Mapping[str, float]
    stability: Interval | None
    retained_accuracy: Interval | None
    flip_rate: Interval | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        optional = {
            name: None if (value := getattr(self, name)) is None else value.to_json()
            for name in ("stability", "retained_accuracy", "flip_rate")
        }
        return {"accuracy": dict(self.accuracy), **optional}


def mean_of(tasks: Sequence[Comparison]) -> Mean:
    """Average tasks, of which there is at least one; each interval is that of the averaged resamples."""
    accuracy = {name: float(np.mean([task.accuracy[name] for task in tasks])) for name in ("dense", "pruned")}
    stable = [(task.stability, task.resampled["stability"]) for task in tasks if task.stability is not None]
    flipped = [(task.flips.rate, task.resampled["flip_rate"]) for task in tasks if task.flips is not None]
    return Mean(accuracy, _mean_interval(stable), retained(tasks), _mean_interval(flipped))


def retained(tasks: Sequence[Comparison]) -> Interval | None:
    """Return mean accuracy pruned / dense, or None where the dense model has nothing right."""
    dense, pruned = (float(np.mean([task.accuracy[name] for task in tasks])) for name in ("dense", "pruned"))
    if dense == 0:
        return None
    means = {name: np.mean([task.resampled[name] for task in tasks], axis=0) for name in ("dense", "pruned")}
    drawn = means["dense"] > 0  # a resample without a right answer has no ratio
    return interval_of(pruned / dense, means["pruned"][drawn] / means["dense"][drawn])


def _flips(scores: Mapping[str, Floats], certain: Floats | None, rates: Floats) -> Flips:
    lost = (scores["dense"] == 1) & (scores["pruned"] == 0)
    won = (scores["dense"] == 0) & (scores["pruned"] == 1)
    flipped = lost | won
    confident = None if certain is None else float(flipped[certain >= np.median(certain)].mean())
    return Flips(int(lost.sum()), int(won.sum()), interval_of(float(flipped.mean()), rates), confident)


def _by_confidence(certain: Floats, same: Bools) -> tuple[Group, ...]:
    count = min(GROUPS, len(certain) // _LEAST_IN_GROUP)
    if count < 2:
        return ()
    # Stable, so that equally confident questions stay in the order in which they were asked.
    parts = np.array_split(np.argsort(certain, kind="stable"), count)
    return tuple(Group(float(certain[part].mean()), len(part), float(same[part].mean())) for part in parts)


def _resample(scores: Mapping[str, Floats], same: Bools | None, certain: Floats | None, seed: int) -> dict[str, Floats]:
    """Draw the questions anew with replacement, the same draw for both models, and return each draw's values."""
    count = len(scores["dense"])
    random = np.random.default_rng(seed)
    exponentials = None if certain is None else np.exp(certain - certain.max())
    parts: dict[str, list[Floats]] = {}
    step = max(1, _AT_ONCE // count)
    for start in range(0, RESAMPLES, step):
        drawn = random.integers(count, size=(min(step, RESAMPLES - start), count))
        for name, values in scores.items():
            parts.setdefault(name, []).append(values[drawn].mean(axis=1))
        if same is not None:
            parts.setdefault("flip_rate", []).append(1 - same[drawn].mean(axis=1))
        if same is not None and exponentials is not None:
            weight = exponentials[drawn]
            parts.setdefault("stability", []).append((weight * same[drawn]).sum(axis=1) / weight.sum(axis=1))
    return {name: np.concatenate(values) for name, values in parts.items()}


def interval_of(value: float, resampled: Floats) -> Interval:
    """Return a value with the middle 95 % of its bootstrap resamples."""
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Interval(value, float(low), float(high))


def _mean_interval(parts: Sequence[tuple[Interval, Floats]]) -> Interval | None:
    if not parts:
        return None
    value = float(np.mean([interval.value for interval, _ in parts]))
    return interval_of(value, np.mean([resampled for _, resampled in parts], axis=0))


def _stderr(scores: Floats) -> float | None:
    return float(scores.std(ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else None


def _mean_kl(dense: Sequence[Answer], pruned: Sequence[Answer]) -> float:
    divergences = []
    for a, b in zip(dense, pruned, strict=True):
        p, q = _log_softmax(a.preference), _log_softmax(b.preference)
        divergences.append(float((np.exp(p) * (p - q)).sum()))
    return float(np.mean(divergences))


def _log_softmax(values: Sequence[float]) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    shifted = array - array.max()
    normalised: Floats = shifted - np.log(np.exp(shifted).sum())
    return normalised
