"""A whole job with the store in a bucket of a real S3 server."""

import json
import subprocess
import sys
import uuid
from pathlib import Path

import httpx

from tests.s3_server import make_bucket, make_full, uploads_under_way
from tests.service_process import QUICK_JOB, SHALLOW_MODEL, Stages, running_service, wait_until


def test_a_job_over_a_bucket_is_published_and_every_byte_can_be_verified(s3_endpoint: str, tmp_path: Path) -> None:
    environment = {
        "STREAMLINE_STORE_URL": make_bucket(s3_endpoint, f"job-{uuid.uuid4().hex}") + "/prefix",
        "STREAMLINE_S3_ENDPOINT_URL": s3_endpoint,
        "STREAMLINE_GC_GRACE_SECONDS": "0",
    }
    with running_service(tmp_path / "data", environment) as service, service.client() as client:
        job = client.wait(client.submit(QUICK_JOB)["id"], timeout=600)
        assert job["state"] == "succeeded", job["error"]
        report = httpx.get(f"{service.url}/v1/jobs/{job['id']}/report").json()
        assert report["removed_layers"] == job["result"]["removed_layers"]
        weights = f"{service.url}/{job['result']['repo']}/resolve/{job['result']['revision']}/model.safetensors"
        assert len(httpx.get(weights).content) == int(httpx.head(weights).headers["content-length"])
        copy, result = tmp_path / "copy", job["result"]
        download = f"snapshot_download({result['repo']!r}, revision={result['revision']!r}, local_dir={str(copy)!r})"
        subprocess.run(
            [sys.executable, "-c", f"from huggingface_hub import snapshot_download; {download}"],
            env=service.environment | {"HF_ENDPOINT": service.url, "HF_HOME": str(tmp_path / "home")},
            check=True,
            capture_output=True,
        )
        verified = subprocess.run(
            [sys.executable, "-m", "app.cli", "verify", copy, "--key", f"{service.url}/v1/signing-key", "--json"],
            env=service.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert json.loads(verified.stdout)["passed"] is True, verified.stdout
        for command in (["gc", "--json"], ["fsck", "--json"]):
            done = subprocess.run(
                [sys.executable, "-m", "app.cli", *command],
                env=service.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        findings = json.loads(done.stdout)
    assert (findings["missing"], findings["corrupt"], findings["unreferenced"]) == ([], [], [])
    assert findings["artefacts"] > 5
    assert not (tmp_path / "data" / "store" / "blobs").exists(), "nothing went to the disk instead"


def test_a_bucket_that_is_full_at_publication_fails_the_job_and_publishes_nothing(
    s3_endpoint: str, tmp_path: Path
) -> None:
    """The same job goes on from there once there is room: no stage runs again."""
    url = make_bucket(s3_endpoint, f"fills-{uuid.uuid4().hex}")
    environment = {"STREAMLINE_STORE_URL": url, "STREAMLINE_S3_ENDPOINT_URL": s3_endpoint}
    with running_service(tmp_path / "data", environment) as service, service.client() as client:
        job_id = client.submit(QUICK_JOB | {"replacement": {"kind": "none", "tokens": 2048}})["id"]
        stages = Stages(client, job_id)
        wait_until(lambda: stages.look() == "verify", seconds=600, what="the checkpoint is made")
        make_full(s3_endpoint, url)
        job = client.wait(job_id, timeout=600)
        assert (job["state"], job["attempt"]) == ("failed", 1), "room is made by a person, not by trying again"
        assert (job["error"]["code"], job["error"]["stage"]) == ("disk_full", "publish")
        there = {repo["id"] for repo in httpx.get(f"{service.url}/api/models").json()}
        assert there == {"demo/stories-24l", SHALLOW_MODEL}
        assert httpx.get(f"{service.url}/v1/jobs/{job_id}/report").status_code == 404
        assert uploads_under_way(s3_endpoint, url) == 0
        assert client.ready(), "the service still answers"
        make_full(s3_endpoint, url, None)
        client.retry(job_id)
        job = client.wait(job_id, timeout=600)
        assert (job["state"], job["attempt"]) == ("succeeded", 2), job["error"]
        stages.look()
        assert len(stages.finished) == len(set(stages.finished)), "nothing ran twice"
