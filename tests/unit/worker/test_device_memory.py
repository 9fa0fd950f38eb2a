"""A worker's memory is what its operator says, or what the device says, or nothing: then it takes every job."""

import sys
from pathlib import Path

import pytest

from app.settings import SettingsError, load_settings
from worker.device_memory import memory_of_worker


def test_what_is_stated_counts_and_nothing_is_asked() -> None:
    assert memory_of_worker(load_settings()) is None
    assert memory_of_worker(load_settings(worker_memory="24g")) == 23_500_000_000
    assert memory_of_worker(load_settings(worker_memory="auto", device="cpu")) is None
    assert memory_of_worker(load_settings(worker_memory="20g")) == 15_600_000_000, (
        "what its class of jobs needs at most"
    )
    with pytest.raises(SettingsError, match="less than the smallest class"):
        memory_of_worker(load_settings(worker_memory="4g"))


@pytest.mark.parametrize(("said", "memory"), [("84974239744", 84_500_000_000), ("0", None)])
def test_the_device_is_asked_by_a_process_of_its_own(
    said: str, memory: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that answers as Python with torch would: with a GPU in sight, and without one."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ntest "$1" = -c && echo {said}\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert memory_of_worker(load_settings(worker_memory="auto")) == memory
    if memory is None:
        with pytest.raises(SettingsError, match="no CUDA device is in sight"):
            memory_of_worker(load_settings(worker_memory="auto", device="cuda"))


def test_a_device_that_does_not_tell_stops_the_worker_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SettingsError, match="STREAMLINE_WORKER_MEMORY: auto, .* such as 24g"):
        memory_of_worker(load_settings(worker_memory="auto"))
