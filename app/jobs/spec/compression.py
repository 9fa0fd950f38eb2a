"""The sections that a checkpoint follows from: how much to remove, how it is chosen and what takes its place."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from app.core import defaults
from app.jobs.spec.section import Section, Text


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
