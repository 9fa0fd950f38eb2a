"""What a model is run on for log-likelihoods: each input once, and inputs that begin alike in one question.

Four options behind an article of 300 tokens are four inputs of 300 tokens, or the article once and what differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

CACHE_BYTES: Final = {"cpu": 256 << 20, "cuda": 2 << 30}
"""Keys and values that a batch of questions may keep."""

_LEAST_SHARED = 32  # tokens: below, a second pass costs more than it saves
_LEAST_SAVED = 1 / 3  # of a question's tokens
_ALIKE = 0.8  # of the longest context in a batch: what is behind is computed once for each option


@dataclass
class Input:
    """Token ids that the model is run on, and the requests that are read off it.

    `given` tokens at the start are context whose hidden states nothing is read off.
    """

    ids: list[int]
    given: int
    requests: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Question:
    """Inputs that begin with the same `given` tokens, of which there is no need to compute more than one."""

    inputs: Sequence[Input]
    given: int

    @property
    def longest(self) -> int:
        """Tokens of its longest input."""
        return max(len(one.ids) for one in self.inputs)

    @property
    def pays(self) -> bool:
        """Whether computing the beginning once saves enough."""
        saved = (len(self.inputs) - 1) * self.given
        return self.given >= _LEAST_SHARED and saved >= _LEAST_SAVED * sum(len(one.ids) for one in self.inputs)


def questions(inputs: Sequence[Input]) -> tuple[list[Question], list[Input]]:
    """Return the questions whose beginning is worth sharing, by its falling length, and all other inputs as before."""
    found: dict[tuple[int, ...], list[Input]] = {}
    for one in inputs:
        found.setdefault(tuple(one.ids[: one.given]), []).append(one)
    shared = [question for key, alike in found.items() if (question := Question(alike, len(key))).pays]
    apart = {id(one) for question in shared for one in question.inputs}
    return sorted(shared, key=lambda question: -question.given), [one for one in inputs if id(one) not in apart]


def batches(questions: Sequence[Question], tokens_at_once: int, tokens_kept: int) -> Iterator[Sequence[Question]]:
    """Cut questions of falling length into batches.

    Args:
        questions: as from `questions`.
        tokens_at_once: most tokens of a pass.
        tokens_kept: most tokens whose keys and values exist at one time.
    """
    batch: list[Question] = []
    for question in questions:
        if batch and (
            question.given < _ALIKE * batch[0].given or _over([*batch, question], tokens_at_once, tokens_kept)
        ):
            yield batch
            batch = []
        batch.append(question)
    if batch:
        yield batch


def _over(batch: Sequence[Question], tokens_at_once: int, tokens_kept: int) -> bool:
    shared = batch[-1].given
    rows, longest = sum(len(question.inputs) for question in batch), max(question.longest for question in batch)
    return max(len(batch) * shared, rows * (longest - shared)) > tokens_at_once or rows * longest > tokens_kept
