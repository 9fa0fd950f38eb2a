"""Whatever the stages of a run can find, for property tests of the report's form and of its page."""

import json
from typing import Any

from hypothesis import strategies as st

from app.report.versions import schema_names, schema_text
from worker.engine.report import STAGE_FILES

SCHEMA: dict[str, Any] = json.loads(schema_text(schema_names()[-1]))
SURROUNDINGS: dict[str, Any] = {
    "environment": {"versions": {"torch": None}, "platform": "", "device": "cpu", "device_name": "", "threads": 1},
    "recipe": dict.fromkeys(SCHEMA["properties"]["recipe"]["required"]),
    "lineage": {"model": {"name": "m", "revision": "r", "hash": None}, "data": {}, "code": "", "seed": 0},
}

numbers = st.floats(1e-6, 1e12)
names = st.text(max_size=6)
maybe = st.none() | numbers
spreads = st.fixed_dictionaries(dict.fromkeys(("median", "min", "lower_quartile", "upper_quartile", "max"), numbers))
measured = st.fixed_dictionaries(
    {"prefill_tokens_per_second": spreads, "time_to_first_token_s": spreads},
    optional={
        "decode_tokens_per_second": spreads,
        "token_latency_s": st.fixed_dictionaries(dict.fromkeys(("p50", "p90", "p99"), numbers)),
        "peak_memory_bytes": st.integers(0, 2**50),
    },
)


@st.composite
def benchmarks(draw: st.DrawFn) -> dict[str, Any]:
    rivals = draw(st.lists(names, max_size=2))
    timed = draw(st.sets(st.sampled_from(["dense", "pruned", *rivals])))
    settings = [
        {
            "batch_size": draw(st.integers(1, 64)), "prompt_tokens": draw(st.integers(1, 4096)), "new_tokens": 8,
            "models": {name: draw(measured) for name in timed},
            **({"speedup": draw(spreads), "prefill_speedup": draw(spreads)} if {"dense", "pruned"} <= timed else {}),
        }
        for _ in range(draw(st.integers(0, 2)))
    ]  # fmt: skip
    sizes = st.fixed_dictionaries(
        {"parameters": st.integers(1, 2**40), "checkpoint_bytes": st.integers(1, 2**40), "flops_per_token": numbers}
    )
    return {
        "settings": settings, "models": {name: draw(sizes) for name in ["dense", "pruned", *rivals]}, "rivals": rivals,
        "new_tokens": 8, "repeats": 1, "backend": "transformers", "threads": 1, "device": "cpu", "dtype": "float32",
        "not_measured": draw(st.dictionaries(names, names, max_size=2)),
    }  # fmt: skip


@st.composite
def evaluations(draw: st.DrawFn) -> dict[str, Any]:
    perplexities = st.tuples(maybe, maybe, maybe).map(
        lambda p: {
            **dict(zip(("dense", "cut", "pruned"), p, strict=True)),
            "ratio": p[2] / p[0] if p[0] and p[2] else None,
            "tokens": 5, "bytes": 5, "sequences": 1,
        }
    )  # fmt: skip
    task = st.fixed_dictionaries(
        {
            "kind": st.just("multiple_choice"),
            "questions": st.integers(1, 9),
            "accuracy": st.fixed_dictionaries({"dense": maybe, "pruned": maybe}),
        },
        optional={"stability": st.fixed_dictionaries({"value": maybe, "low": maybe, "high": maybe}), "kl": maybe},
    )
    return {
        "perplexity": draw(st.dictionaries(names, perplexities, min_size=1, max_size=3)),
        "held_out": draw(st.booleans()),
        "samples": draw(st.lists(st.fixed_dictionaries({"prompt": names, "dense": names}), max_size=2)),
        **draw(st.fixed_dictionaries({}, optional={"tasks": st.dictionaries(names, task, max_size=2)})),
    }


@st.composite
def found_by_stages(draw: st.DrawFn) -> dict[str, Any]:
    layers = draw(st.integers(1, 4))
    table = [[draw(maybe) for _ in range(layers)] for _ in range(layers)]
    losses = st.lists(st.fixed_dictionaries({"step": st.integers(0, 9), "loss": maybe}), max_size=3)
    parts: dict[str, Any] = {
        "execution": {"kind": "resident", "reason": ""},
        "selection": {"removed_layers": [0], "start": 0, "end": 1, "score": draw(maybe), "sparsity": 0.5},
        "scores": {"metric": "cosine", "better": "higher", "layers": layers, "table": table, "shortlisted_by": None},
        "training": {"phases": [{"loss": "mse", "steps": draw(losses), "held_out": draw(losses)}]},
        "healing": {
            "kind": "lora",
            "loss": {"before": draw(maybe), "after": draw(maybe)},
            "kept": "trained",
            "phases": [{"loss": "lm", "steps": draw(losses), "held_out": draw(losses)}],
        },
        "verification": {"passed": True, "logits_max_difference": draw(maybe)},
        "evaluation": draw(evaluations()),
        "benchmark": draw(benchmarks()),
    }
    return {name: parts[name] if draw(st.booleans()) else None for name in STAGE_FILES}
