"""A request in the planner's terms: its target, how that is split, whether the model can meet it, and the plan."""

from collections.abc import Mapping
from typing import Any

from app.core import architectures, defaults, selection
from app.core.architectures import ArchitectureError
from app.core.conflicts import backend_refusal, check_selection
from app.core.plan import Plan, make_plan
from app.core.selection import SelectionError
from app.core.starts import init_refusal
from app.core.training_fields import idle_field
from app.errors.references import BadTarget, NativeFormRefused, ReplacementRefused, UnreadableModel
from app.errors.requests import ConflictingFields
from app.jobs.facts import DTYPE_BYTES, ModelFacts, config_dtype, model_problem
from app.jobs.spec.request import JobRequest, PlanRequest


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


def adaptive(request: JobRequest | PlanRequest) -> bool:
    """Whether scoring may stop early."""
    # Several windows of one table are chosen together, so that no single lead tells when to stop.
    asked, chosen = request.scoring.adaptive, selection_of(request)
    together = chosen.mode == "one_shot" and chosen.windows > 1
    return (defaults.ADAPTIVE and not together) if asked is None else asked


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
        check_selection(chosen, target, kind, output_format, metric, adaptive(request))
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


def plan_of(request: JobRequest | PlanRequest, facts: ModelFacts, spec: Mapping[str, Any]) -> Plan:
    """What a job of this request, resolved to `spec`, would remove, add and need."""
    stored = spec["output"]["dtype"] or config_dtype(facts.config) or "float32"
    return make_plan(
        facts.config,
        target_of(request),
        spec["replacement"]["kind"],
        spec["output"]["format"],
        counts=facts.counts,
        layers=spec["replacement"]["layers"],
        selection=selection_of(request),
        training_tokens=spec["replacement"]["tokens"],
        stored_bytes=DTYPE_BYTES[stored],
    )
