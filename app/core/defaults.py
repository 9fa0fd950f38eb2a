"""Every default of a request, in one place, each with the reason for its value.

The service resolves a request with these before it stores it; the command line of the engine does the same.
"""

from __future__ import annotations

from typing import Final, Literal

from app.core import architectures
from app.core.architectures import BlockKind, Config, OutputFormat

METRIC: Final = "cosine"
"""LLM-Streamline (arXiv 2403.19135), section 3.1: the other metrics are biased by the norm's growth or by the data."""

SCORING_SEQUENCES: Final = 64
"""The best window is stable under few samples (LLM-Streamline, appendix); 64 windows take seconds."""

ADAPTIVE: Final = True
"""Scoring ends early once a bootstrap interval tells the best window from the runner-up; 8 sequences at least."""

MODE: Final = "one_shot"
"""LLM-Streamline removes one window at once; several windows or rounds pay for a replacement each (see the plan)."""

WINDOWS: Final = 1
"""LLM-Streamline, section 3.1: one contiguous window, because every replacement gives parameters back."""

ROUNDS: Final = 2
"""Of iterative selection: the fewest, since each round costs a replacement and a training of its own. That scoring anew
helps is IteRABRe's (arXiv 2503.06291) and Prune&Comp's (arXiv 2507.18212) finding, who go one layer at a time."""

LONGEST_SEQUENCE: Final = 2048
"""Tokens per window at most: what LLM-Streamline and its followers calibrate with."""

TRAINED_SEQUENCE_LENGTH: Final = {"stories-24l": 256}
"""Models that were trained on shorter windows than their config has positions for, by the last part of their name.

The bundled model has 512 positions but saw 256-token windows only; past those its states are untrained noise.
"""

KIND: Final[BlockKind] = "layer"
"""LLM-Streamline, table 2: one decoder layer trained with MSE keeps most of the accuracy, and loads anywhere."""

INIT: Final = "best"
"""Inheriting the pruned layer with the lowest held-out error, not the first: see benchmarks/quality.py."""

FITTED_INIT: Final = "closed_form"
"""What kinds start from that are fitted in closed form: the fit is all there is to them."""

LOSS: Final = "mse"
"""LLM-Streamline, section 3.2: needs the lightweight network only, a tenth of the price of a loss through the model."""

DIVERGENCE: Final = "forward"
"""Of `kd`: KL(dense || pruned), the classic (arXiv 1503.02531)."""

SECOND_EPOCHS: Final = 1
"""Passes of the second step of a two-step loss; it starts close to its goal and each pass is dear."""

SECOND_LEARNING_RATE_SHARE: Final = 0.3
"""Of the first step's peak: the second one is to refine what is there."""

EPOCHS: Final = 4
"""Passes over the training tokens: on the bundled model 4 end at perplexity 13.27, 2 at 13.61."""

TRAINING_TOKENS: Final = 1_000_000
"""Distinct training tokens, an upper bound: a light replacement saturates long before this on hidden states."""

SELF_TEXT: Final = "builtin:self"
"""Calibration without any data: text sampled from the model itself (in the spirit of LLM-QAT, arXiv 2305.17888)."""

SELF_TEXT_TOKENS: Final = 131_072
"""Tokens sampled at most when no data set is named; sampling is the slow part."""

HEALING_RANK: Final = 8
"""LLM-Pruner (arXiv 2305.11627), and with it those who compare with it: rank 8 on every linear map."""

HEALING_ALPHA: Final = 16.0
"""LLM-Pruner's: adapters are scaled by alpha / rank = 2."""

HEALING_EPOCHS: Final = 2
"""LLM-Pruner's."""

TEXT_COLUMN: Final = "text"
"""The field of a JSONL row that holds the document."""

BENCHMARK_BATCH_SIZES: Final = (1,)
"""One stream: the case where depth pruning pays at once."""

BENCHMARK_PROMPT_TOKENS: Final = 512
"""Prompt length, shrunk where the model has fewer positions."""

BENCHMARK_NEW_TOKENS: Final = 128
"""Generated tokens, shrunk where the model has fewer positions."""

LEAST_NEW_TOKENS: Final = 2
"""The first token belongs to the prefill; a decode rate needs one more."""

BENCHMARK_BACKEND: Final = "transformers"
"""What generates: every family that can be compressed runs in it, and nothing more has to be installed."""

