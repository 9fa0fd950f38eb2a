"""What the engine tells is counted once, and a stage that was skipped took no time."""

from prometheus_client import REGISTRY

from worker import metrics


def count(stage: str) -> float:
    return REGISTRY.get_sample_value("streamline_stage_seconds_count", {"stage": stage}) or 0.0


def test_stages_that_ran_are_observed_and_skipped_ones_are_not() -> None:
    before = count("score")
    metrics.note({"event": "stage_finished", "stage": "score", "seconds": 12.5, "skipped": False})
    metrics.note({"event": "stage_finished", "stage": "score", "seconds": 12.5, "skipped": True})
    assert count("score") == before + 1


def test_the_gpus_memory_is_the_last_that_was_told() -> None:
    for used in (5e9, 3e9):
        metrics.note({"event": "metric", "stage": "train", "gpu_memory_bytes": used})
    metrics.note({"event": "metric", "stage": "train", "loss": 0.5})
    assert REGISTRY.get_sample_value("streamline_gpu_memory_bytes", {"stage": "train"}) == 3e9


def test_every_outcome_is_there_from_the_start() -> None:
    for outcome in metrics.Outcome:
        assert REGISTRY.get_sample_value("streamline_attempts_total", {"outcome": outcome}) is not None
