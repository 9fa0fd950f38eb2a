"""How much GPU memory a job needs: what its queue is chosen by, and what a claim holds against the worker's."""

from collections.abc import Mapping
from typing import Any, Final

from app.core import defaults
from app.core.device_memory import DeviceMemory, device_memory
from app.core.losses import runs_the_model
from app.core.plan import Plan
from app.jobs.facts import ModelFacts

_METRICS_OF_STATES: Final = frozenset({"cosine", "angular", "euclidean", "dot"})


def required_memory(facts: ModelFacts, spec: Mapping[str, Any], plan: Plan, *, largest: int) -> int:
    """Return the memory, in bytes, of the GPUs that may carry out a job of the resolved `spec`.

    `largest` is that of the largest worker; see `DeviceMemory.required`.
    """
    return memory_of(facts, spec, plan).required(must_be_whole=must_be_whole(spec), largest=largest)


def memory_of(facts: ModelFacts, spec: Mapping[str, Any], plan: Plan) -> DeviceMemory:
    """Return what the resolved `spec` needs of a GPU, with the model whole in it and in layers."""
    return device_memory(
        facts.config,
        facts.counts,
        spec["replacement"]["kind"],
        plan.added_parameters // plan.replacements,
        through_model=_through_model(spec),
        length=spec["scoring"]["sequence_length"],
    )


def must_be_whole(spec: Mapping[str, Any]) -> bool:
    """Tell whether a job asks for what a model that is read layer by layer cannot do; it would fail, or miss a gate."""
    return (
        spec["calibration"]["dataset"] == defaults.SELF_TEXT
        or _through_model(spec)
        or spec["scoring"]["metric"] not in _METRICS_OF_STATES
        or spec["gates"]["min_speedup"] is not None
    )


def _through_model(spec: Mapping[str, Any]) -> bool:
    replacement = spec["replacement"]
    return spec["healing"] is not None or runs_the_model(replacement["kind"], replacement["loss"])
