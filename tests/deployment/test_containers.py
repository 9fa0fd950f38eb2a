"""Dockerfile and compose file, kept honest without an engine: the same commands, environment and health checks."""

import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.service_process import ServiceProcesses, wait_until

COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()


def run(command: list[str | Path], **arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, text=True, **arguments)  # noqa: PLW1510 - callers say


def instruction(target: str, name: str) -> list[str]:
    """The exec form of an instruction in one build target."""
    stage = re.split(r"^FROM .* AS ", DOCKERFILE, flags=re.MULTILINE)
    body = next(part for part in stage if part.startswith(f"{target}\n")).replace("\\\n", " ")
    found: list[str] = json.loads(re.findall(rf"{name} (\[.*\])", body)[-1])
    return found


def test_compose_starts_what_the_images_start() -> None:
    assert instruction("api", "CMD")[:2] == ["streamline", "api"]
    assert instruction("worker", "CMD") == ["streamline", "worker"]
    assert COMPOSE["services"]["migrate"]["command"] == ["streamline", "migrate"]
    redis = COMPOSE["services"]["redis"]["command"]
    assert redis[redis.index("--appendonly") + 1] == "yes"
    assert redis[redis.index("--maxmemory-policy") + 1] == "noeviction"
    (device,) = COMPOSE["services"]["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert "deploy" not in COMPOSE["services"]["worker-cpu"]
    profiles = {name: each.get("profiles") for name, each in COMPOSE["services"].items()}
    assert {name: found for name, found in profiles.items() if found} == {
        "worker": ["gpu"], "worker-cpu": ["cpu"], "minio": ["s3"], "bucket": ["s3"]
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.redis
def test_the_api_image_installs_without_torch_and_its_commands_work(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    """What the `api` target runs, in a virtual environment of its own."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python, streamline = home / "bin" / "python", home / "bin" / "streamline"
    install: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--constraint",
        REPOSITORY / "requirements.lock",
        REPOSITORY,
    ]
    run(install, check=True, timeout=800, env=os.environ | {"PIP_NO_COMPILE": "1"})  # three commands need no more
    listed = run([python, "-m", "pip", "list"], capture_output=True, check=True).stdout.lower()
    assert not re.search(r"^(torch|transformers)\s", listed, flags=re.MULTILINE)

    service = ServiceProcesses(tmp_path / "data", {})
    names = set(COMPOSE["services"]["api"]["environment"])
    database_and_broker = {"STREAMLINE_DATABASE_URL", "STREAMLINE_BROKER_URL", "STREAMLINE_DATA_DIR"}
    bucket = {"STREAMLINE_STORE_URL", "STREAMLINE_S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert names == database_and_broker | bucket | {"AWS_DEFAULT_REGION", "STREAMLINE_LARGEST_WORKER_MEMORY"}
    environment = {"PATH": os.environ["PATH"], "STREAMLINE_DATA_DIR": str(tmp_path / "data")} | {
        "STREAMLINE_DATABASE_URL": postgres_url.replace("postgresql+psycopg://", "postgresql://"),
        "STREAMLINE_BROKER_URL": redis_url,
    }
    run([streamline, "migrate"], env=environment, check=True, cwd=tmp_path)
    command = instruction("api", "CMD")
    open_bind = [str(streamline), *command[1:-1], str(service.port)]
    refused = subprocess.run(open_bind, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert refused.returncode == 64
    assert "key" in refused.stderr
    create: list[str | Path] = [streamline, "keys", "create", "first", "--scope", "admin"]
    key = subprocess.run(
        create, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout.strip()
    api = subprocess.Popen(open_bind, env=environment, cwd=tmp_path)
    try:
        check = [str(python), *instruction("api", "HEALTHCHECK .* CMD")[1:]]
        check[-1] = check[-1].replace("8000", str(service.port))
        wait_until(lambda: subprocess.run(check, check=False, capture_output=True).returncode == 0, what="healthy")
        assert httpx.get(f"{service.url}/v1/jobs").status_code == 401
        assert httpx.get(f"{service.url}/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    finally:
        api.terminate()
        api.wait()


def test_the_api_is_imported_without_torch_and_quickly() -> None:
    code = (
        "import time; import app.main; s = time.process_time()\n"
        "import sys; print(s); assert not {'torch', 'transformers', 'worker'} & set(sys.modules), 'loaded'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert float(done.stdout) < 15, "the benchmark has the real bar; this only catches a heavy import"
