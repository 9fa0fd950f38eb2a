"""The request: what a client may ask for, field by field.

Whatever is left out (or null) is filled in by `app.jobs.resolution` before the job is stored. A resolved specification
is itself a valid request: sending it again asks for exactly the same run. Choices that the contract names but this
version does not offer are refused with the list of those that it does.
"""

import hashlib
import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.core import defaults
from app.core.tasks import PAPER_SUITE, known_tasks

_LABEL_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # control characters, and halves of surrogate pairs
MAX_LABELS = 32
MAX_LABEL_VALUE = 256
_LARGEST_EXACT_INTEGER = 2**53 - 1  # the largest that every JSON reader keeps exact


class Section(BaseModel):
    """Part of a request: unknown fields are refused, numbers are finite, nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


def _no_control_characters(text: str) -> str:
    if _FORBIDDEN.search(text):
        raise PydanticCustomError("invalid_request", "must hold no control characters")
    return text


Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_no_control_characters)]


class Model(Section):
    """The dense model, in this service's hub."""

    repo: Text = Field(
        description="Repository in this service's hub, as `namespace/name`.", examples=["demo/stories-24l"]
    )
    revision: Text | None = Field(
        None,
        examples=["main"],
        description="Branch, tag or commit; default `main`. The job keeps the commit that it names at submission.",
    )


class PlannedModel(Section):
    """The dense model of a dry run: a repository of the hub, or a config.json given inline."""

    repo: Text | None = Field(None, description="Repository in this service's hub, as `namespace/name`.")
    revision: Text | None = Field(None, description="Branch, tag or commit; default `main`.")
    config: dict[str, Any] | None = Field(
        None, description="The content of a config.json: no weights are needed and none are looked at."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.repo is None) == (self.config is None):
            raise PydanticCustomError("conflicting_fields", "name exactly one of repo and config")
        if self.config is not None and self.revision is not None:
            raise PydanticCustomError("conflicting_fields", "revision belongs to repo and has no meaning with config")
        return self


class Target(Section):
    """How much to remove: exactly one of the fields."""

    sparsity: float | None = Field(
        None, gt=0, lt=1, description="Share of the dense model's parameters to be gone, net of the replacement."
    )
    layers: int | None = Field(None, ge=1, description="Decoder blocks fewer in the result.", examples=[6])
    window: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)] | None = Field(
        None, description="[start, end): exactly these layers are replaced; end itself is kept.", examples=[[9, 14]]
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in ("sparsity", "layers", "window") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none"
            raise PydanticCustomError(
                "conflicting_fields", f"name exactly one of sparsity, layers and window; given: {found}"
            )
        return self

    @model_serializer(mode="wrap")
    def _only_what_is_named(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value is not None}


class Scoring(Section):
    """How the redundancy of each window of layers is measured."""

    metric: Literal["cosine", "angular", "euclidean", "dot", "perplexity", "task"] | None = Field(
        None,
        description="Default `cosine` (LLM-Streamline, arXiv 2403.19135, section 3.1). `angular` (arXiv 2403.17887), "
        "`euclidean` and `dot` come out of the same pass; `perplexity` (arXiv 2402.02834) runs the model without each "
        "window of the size that the target needs; `task` ranks the 5 best windows by cosine by their perplexity after "
        "a linear patch.",
    )
    adaptive: bool | None = Field(
        None,
        description="Stop scoring once a bootstrap interval over sequences tells the best window from the runner-up, "
        "after 8 sequences at least. Default true.",
    )
    sequences: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description=f"Text windows to score on. Default {defaults.SCORING_SEQUENCES}: the best window is stable under "
        "few samples (LLM-Streamline, appendix).",
    )
    sequence_length: int | None = Field(
        None,
        examples=[2048],
        ge=8,
        le=1_048_576,
        description=f"Tokens per window of scoring, training and perplexity. Default min({defaults.LONGEST_SEQUENCE}, "
        "the model's positions), what LLM-Streamline calibrates with; 256 for the bundled model, which was trained so.",
    )