BENCHMARK_REPEATS: Final = 5
"""Interleaved rounds; the median of five survives two disturbed ones."""

TASK_LIMIT: Final = 500
"""Questions per task: the standard error of an accuracy is then 2.2 points at most."""

OVER: Final = "option"
"""Confidence over the option's tokens given the context: what the question is about, not how it is worded."""

OUTPUT_FORMAT: Final[OutputFormat] = "auto"
"""The smallest checkpoint; `native` on request."""

SEED: Final = 0
"""Same request, same bytes."""

_TOKENS_PER_BATCH = 2048
_PAPER_LEARNING_RATE = 2e-4
_HEALING_LEARNING_RATE = 1e-4
_PAPER_HIDDEN_SIZE = 4096
_LARGEST_LEARNING_RATE = 5e-3


def sequence_length(config: Config, model_name: str = "") -> int:
    """Return the window length in tokens where the request names none: min(2048, the model's positions).

    A model listed in `TRAINED_SEQUENCE_LENGTH` gets the length that it was trained on.
    """
    known = TRAINED_SEQUENCE_LENGTH.get(model_name.rstrip("/").rsplit("/", 1)[-1], LONGEST_SEQUENCE)
    return min(LONGEST_SEQUENCE, known, architectures.max_positions(config))


def learning_rate(config: Config) -> float:
    """Return the peak learning rate of AdamW.

    2e-4 at hidden size 4096 is LLM-Streamline's. Adam's best rate falls as one over the width (muP, arXiv
    2203.03466), so narrower models get more, up to a cap. On the bundled model (128 wide) a layer trained for 2
    epochs ends at perplexity 13.93 with 1.1e-3 and 13.61 with 3e-3; between 3e-3 and 8e-3 it hardly matters.
    """
    scaled = _PAPER_LEARNING_RATE * _PAPER_HIDDEN_SIZE / architectures.hidden_size(config)
    return min(_LARGEST_LEARNING_RATE, scaled)


def healing_learning_rate(config: Config) -> float:
    """Return the peak learning rate of the adapters' AdamW: LLM-Pruner's 1e-4 at hidden size 4096, more below it.

    On the bundled model (128 wide) without 6 layers healing ends at a held-out loss of 2.387 with 3e-3, 2.390 with 1e-3
    and 2.436 with 1e-4, from 2.491. Behind a trained layer, where little is left to heal, less is better: from 2.3226
    to 2.3191 with 1e-3, to 2.3180 with 3e-4.
    """
    scaled = _HEALING_LEARNING_RATE * _PAPER_HIDDEN_SIZE / architectures.hidden_size(config)
    return min(_LARGEST_LEARNING_RATE, scaled)


def init(kind: BlockKind) -> Literal["best", "closed_form"]:
    """Return what a replacement of `kind` starts from."""
    return FITTED_INIT if kind in architectures.FITTED_KINDS else INIT


def batch_size(length: int) -> int:
    """Return the training batch in sequences of `length` tokens: about 2,048 tokens, at least one sequence."""
    return max(1, _TOKENS_PER_BATCH // length)


def training_tokens(calibration: str) -> int:
    """Return the upper bound of distinct training tokens for a calibration source."""
    return SELF_TEXT_TOKENS if calibration == SELF_TEXT else TRAINING_TOKENS


def benchmark_tokens(config: Config) -> tuple[int, int]:
    """Return (prompt, new) token counts, shrunk so that both fit into the model's positions.

    At least two new tokens: the first belongs to the prefill, and a decode rate needs one after it.
    """
    positions = architectures.max_positions(config)
    new = min(BENCHMARK_NEW_TOKENS, max(LEAST_NEW_TOKENS, positions // 4))
    return min(BENCHMARK_PROMPT_TOKENS, max(1, positions - new)), new


def benchmark_problem(
    config: Config, prompt_tokens: int, new_tokens: int
) -> tuple[Literal["prompt_tokens"], str] | None:
    """Say which benchmark field does not fit the model's positions and why, or None where both fit."""
    positions = architectures.max_positions(config)
    if prompt_tokens + new_tokens <= positions:
        return None
    return (
        "prompt_tokens",
        f"prompt_tokens {prompt_tokens} + new_tokens {new_tokens} exceed the model's {positions} positions; "
        f"together they must be at most {positions}",
    )
