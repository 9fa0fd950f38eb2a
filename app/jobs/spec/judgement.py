"""The sections that say how a result is measured, and what it has to reach."""

from typing import Annotated, Literal

from pydantic import Field

from app.core import defaults
from app.core.tasks import PAPER_SUITE, known_tasks
from app.jobs.spec.section import LARGEST_EXACT_INTEGER, Section, Text


class Evaluation(Section):
    """What the result is judged on."""

    perplexity: Annotated[list[Text], Field(max_length=16)] | None = Field(
        None,
        examples=[["ID"]],
        description="Ids of uploaded data sets. Default: a held-out part of the calibration text.",
    )
    stride: int | None = Field(
        None,
        examples=[128],
        ge=1,
        le=1_048_576,
        description="Tokens from the start of one window of an evaluation text to the next, at most "
        "`scoring.sequence_length`; less than that predicts each token, still once, from at least "
        "`sequence_length - stride` tokens before it, and takes longer. Default: windows do not overlap.",
    )
    tasks: Annotated[list[Text], Field(max_length=128)] | None = Field(
        None,
        description=f"Questions put to the dense and the pruned model: {', '.join(known_tasks())}; single "
        "tasks of lm-evaluation-harness by its own names (rows as its data set has them, those of a split that is only "
        "shown as examples with `_split`); or ids of uploaded data sets of multiple-choice questions (JSONL with "
        "`question` or `context`, `choices`, `label`). Default: "
        f"those of LLM-Streamline, section 4.1, that have data here ({', '.join(PAPER_SUITE)}).",
        examples=[["piqa", "blimp"]],
    )
    task_data: dict[Text, Text] | None = Field(
        None,
        max_length=128,
        description="Task -> id of the data set with its rows. Default: the file in the service's mirror; where there "
        "is none, the newest upload of the file's name. The job's `spec` names the data set of every task, and all its "
        "attempts use these bytes.",
        examples=[{"piqa": "ds-0123456789abcdef01234567"}],
    )
    limit: int | None = Field(
        None, ge=1, le=1_000_000, description=f"Questions per task, the first ones. Default {defaults.TASK_LIMIT}."
    )
    over: Literal["option", "prompt"] | None = Field(
        None,
        description="What stability takes the dense model's confidence from: the mean likelihood of each option's "
        f"tokens, or of the whole prompt with it, as OpenCompass does. Default `{defaults.OVER}`.",
    )


PromptTokens = Annotated[int, Field(ge=1, le=1_048_576)]


class Benchmark(Section):
    """How speed is measured, dense and pruned interleaved."""

    batch_sizes: Annotated[list[Annotated[int, Field(ge=1, le=1024)]], Field(min_length=1, max_length=8)] | None = (
        Field(None, description="Default [1]: one stream, the case where depth pruning pays at once.")
    )
    prompt_tokens: PromptTokens | None = Field(
        None,
        description=f"Default {defaults.BENCHMARK_PROMPT_TOKENS}, less where the model has fewer positions. The "
        "speed-up that a gate is held against is that of this length at the first batch size.",
    )
    other_prompt_tokens: Annotated[list[PromptTokens], Field(max_length=8)] | None = Field(
        None,
        examples=[[128, 1024]],
        description="Further prompt lengths to measure at every batch size. Default: none.",
    )
    new_tokens: int | None = Field(
        None,
        ge=defaults.LEAST_NEW_TOKENS,
        le=1_048_576,
        description=f"Default {defaults.BENCHMARK_NEW_TOKENS}, less where the model has fewer positions.",
    )
    rivals: Annotated[list[Text], Field(max_length=8)] | None = Field(
        None,
        examples=[["team/other"]],
        description="Other checkpoints of this service's hub (`team/name` or `team/name@revision`) to time beside the "
        "dense and the pruned one. The job keeps the commits that they name at submission. Default: none.",
    )
    backend: Literal["transformers", "vllm"] | None = Field(
        None, description="What generates. Default `transformers`; `vllm` where the workers have it installed."
    )


class TaskGates(Section):
    """Bars for one task."""

    min_accuracy_retained: float | None = Field(None, gt=0, description="Accuracy pruned / dense at least.")
    min_stability: float | None = Field(None, gt=0, le=1, description="Stability at least.")
    max_flip_rate: float | None = Field(
        None, ge=0, le=1, description="Share of its questions that turn right or wrong at most."
    )


class Gates(Section):
    """Bars for the result; a missed one makes the verdict `fail`, and `main` of the output repository stays."""

    max_perplexity_ratio: float | None = Field(
        None,
        examples=[1.3],
        gt=0,
        description="Perplexity pruned / dense at most; with several data sets the worst one counts.",
    )
    min_speedup: float | None = Field(
        None,
        examples=[1.15],
        gt=0,
        description="Speed-up of decoding at least: dense and pruned take turns, each round gives the ratio of their "
        "tokens per second, and the median of these counts. It need not be the ratio of the two medians.",
    )
    max_parameters: int | None = Field(
        None, examples=[6_000_000_000], ge=1, le=LARGEST_EXACT_INTEGER, description="Parameters of the result."
    )
    min_accuracy_retained: float | None = Field(
        None, examples=[0.9], gt=0, description="Mean accuracy over the tasks, pruned / dense, at least."
    )
    min_stability: float | None = Field(
        None,
        examples=[0.8],
        gt=0,
        le=1,
        description="Mean stability (LLM-Streamline, section 4.1) over the tasks with options, at least.",
    )
    max_flip_rate: float | None = Field(
        None,
        examples=[0.1],
        ge=0,
        le=1,
        description="Share of questions that turn right or wrong at most, mean over the tasks.",
    )
    tasks: dict[Text, TaskGates] | None = Field(
        None,
        description="Bars for single tasks by their names in evaluation.tasks.",
        examples=[{"piqa": {"min_stability": 0.9}}],
    )
