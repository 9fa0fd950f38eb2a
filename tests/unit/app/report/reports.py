"""Reports to look at: a real one of version 0, and what later versions can hold on top of it."""

import json
from pathlib import Path
from typing import Any

from app.report.versions import upgraded


def version_0() -> dict[str, Any]:
    """A report as the first version of the service wrote it: stories-24l, 8 layers replaced by one."""
    report: dict[str, Any] = json.loads(Path(__file__).with_name("report-0.json").read_text())
    return report


def full() -> dict[str, Any]:
    """The same with everything that a report can hold: tasks, a rival, percentiles, what was not measured."""
    report = upgraded(version_0())
    for setting in report["benchmark"]["settings"]:
        for measured in setting["models"].values():
            measured["token_latency_s"] = {"p50": 0.008, "p90": 0.009, "p99": 0.012}
        setting["models"]["team/rival"] = setting["models"]["pruned"]
    first = report["benchmark"]["settings"][0]
    report["benchmark"]["settings"].append({**first, "prompt_tokens": 256})
    report["benchmark"]["models"]["team/rival"] = report["benchmark"]["models"]["pruned"]
    report["benchmark"]["rivals"] = ["team/rival"]
    report["benchmark"]["not_measured"] = {"team/giant": "it does not fit beside the others"}
    report["evaluation"]["tasks"] = {
        name: {
            "kind": "multiple_choice",
            "questions": 500,
            "accuracy": {"dense": dense, "pruned": pruned, "stderr": {"dense": 0.02, "pruned": 0.021}},
            "stability": {"value": stability, "low": stability - 0.03, "high": stability + 0.02},
            "flips": {"right_to_wrong": 31, "wrong_to_right": 12, "confident_flipped": 0.04},
            "kl": 0.11,
            "by_confidence": [
                {"confidence": 0.1 * group, "questions": 50, "agreement": stability - 0.2 + 0.02 * group}
                for group in range(1, 11)
            ],
        }
        for name, dense, pruned, stability in (
            ("piqa", 0.62, 0.58, 0.91),
            ("story_cloze", 0.55, 0.5, 0.83),
            ("blimp_determiner_noun_agreement_with_adjective_1", 0.9, 0.85, 0.95),
        )
    }
    report["lineage"] = {
        "model": {"name": "demo/stories-24l", "revision": "d34b", "hash": "ab" * 32},
        "data": {"ds-d267221565bccba402de7cc9": "cd" * 32},
        "code": "ef" * 32,
        "seed": 0,
    }
    return report


JOB: dict[str, Any] = {
    "id": "1b0c5c0ab97946bd94842786d9521edd",
    "state": "succeeded",
    "verdict": "pass",
    "finished_at": "2026-11-24T06:57:26.126000Z",
    "gates": [
        {"name": "perplexity_ratio", "limit": 1.1, "value": 1.031, "passed": True},
        {"name": "speedup", "limit": 1.4, "value": None, "passed": False},
    ],
    "spec": {
        "model": {"repo": "demo/stories-24l", "revision": "d34b705b"},
        "target": {"sparsity": 0.25},
        "replacement": {"kind": "layer", "layers": 1, "learning_rate": 0.005, "tokens": 256_000},
        "calibration": {"dataset": "ds-d267221565bccba402de7cc9", "column": "text"},
        "evaluation": {"perplexity": ["ds-a74db30d90bb843181a4ba14"], "tasks": [], "limit": None},
        "seed": 0,
    },
    "result": {"repo": "team/small", "revision": "17134f2b75f659c7b007cdaf1d0ce9e889c79878"},
}
"""The job of `full()`, as the API answers it."""
