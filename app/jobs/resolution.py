"""Fill in what a request leaves out, and refuse what the model cannot bear. No database, no files: facts alone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from app.core import architectures, defaults
from app.core.architectures import ArchitectureError, Config
from app.core.tasks import Task
from app.errors.references import BadRepoName
from app.errors.requests import ConflictingFields, OutOfRange
from app.hub.errors import BadName
from app.hub.names import check_repo_name
from app.jobs.consistency import check_gates, check_healing, check_stride, check_tokens
from app.jobs.facts import ModelFacts, RivalFacts, model_problem
from app.jobs.planning import adaptive, check_target, selection_of
from app.jobs.spec.request import JobRequest, PlanRequest

_SHORTEST_SEQUENCE: Final = 8


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
            "adaptive": adaptive(request),
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
    check_stride(request, length)
    check_gates(request.gates, tasks or {})
    spec["benchmark"]["rivals"] = _rivals(rivals, spec["benchmark"])
    if facts.repo is not None:
        spec["model"] = {"repo": facts.repo, "revision": facts.commit}
    check_tokens(request, dataset, tokens=spec["replacement"]["tokens"], length=length)
    if request.healing is not None:
        check_healing(spec["healing"]["tokens"], most=spec["replacement"]["tokens"], length=length)
    return spec


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