class Selection(Section):
    """How the layers to remove are chosen."""

    mode: Literal["one_shot", "iterative"] | None = Field(
        None,
        description=f"Default `{defaults.MODE}`, as in LLM-Streamline (arXiv 2403.19135): all layers at once. "
        "`iterative` removes and replaces one window per round and scores what the round before left (as IteRABRe, "
        "arXiv 2503.06291), until the whole target is reached; each round adds a replacement of its own.",
    )
    windows: int | None = Field(
        None,
        ge=1,
        le=64,
        description=f"Of `one_shot`: how many windows to choose from one score table, with at least one layer between "
        f"them and a replacement each. Default {defaults.WINDOWS}, as in LLM-Streamline: several replacements save "
        "little, which the plan shows.",
    )
    rounds: int | None = Field(
        None,
        ge=1,
        le=64,
        description=f"Of `iterative`: how many rounds. Default {defaults.ROUNDS}, the fewest, because each costs a "
        "replacement and a training; 1 otherwise.",
    )


class Replacement(Section):
    """What takes the removed layers' place and how it is trained."""

    kind: Literal["none", "ffn", "swiglu", "layer", "linear_merged", "linear_residual"] | None = Field(
        None,
        description=f"Default `{defaults.KIND}`: one decoder layer keeps most of the accuracy (LLM-Streamline, table "
        "2) and the checkpoint loads anywhere. The linear kinds are fitted in closed form and not trained (ReplaceMe, "
        "arXiv 2505.02819): `linear_residual` adds a d x d map, `linear_merged` folds one into the layer in front of "
        "the window and adds nothing.",
    )
    layers: int | None = Field(
        None, ge=1, le=64, description="New decoder layers in place of the window, for kind `layer`. Default 1."
    )
    init: Literal["first", "last", "mean", "random", "best", "closed_form"] | None = Field(
        None,
        description=f"What a replacing `layer` inherits. Default `{defaults.INIT}`: the removed layer with the lowest "
        "error on held-out states (measured: benchmarks/quality.py). `closed_form` then fits the block's last "
        "projection by least squares; for the linear kinds it is the only choice.",
    )
    loss: Literal["mse", "cosine", "lm", "kd", "mse+lm", "mse+kd"] | None = Field(
        None,
        description=f"What the replacement is trained for. Default `{defaults.LOSS}`. `mse` and `cosine` compare "
        "hidden states and need only the light network (LLM-Streamline, section 3.2); `lm` and `kd` (the dense "
        "model's logits) run the layers behind the window too; `a+b` is two steps.",
    )
    divergence: Literal["forward", "reverse", "skewed_forward", "skewed_reverse"] | None = Field(
        None,
        description=f"Of `kd`: which Kullback-Leibler divergence. Default `{defaults.DIVERGENCE}`; skewed ones as in "
        "DistiLLM (arXiv 2402.03898).",
    )
    epochs: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description=f"Passes over the training tokens. Default {defaults.EPOCHS} (measured: benchmarks/quality.py).",
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Peak learning rate of AdamW. Default 2e-4 at hidden size 4096 (LLM-Streamline), more for narrower "
        "models (measured: benchmarks/quality.py).",
    )
    second_epochs: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description=f"Passes of the second step of a two-step loss. Default {defaults.SECOND_EPOCHS}.",
    )
    second_learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        examples=[6e-5],
        description=f"Its peak learning rate. Default {defaults.SECOND_LEARNING_RATE_SHARE} of the first step's.",
    )
    tokens: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description=f"Distinct tokens of the calibration text, an upper bound: of those to train on, and of those to "
        f"score on, which are the first of them. Default {defaults.TRAINING_TOKENS:,}, or "
        f"{defaults.SELF_TEXT_TOKENS:,} for `{defaults.SELF_TEXT}`, because sampling is slow.",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=4096,
        examples=[8],
        description="Sequences per training step. Default: about 2,048 tokens' worth.",
    )


