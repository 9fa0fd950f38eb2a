"""What the engine is started with: model code that is allowed to run finds no secret around it."""

import sys
from pathlib import Path

import pytest

from worker.engine_process import EngineProcess

SECRETS = {
    "STREAMLINE_DATABASE_URL": "postgresql://u:s3cret@db/x",
    "STREAMLINE_UPSTREAM_TOKEN": "hf_s3cret",
    "AWS_SECRET_ACCESS_KEY": "s3cret",
    "HF_TOKEN": "hf_s3cret",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=s3cret",
    "PGPASSWORD": "s3cret",
}


def test_the_engine_gets_what_a_computation_needs_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (SECRETS | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "0"}).items():
        monkeypatch.setenv(name, value)
    script = "import json, os; print(json.dumps({'event': 'environment', 'is': dict(os.environ)}))"
    stub = tmp_path / "python"
    stub.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{script}"\n')
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    engine = EngineProcess([], log_file=tmp_path / "engine.log")
    event = engine.events.get(timeout=300)
    assert event is not None
    assert engine.wait(300) == 0
    found = event["is"]
    assert not set(SECRETS) & set(found)
    assert "s3cret" not in str(found)
    assert (found["OMP_NUM_THREADS"], found["CUDA_VISIBLE_DEVICES"], found["HF_HUB_OFFLINE"]) == ("1", "0", "1")
