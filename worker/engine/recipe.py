"""The resolved request: every value that a run depends on, as frozen dataclasses.

A recipe has no defaults of its own: whoever makes one (the service, the command line) resolves them with
`app.core.defaults` first, so that the file in the workspace tells the whole story.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from app.core.losses import runs_the_model
from app.core.selection import ONE_WINDOW, Selection, Target
from worker.engine.errors import EngineError

Kind = Literal["none", "ffn", "swiglu", "layer", "linear_merged", "linear_residual"]
Init = Literal["first", "last", "mean", "random", "best", "closed_form"]
Loss = Literal["mse", "cosine", "lm", "kd", "mse+lm", "mse+kd"]
Divergence = Literal["forward", "reverse", "skewed_forward", "skewed_reverse"]
Metric = Literal["cosine", "angular", "euclidean", "dot", "perplexity", "task"]
Format = Literal["auto", "native"]
Dtype = Literal["float32", "float16", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]
Backend = Literal["transformers", "vllm"]
Execution = Literal["auto", "resident", "streamed"]
Over = Literal["option", "prompt"]


@dataclass(frozen=True)
class ModelSource:
    """A local directory with config, tokenizer and safetensors; name and revision are what reports call it."""

    path: str
    name: str
    revision: str


@dataclass(frozen=True)
class Scoring:
    """How windows are scored: on `sequences` windows of `sequence_length` tokens each, fewer where `adaptive`."""

    metric: Metric
    sequences: int
    sequence_length: int
    adaptive: bool


@dataclass(frozen=True)
class Replacement:
    """What takes the window's place and how it is trained.

    Attributes:
        kind: the block.
        layers: new layers of kind `layer`.
        init: what it starts from.
        loss: what it is trained for; `a+b` is two steps, first a, then b from where a ended.
        divergence: of `kd`; see `worker.engine.losses.kd`.
        epochs: passes over the training tokens.
        learning_rate: peak of the schedule.
        second_epochs: passes of the second step.
        second_learning_rate: peak of its schedule.
        tokens: distinct tokens of the calibration text, an upper bound; scoring looks at the first of them.
        batch_size: sequences per optimiser step.
    """

    kind: Kind
    layers: int
    init: Init
    loss: Loss
    divergence: Divergence
    epochs: int
    learning_rate: float
    second_epochs: int
    second_learning_rate: float
    tokens: int
    batch_size: int


@dataclass(frozen=True)
class Healing:
    """Further training of the whole pruned model by adapters on its linear maps, which are merged before it is written.

    Attributes:
        kind: LoRA, W + (alpha / rank) B A.
        rank: of B A.
        alpha: its scale.
        epochs: passes over the tokens.
        learning_rate: peak of the schedule.
        tokens: distinct tokens, an upper bound; the first of those that the replacement is trained on.
        batch_size: sequences per optimiser step.
    """

    kind: Literal["lora"]
    rank: int
    alpha: float
    epochs: int
    learning_rate: float
    tokens: int
    batch_size: int


@dataclass(frozen=True)
class Text:
    """A text source: `path` None = ``builtin:self``; `column` of JSONL rows; `name` is what reports call it."""

    path: str | None
    column: str
    name: str


@dataclass(frozen=True)
class TaskData:
    """A task: what reports call it, the name of its definition, and the file of its rows."""

    name: str
    definition: str
    path: str


@dataclass(frozen=True)
class Judging:
    """What the result is judged on beside texts.

    Attributes:
        tasks: questions put to the dense and the pruned model.
        limit: questions per task at most; None = all.
        over: what the confidence of stability is taken over: the option's tokens, or the whole prompt's with it.
        stride: tokens from one window of an evaluation text to the next; None: they do not overlap.
    """

    tasks: tuple[TaskData, ...]
    limit: int | None
    over: Over
    stride: int | None = None


@dataclass(frozen=True)
class Benchmark:
    """Speed measurement: `repeats` interleaved rounds of prompt in and `new_tokens` out for each pair of the two lists.

    `rivals` are other checkpoints that take turns with the dense and the pruned one.
    """

    batch_sizes: tuple[int, ...]
    prompt_tokens: tuple[int, ...]
    new_tokens: int
    repeats: int
    rivals: tuple[ModelSource, ...] = ()
    backend: Backend = "transformers"


@dataclass(frozen=True)
class Output:
    """The written checkpoint. `dtype` None = the model's own."""

    dtype: Dtype | None
    format: Format


@dataclass(frozen=True)
class Recipe:
    """Everything that a run depends on."""

    model: ModelSource
    target: Target
    scoring: Scoring
    replacement: Replacement
    calibration: Text
    evaluation: tuple[Text, ...]
    benchmark: Benchmark
    output: Output
    seed: int
    device: Device
    trust_remote_code: bool
    selection: Selection = ONE_WINDOW
    """What does not name it removes one window."""
    judging: Judging = Judging((), None, "option")
    healing: Healing | None = None
    """None where it is not asked for."""
    execution: Execution = "auto"
    """Changes where weights are, and no result: what does not name it leaves the choice to free memory."""

    def needs_resident(self) -> str | None:
        """What of this recipe trains through the whole model, by name; None where one layer at a time is enough."""
        if self.healing is not None:
            return "healing"
        replacement = self.replacement
        return f"replacement.loss {replacement.loss}" if runs_the_model(replacement.kind, replacement.loss) else None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Recipe:
        """Build a recipe from parsed JSON.

        Raises:
            EngineError: `bad_recipe`, naming the field, for an unknown, missing or ill-typed one.
        """
        return _build(cls, data, "")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; `from_json` of it gives an equal recipe."""
        data: dict[str, Any] = _plain(dataclasses.asdict(self))
        return data


T = TypeVar("T")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _bad(where: str, problem: str) -> EngineError:
    return EngineError("bad_recipe", f"recipe field {where or '(the whole)'}: {problem}")


def _build(cls: type[T], data: Any, where: str) -> T:
    if not isinstance(data, Mapping):
        raise _bad(where, "must be a JSON object")
    hints = typing.get_type_hints(cls)
    fields = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(data) - set(fields)):
        raise _bad(f"{where}/{unknown[0]}", f"is unknown; known here: {', '.join(fields)}")
    values: dict[str, Any] = {}
    for name, item in fields.items():
        if name in data:
            values[name] = _convert(hints[name], data[name], f"{where}/{name}")
        elif item.default is dataclasses.MISSING:
            raise _bad(f"{where}/{name}", "is missing")
    return cls(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if origin is Literal:
        if value not in arguments:
            raise _bad(where, f"is {value!r}; allowed: {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _bad(where, "must be a list")
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(value):
            raise _bad(where, f"must hold {len(kinds)} values")
        pairs = enumerate(zip(kinds, value, strict=True))
        return tuple(_convert(kind, item, f"{where}/{i}") for i, (kind, item) in pairs)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise _bad(where, f"is {value!r} but must be of type {hint.__name__}")
    return value