class Healing(Section):
    """Further training of the whole pruned model by adapters that are merged before the checkpoint is written."""

    kind: Literal["lora"] = Field(
        description="LoRA (arXiv 2106.09685) on the linear maps of all layers, on the language-model loss: what "
        "LLM-Pruner (arXiv 2305.11627) does after pruning, and the baseline that LLM-Streamline compares with. Needs "
        "the whole model in memory."
    )
    rank: int | None = Field(
        None, ge=1, le=1024, description=f"Rank of the adapters. Default {defaults.HEALING_RANK} (LLM-Pruner)."
    )
    alpha: float | None = Field(
        None,
        gt=0,
        le=65_536,
        description=f"Their scale is alpha / rank. Default {defaults.HEALING_ALPHA:g} (LLM-Pruner).",
    )
    epochs: int | None = Field(
        None, ge=1, le=10_000, description=f"Passes over the tokens. Default {defaults.HEALING_EPOCHS} (LLM-Pruner)."
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Peak learning rate of AdamW. Default 1e-4 at hidden size 4096 (LLM-Pruner), more for narrower "
        "models (measured: benchmarks/quality.py).",
    )
    tokens: int | None = Field(
        None,
        examples=[131_072],
        ge=1,
        le=1_000_000_000,
        description="Distinct tokens, an upper bound: the first of the replacement's. Default `replacement.tokens`, "
        "which is also the most.",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=4096,
        examples=[8],
        description="Sequences per training step. Default: about 2,048 tokens' worth.",
    )


class Calibration(Section):
    """The text that windows are scored and the replacement is trained on."""

    dataset: Text | None = Field(
        None,
        examples=[defaults.SELF_TEXT],
        description=f"Id of an uploaded data set, or `{defaults.SELF_TEXT}`, the default: text sampled from the model "
        "itself (in the spirit of LLM-QAT, arXiv 2305.17888).",
    )
    column: Text | None = Field(
        None, description=f"The field of a JSONL row that holds the text. Default `{defaults.TEXT_COLUMN}`."
    )


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
        None, examples=[6_000_000_000], ge=1, le=_LARGEST_EXACT_INTEGER, description="Parameters of the result."
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


class Output(Section):
    """The checkpoint to write."""

    repo: Text | None = Field(
        None,
        examples=["team/llama-streamlined"],
        description="Repository that the result is published to. Default: the model's with `-streamlined`.",
    )
    dtype: Literal["float32", "float16", "bfloat16"] | None = Field(
        None, examples=["bfloat16"], description="Default: the model's own."
    )
    format: Literal["auto", "native"] | None = Field(
        None,
        description="Default `auto`: the smallest checkpoint, with a modelling file for `ffn`, `swiglu` and "
        "`linear_residual`. `native`: a stock architecture that needs no code.",
    )


class _Request(Section):
    """Everything of a request but the model."""

    target: Target
    scoring: Scoring = Field(default_factory=Scoring)
    selection: Selection = Field(default_factory=Selection)
    replacement: Replacement = Field(default_factory=Replacement)
    healing: Healing | None = Field(None, description="Default: none.")
    calibration: Calibration = Field(default_factory=Calibration)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    benchmark: Benchmark = Field(default_factory=Benchmark)
    gates: Gates = Field(default_factory=Gates)
    output: Output = Field(default_factory=Output)
    labels: dict[str, str] = Field(
        default_factory=dict,
        description=f"What jobs can be found by: at most {MAX_LABELS}, keys of 1 to 64 letters, digits and `._/-`, "
        f"values of at most {MAX_LABEL_VALUE} characters.",
    )
    seed: int = Field(
        defaults.SEED, ge=0, le=_LARGEST_EXACT_INTEGER, description="Same request and seed, same checkpoint bytes."
    )

    @field_validator("labels")
    @classmethod
    def _bounded(cls, labels: dict[str, str]) -> dict[str, str]:
        if len(labels) > MAX_LABELS:
            raise PydanticCustomError("out_of_range", f"has {len(labels)} entries; at most {MAX_LABELS} are allowed")
        for key, value in labels.items():
            if not _LABEL_KEY.fullmatch(key):
                raise PydanticCustomError(
                    "out_of_range",
                    "has a key of another form than 1 to 64 letters, digits, `.`, `_`, `/` and `-`, beginning with a "
                    "letter or digit",
                )
            if len(value) > MAX_LABEL_VALUE or _FORBIDDEN.search(value):
                raise PydanticCustomError(
                    "out_of_range",
                    f"has a value of more than {MAX_LABEL_VALUE} characters, or with control characters",
                )
        return labels


class JobRequest(_Request):
    """A compression job. Only `model` and `target` are required."""

    model: Model

    def digest(self) -> str:
        """Sha256 of what is asked for: equal for two bodies exactly if they mean the same."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


class PlanRequest(_Request):
    """The same body as a job's; the model may also be a config given inline."""

    model: PlannedModel
