"""Broken models and full disks: a typed failure with what to do, and nothing half-visible."""

import re
import subprocess
import sys
from pathlib import Path

import httpx

from app.client import Streamline
from tests.acceptance.backends import EMBEDDED, SERVERS, backend
from tests.ports import unused_port
from tests.service_process import (
    BUNDLED_JOB,
    QUICK_JOB,
    REPOSITORY,
    SHALLOW_MODEL,
    Stages,
    running_service,
    told_of,
    wait_until,
)


@backend(EMBEDDED)
def test_a_weights_file_that_broke_after_the_submit_fails_the_job_at_fetch_by_name(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with running_service(tmp_path / "data", environment, workers=0) as service, service.client() as client:
        job_id = client.submit(QUICK_JOB)["id"]
        tree = httpx.get(f"{service.url}/api/models/{SHALLOW_MODEL}/tree/main").json()
        (digest,) = [file["lfs"]["oid"] for file in tree if file["path"] == "model.safetensors"]
        blob = tmp_path / "data" / "store" / "blobs" / "sha256" / digest[:2] / digest[2:]
        blob.chmod(0o644)
        blob.write_bytes(blob.read_bytes()[:-1000])
        service.start_worker()
        job = client.wait(job_id, timeout=600)
        told = told_of(service.url, job_id)
    assert job["state"] == "failed"
    assert (job["error"]["code"], job["error"]["stage"]) == ("corrupt_model", "fetch")
    assert "model.safetensors" in job["error"]["detail"]
    assert str(tmp_path) not in told
    assert job["attempt"] == 1, "a permanent error is not tried again"


def test_a_full_disk_fails_the_job_with_both_numbers_and_leaves_no_repo(tmp_path: Path) -> None:
    """The whole service on a disk of 16 MB, of which its model takes 11, and a checkpoint of 9 MB."""
    small, port = tmp_path / "small", unused_port()
    small.mkdir()
    up = f"exec {sys.executable} -m app.cli up --port {port} --data {small}/data"
    script = f"mount -t tmpfs -o size=16m tmpfs {small} && {up}"
    service = subprocess.Popen(["unshare", "-rm", "sh", "-c", script], cwd=REPOSITORY)
    try:
        with Streamline(f"http://127.0.0.1:{port}") as client:
            wait_until(client.ready, what="the service on the small disk is up")
            request = BUNDLED_JOB | {"target": {"layers": 3}, "replacement": {"kind": "none", "tokens": 2048}}
            job = client.wait(client.submit(request)["id"], timeout=600)
            assert job["state"] == "failed"
            assert (job["error"]["code"], job["error"]["stage"]) == ("disk_full", "assemble")
            needed, available = (int(word) for word in re.findall(r"\d{6,}", job["error"]["detail"]))
            assert needed > 9_000_000 > available
            assert str(small) not in told_of(client.url, job["id"])
            repos = httpx.get(f"{client.url}/api/models").json()
            assert [repo["id"] for repo in repos] == ["demo/stories-24l"]
            assert client.ready(), "the service still answers"
    finally:
        service.terminate()
        service.wait(timeout=600)


@backend(SERVERS)
def test_an_engine_that_hangs_is_found_killed_and_its_job_goes_on(environment: dict[str, str], tmp_path: Path) -> None:
    impatient = environment | {"STREAMLINE_HANG_SECONDS": "8"}
    with running_service(tmp_path / "data", impatient) as service, service.client() as client:
        job_id = client.submit(QUICK_JOB | {"replacement": {"kind": "none", "tokens": 2048}})["id"]
        stages = Stages(client, job_id)
        wait_until(lambda: stages.look() == "score", what="scoring begins")
        hung = service.engines(job_id)
        for process in hung:
            process.suspend()
        wait_until(lambda: not any(process.is_running() for process in hung), what="they are killed")
        job = client.wait(job_id, timeout=600)
        reasons = [event["data"].get("reason") or "" for event in client.events(job_id)]
    assert (job["state"], job["attempt"]) == ("succeeded", 2), job["error"]
    assert [reason[:30] for reason in reasons if "hung" in reason] == ["The engine hung: it sent no ev"]


@backend(SERVERS)
def test_a_poison_job_fails_after_its_attempts_with_the_engines_last_words(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """The worker starts its engines with an interpreter that complains and dies by a signal."""
    poison = tmp_path / "python"
    trace = f'Traceback (most recent call last):\n  File "{tmp_path}/a.py", line 1, in run\n    inside()\n'
    words = f"{trace}RuntimeError: out of luck with {tmp_path}/data/work/x/model.safetensors\n"
    (tmp_path / "words").write_text(words)
    poison.write_text(f"#!/bin/sh\ncat {tmp_path}/words >&2\nkill -KILL $$\n")
    poison.chmod(0o755)
    worker_code = (
        "import runpy, sys\n"
        f"sys.executable = {str(poison)!r}\n"
        "sys.argv = ['worker']\n"
        "runpy.run_module('worker', run_name='__main__')"
    )
    with running_service(tmp_path / "data", environment, workers=0) as service, service.client() as client:
        worker = subprocess.Popen([sys.executable, "-c", worker_code], env=service.environment, cwd=service.data_dir)
        try:
            job = client.wait(client.submit(QUICK_JOB)["id"], timeout=600)
            told = told_of(service.url, job["id"])
        finally:
            worker.terminate()
            worker.wait(timeout=120)
    assert (job["state"], job["attempt"]) == ("failed", 3)
    assert job["error"]["code"] == "engine_died"
    assert "RuntimeError: out of luck with <data>/work/x/model.safetensors" in job["error"]["detail"]
    for inside in (str(tmp_path), "Traceback", "inside()"):
        assert inside not in told, "no path and no stack"
