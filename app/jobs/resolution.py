"""Fill in what a request leaves out, and refuse what the model cannot bear. No database, no files: facts alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from app.core import architectures, defaults, selection
from app.core.architectures import ArchitectureError, Config
from app.core.conflicts import backend_refusal, check_selection
from app.core.plan import Plan, make_plan
from app.core.selection import ParameterCounts, SelectionError
from app.core.starts import init_refusal
from app.core.tasks import Task
from app.core.training_fields import idle_field
from app.errors import (
    BadRepoName,
    BadTarget,
    ConflictingFields,
    GateNotMeasured,
    InvalidRequest,
    NativeFormRefused,
    OutOfRange,
    PlanNeedsWeights,
    ReplacementRefused,
    UnreadableModel,
    UnsupportedFamily,
    UnsupportedModel,
)
from app.hub.errors import BadName
from app.hub.names import check_repo_name
from app.jobs.spec import Gates, JobRequest, PlanRequest, TaskGates

MAX_LAYERS: Final = 4096
"""No decoder is deeper; a config that says so would only make the planner count to it."""

MAX_PARAMETERS: Final = 10**15
"""Far above every model; beyond it shares are no longer exact in floating point."""

_DTYPE_BYTES: Final = {"float32": 4, "float16": 2, "bfloat16": 2}
_SHORTEST_SEQUENCE: Final = 8


@dataclass(frozen=True)
class ModelFacts:
    """What a request is resolved against."""

    config: Config
    counts: ParameterCounts
    repo: str | None = None
    """None for a config given inline."""
    commit: str | None = None
    """The commit that the requested revision names."""
    dtype: str | None = None
    """The one dtype of all weights; None where it is mixed or of another kind."""

    @property
    def pointer(self) -> str:
        """JSON pointer of what names the model in the request."""
        return "/model/config" if self.repo is None else "/model/repo"


@dataclass(frozen=True)
class RivalFacts:
    """A checkpoint that is timed beside the dense and the pruned one."""

    repo: str
    commit: str
    positions: int
    own_code: bool = False
    """Whether it brings modelling code of its own."""


def inline_facts(config: Config) -> ModelFacts:
    """The facts of a config given inline.

    Raises:
        PlanNeedsWeights: no formula for its family.
        UnsupportedModel: it cannot be cut.
        UnreadableModel: a size in it makes no sense.
    """
    try:
        architectures.refuse_uncuttable(config)
        check_sizes(config)
        counts = ParameterCounts.from_config(config)
        if not 0 < counts.dense <= MAX_PARAMETERS:
            raise ArchitectureError(f"config.json: its sizes make more than {MAX_PARAMETERS:.0e} parameters, or none")
    except (architectures.UnsupportedFamily, architectures.NoFormula):
        raise PlanNeedsWeights(
            f"For model family {config.get('model_type')!r} no formula is known; those with one: "
            f"{', '.join(architectures.FAMILIES)}. Import the model into the hub and name its repo instead of the "
            "config.",
            pointer="/model/config",
        ) from None
    except architectures.CannotBeCut as error:
        raise model_problem(error, "/model/config") from None
    except (ArchitectureError, ArithmeticError, TypeError, ValueError) as error:
        raise UnreadableModel(f"{error}. Give the config.json as it is.", pointer="/model/config") from None
    return ModelFacts(config, counts, dtype=_config_dtype(config))


def check_sizes(config: Config) -> None:
    """Refuse a depth that no model has, before anything counts up to it.

    Raises:
        ArchitectureError: unknown family, or a layer count that is none.
    """
    layers = architectures.layer_count(config)
    if layers > MAX_LAYERS:
        raise ArchitectureError(f"config.json: {layers} layers are more than the {MAX_LAYERS} that a model may have")


def _config_dtype(config: Config) -> str | None:
    named = config.get("dtype", config.get("torch_dtype"))
    return named if isinstance(named, str) and named in _DTYPE_BYTES else None


def resolve(
    request: JobRequest | PlanRequest,
    facts: ModelFacts,
    rivals: Sequence[RivalFacts] = (),
    tasks: Mapping[str, Task] | None = None,
) -> dict[str, Any]:
    """The specification that is stored: the request with every default filled in.

    For a job it is itself a valid request, and resolving it again changes nothing. `rivals` are those that the request
    names for the benchmark, in order; `tasks` those that it names or gets by default, groups taken apart.

    Raises:
        InvalidRequest: a value that does not fit the model, under the pointer of its field.
    """
    check_target(request, facts)
    length = _sequence_length(request, facts)
    spec = request.model_dump(mode="json")
    dataset = request.calibration.dataset or defaults.SELF_TEXT
    kind = request.replacement.kind or defaults.KIND
    rate = request.replacement.learning_rate or defaults.learning_rate(facts.config)
    filled: dict[str, dict[str, Any]] = {
        "scoring": {
            "metric": defaults.METRIC,
            "adaptive": _adaptive(request),
            "sequences": defaults.SCORING_SEQUENCES,
            "sequence_length": length,
        },
        "selection": asdict(selection_of(request)),
        "replacement": {
            "kind": kind,
            "layers": 1,
            "init": defaults.init(kind),
            "loss": defaults.LOSS,
            "divergence": defaults.DIVERGENCE,
            "epochs": defaults.EPOCHS,
            "learning_rate": rate,
            "second_epochs": defaults.SECOND_EPOCHS,
            "second_learning_rate": rate * defaults.SECOND_LEARNING_RATE_SHARE,
            "tokens": defaults.training_tokens(dataset),
            "batch_size": defaults.batch_size(length),
        },
        "calibration": {"dataset": dataset, "column": defaults.TEXT_COLUMN},
        "evaluation": {"perplexity": [], "limit": defaults.TASK_LIMIT, "over": defaults.OVER},
        "benchmark": _benchmark(request, facts.config),
        "output": {"repo": _output_repo(request, facts), "dtype": facts.dtype, "format": defaults.OUTPUT_FORMAT},
    }
    if request.healing is not None:
        filled["healing"] = {
            "rank": defaults.HEALING_RANK,
            "alpha": defaults.HEALING_ALPHA,
            "epochs": defaults.HEALING_EPOCHS,
            "learning_rate": defaults.healing_learning_rate(facts.config),
            "tokens": request.replacement.tokens or defaults.training_tokens(dataset),
            "batch_size": defaults.batch_size(length),
        }
    for section, values in filled.items():
        spec[section] |= {name: value for name, value in values.items() if spec[section][name] is None}
    spec["evaluation"]["tasks"] = list(tasks or ())
    _check_stride(request, length)
    _check_gates(request.gates, tasks or {})
    spec["benchmark"]["rivals"] = _rivals(rivals, spec["benchmark"])
    if facts.repo is not None:
        spec["model"] = {"repo": facts.repo, "revision": facts.commit}
    _check_tokens(request, dataset, tokens=spec["replacement"]["tokens"], length=length)
    if request.healing is not None:
        _check_healing(spec["healing"]["tokens"], most=spec["replacement"]["tokens"], length=length)
    return spec


def _check_stride(request: JobRequest | PlanRequest, length: int) -> None:
    """Refuse windows with gaps between them, and an overlap of what is held out of the calibration text."""
    stride = request.evaluation.stride
    if stride is None:
        return
    if stride > length:
        raise OutOfRange(
            f"stride is {stride}, which would leave tokens out between windows of {length}; allowed: 1 to {length} "
            "(scoring.sequence_length).",
            pointer="/evaluation/stride",
        )
    if not request.evaluation.perplexity:
        raise ConflictingFields(
            "stride is for evaluation texts, and evaluation.perplexity names none; name one, or leave stride out.",
            pointer="/evaluation/stride",
        )


def _check_gates(gates: Gates, tasks: Mapping[str, Task]) -> None:
    """Refuse a bar for what the job does not measure.

    Raises:
        GateNotMeasured: under the gate's pointer.
    """
    _check_task_gates(gates, "/gates", tasks.values(), "evaluation.tasks has no task")
    for name, of_task in (gates.tasks or {}).items():
        pointer = f"/gates/tasks/{name.replace('~', '~0').replace('/', '~1')}"
        if name not in tasks:
            raise GateNotMeasured(
                f"{name} is not among the job's tasks ({', '.join(tasks) or 'it has none'}); add it to "
                "evaluation.tasks, or leave its gates out.",
                pointer=pointer,
            )
        _check_task_gates(of_task, pointer, [tasks[name]], f"{name} is no task")


def _check_task_gates(gates: Gates | TaskGates, pointer: str, tasks: Iterable[Task], without: str) -> None:
    found = list(tasks)
    measured = {
        "min_accuracy_retained": (bool(found), "with questions"),
        "min_stability": (any(task.kind == "choice" for task in found), "whose questions have options"),
        "max_flip_rate": (any(not task.graded for task in found), "with right and wrong answers"),
    }
    for name, (known, needed) in measured.items():
        if getattr(gates, name) is not None and not known:
            raise GateNotMeasured(
                f"This gate cannot be judged: {without} {needed}. Name one in evaluation.tasks, or leave the gate out.",
                pointer=f"{pointer}/{name}",
            )


def check_target(request: JobRequest | PlanRequest, facts: ModelFacts) -> None:
    """Refuse a target that the model cannot meet, and a replacement that the output format cannot hold.

    Raises:
        NativeFormRefused, ReplacementRefused, ConflictingFields, BadTarget, UnsupportedFamily, UnreadableModel: as
            their docstrings say.
    """
    kind = request.replacement.kind or defaults.KIND
    layers = request.replacement.layers or 1
    output_format = request.output.format or defaults.OUTPUT_FORMAT
    try:
        target, chosen = target_of(request), selection_of(request)
        metric = request.scoring.metric or defaults.METRIC
        check_selection(chosen, target, kind, output_format, metric, _adaptive(request))
        selection.window_size(facts.config, target, kind, output_format, facts.counts, layers, chosen)
        init = request.replacement.init or defaults.init(kind)
        if reason := backend_refusal(request.benchmark.backend or defaults.BENCHMARK_BACKEND, kind, output_format):
            raise ConflictingFields(f"{reason}.", pointer="/benchmark/backend")
        if reason := init_refusal(facts.config, kind, init):
            raise ReplacementRefused(f"{reason}.", pointer="/replacement/init")
        if idle := idle_field(kind, request.replacement.model_dump()):
            raise ConflictingFields(f"{idle[1]}.", pointer=f"/replacement/{idle[0]}")
    except SelectionError as error:
        kind_of_error = BadTarget if error.pointer.startswith("/target") else ConflictingFields
        raise kind_of_error(f"{error}.", pointer=error.pointer) from None
    except architectures.ReplacementRefused as error:
        raise ReplacementRefused(f"{error}.", pointer="/replacement/kind") from None
    except architectures.NativeFormRefused as error:
        raise NativeFormRefused(f"{error}.", pointer="/output/format") from None
    except ArchitectureError as error:
        raise model_problem(error, facts.pointer) from None
    except (ArithmeticError, TypeError, ValueError) as error:
        raise UnreadableModel(f"config.json: {error}.", pointer=facts.pointer) from None


def model_problem(error: ArchitectureError, pointer: str) -> InvalidRequest:
    """What to say about a config that cannot be worked with."""
    if isinstance(error, architectures.UnsupportedFamily):
        return UnsupportedFamily(str(error), pointer=pointer)
    if isinstance(error, architectures.OwnModellingCode | architectures.CannotBeCut):
        return UnsupportedModel(f"The model cannot be compressed: {error}.", pointer=pointer)
    return UnreadableModel(f"{error}.", pointer=pointer)


def target_of(request: JobRequest | PlanRequest) -> selection.Target:
    """The target as the planner takes it."""
    window = request.target.window
    return selection.Target(
        sparsity=request.target.sparsity,
        layers=request.target.layers,
        window=None if window is None else (window[0], window[1]),
    )


def selection_of(request: JobRequest | PlanRequest) -> selection.Selection:
    """How the target is split, with every default filled in."""
    asked = request.selection
    mode = asked.mode or defaults.MODE
    rounds = defaults.ROUNDS if mode == "iterative" else 1
    return selection.Selection(mode, asked.windows or defaults.WINDOWS, asked.rounds or rounds)


def _adaptive(request: JobRequest | PlanRequest) -> bool:
    """Several windows of one table are chosen together, so that no single lead tells when to stop."""
    asked, chosen = request.scoring.adaptive, selection_of(request)
    together = chosen.mode == "one_shot" and chosen.windows > 1
    return (defaults.ADAPTIVE and not together) if asked is None else asked


def plan(request: JobRequest | PlanRequest, facts: ModelFacts, spec: Mapping[str, Any]) -> Plan:
    """What a job of this request, resolved to `spec`, would remove, add and need."""
    stored = spec["output"]["dtype"] or _config_dtype(facts.config) or "float32"
    return make_plan(
        facts.config,
        target_of(request),
        spec["replacement"]["kind"],
        spec["output"]["format"],
        counts=facts.counts,
        layers=spec["replacement"]["layers"],
        selection=selection_of(request),
        training_tokens=spec["replacement"]["tokens"],
        stored_bytes=_DTYPE_BYTES[stored],
    )


def _sequence_length(request: JobRequest | PlanRequest, facts: ModelFacts) -> int:
    positions = _positions(facts)
    asked = request.scoring.sequence_length
    if asked is None:
        return defaults.sequence_length(facts.config, facts.repo or "")
    if asked > positions:
        raise OutOfRange(
            f"sequence_length is {asked}, but the model has {positions} positions; "
            f"allowed: {_SHORTEST_SEQUENCE} to {positions}.",
            pointer="/scoring/sequence_length",
        )
    return asked


def _positions(facts: ModelFacts) -> int:
    try:
        return architectures.max_positions(facts.config)
    except ArchitectureError as error:
        raise model_problem(error, facts.pointer) from None


def _benchmark(request: JobRequest | PlanRequest, config: Config) -> dict[str, Any]:
    """Prompt and new tokens that fit together: defaults give way to explicit values, explicit ones must fit.

    Raises:
        OutOfRange: an explicit value does not fit the model's positions.
    """
    positions = architectures.max_positions(config)
    prompt, new = request.benchmark.prompt_tokens, request.benchmark.new_tokens
    default_prompt, default_new = defaults.benchmark_tokens(config)
    fewest = {"prompt_tokens": 1, "new_tokens": defaults.LEAST_NEW_TOKENS}
    for name, asked, other in (("prompt_tokens", prompt, new), ("new_tokens", new, prompt)):
        least = fewest[name]
        room = positions - (other or sum(fewest.values()) - least)
        if asked is not None and asked > room:
            beside = f"with {'new_tokens' if name == 'prompt_tokens' else 'prompt_tokens'} {other} " if other else ""
            allowed = f"allowed {beside}are {least} to {room}" if room >= least else f"nothing fits {beside}".rstrip()
            raise OutOfRange(
                f"{name} is {asked}, but prompt and new tokens must fit the model's {positions} positions together; "
                f"{allowed}.",
                pointer=f"/benchmark/{name}",
            )
    if prompt is None:
        prompt = min(default_prompt, positions - (new or default_new))
    if new is None:
        new = min(default_new, positions - prompt)
    for index, length in enumerate(request.benchmark.other_prompt_tokens or ()):
        if length + new > positions:
            raise OutOfRange(
                f"A prompt of {length} tokens and {new} new ones do not fit the model's {positions} positions; allowed "
                f"with new_tokens {new} are 1 to {positions - new}.",
                pointer=f"/benchmark/other_prompt_tokens/{index}",
            )
    return {
        "batch_sizes": list(defaults.BENCHMARK_BATCH_SIZES),
        "prompt_tokens": max(1, prompt),
        "other_prompt_tokens": [],
        "new_tokens": new,
        "backend": defaults.BENCHMARK_BACKEND,
    }


def _rivals(rivals: Sequence[RivalFacts], benchmark: Mapping[str, Any]) -> list[str]:
    """The rivals as `repo@commit`.

    Raises:
        ConflictingFields: one is named twice, or has the name of a row that is there anyway.
        OutOfRange: prompt and new tokens do not fit into one's positions.
    """
    tokens = max(benchmark["prompt_tokens"], *benchmark["other_prompt_tokens"], 0) + benchmark["new_tokens"]
    seen = {"dense", "pruned"}
    for index, rival in enumerate(rivals):
        pointer = f"/benchmark/rivals/{index}"
        if rival.repo in seen:
            raise ConflictingFields(
                f"The benchmark has a row {rival.repo} already; name each rival once.", pointer=pointer
            )
        if tokens > rival.positions:
            raise OutOfRange(
                f"{rival.repo} has {rival.positions} positions, and the benchmark's longest prompt and new tokens make "
                f"{tokens}; lower benchmark.prompt_tokens or benchmark.new_tokens.",
                pointer=pointer,
            )
        if rival.own_code and benchmark["backend"] == "vllm":
            raise ConflictingFields(
                f"{rival.repo} brings modelling code of its own, which vLLM does not run; leave it out, or "
                "benchmark.backend.",
                pointer=pointer,
            )
        seen.add(rival.repo)
    return [f"{rival.repo}@{rival.commit}" for rival in rivals]


def _output_repo(request: JobRequest | PlanRequest, facts: ModelFacts) -> str | None:
    """The repository to publish to.

    Raises:
        BadRepoName: it cannot be one, or it is the dense model's own.
    """
    asked = request.output.repo
    if asked is None and facts.repo is None:
        return None
    name = asked or f"{facts.repo}-streamlined"
    try:
        check_repo_name(name)
    except BadName as error:
        raise BadRepoName(str(error), pointer="/output/repo") from None
    if name == facts.repo:
        raise BadRepoName(
            f"output.repo is {name!r}, the dense model's own repository, which the result would replace. Choose "
            "another name.",
            pointer="/output/repo",
        )
    return name


def _check_tokens(request: JobRequest | PlanRequest, dataset: str, *, tokens: int, length: int) -> None:
    """Refuse training tokens that the sampled text does not have, or that make not one sequence."""
    self_text = dataset == defaults.SELF_TEXT
    if self_text and tokens > defaults.SELF_TEXT_TOKENS:
        raise OutOfRange(
            f"tokens is {tokens}, but {defaults.SELF_TEXT} samples at most {defaults.SELF_TEXT_TOKENS}; allowed: "
            f"1 to {defaults.SELF_TEXT_TOKENS}, or name a data set of your own.",
            pointer="/replacement/tokens",
        )
    # Where no evaluation text is named, one sequence of the calibration text is held out.
    needed = sequences_needed(request) * length
    if tokens < needed:
        what = "one sequence" if sequences_needed(request) == 1 else "one sequence to train on and one held out"
        if request.replacement.tokens is None:
            raise OutOfRange(
                f"sequence_length is {length}, too long for {tokens} training tokens; {what} must fit: at most "
                f"{tokens // sequences_needed(request)}.",
                pointer="/scoring/sequence_length",
            )
        raise OutOfRange(
            f"tokens is {tokens}, but {what} of {length} tokens make {needed}; give at least {needed}, or lower "
            "scoring.sequence_length.",
            pointer="/replacement/tokens",
        )


def _check_healing(tokens: int, *, most: int, length: int) -> None:
    """Refuse tokens that make not one sequence, or more than there are to train on."""
    if not length <= tokens <= most:
        raise OutOfRange(
            f"tokens is {tokens}, but healing takes whole sequences of {length} tokens from the replacement's {most}; "
            f"allowed: {length} to {most}, or raise replacement.tokens.",
            pointer="/healing/tokens",
        )


def sequences_needed(request: JobRequest | PlanRequest) -> int:
    """Sequences that the calibration text must make: one is held out where no evaluation text is named."""
    return 1 if request.evaluation.perplexity else 2
