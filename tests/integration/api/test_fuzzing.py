"""Requests made up from the OpenAPI document, with every check of schemathesis: for each scope, without a key, and on a
service that has no keys yet, where everybody on this machine may do everything.

No answer is a server's error, and none is another than the document says. `make fuzz` goes on for longer, and makes up
other requests each time; otherwise they are the same ones, so that a change is judged by what it changed.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.auth import keys
from app.auth.scopes import Scope
from app.jobs import repository
from tests.integration.api.conftest import Service, jsonl, running, settings_for

SECONDS = int(os.environ.get("STREAMLINE_TEST_FUZZ_SECONDS", "6"))
SEED = [] if "STREAMLINE_TEST_FUZZ_SECONDS" in os.environ else ["--seed", "1"]
NOBODY, OPEN = "nobody", "open"
FILE = '"path.name" = "report-1.json"\n'
# Some rules are between fields, or about what is in the hub: such requests are refused although each field is right.
BEYOND_SCHEMAS = "positive_data_acceptance"
# Where everybody may do everything, a key that is missing or wrong is no fault; all of these hold there too.
WITHOUT_KEYS = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
WITHOUT_KEYS += "response_schema_conformance,unsupported_method,use_after_free,ensure_resource_availability"


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 600)
@pytest.mark.parametrize("who", [NOBODY, *Scope, OPEN])
def test_no_request_breaks_the_service_or_is_answered_in_an_undocumented_way(who: str, tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", None).model_copy(update={"webhook_private": ("127.0.0.1",)})
    with running(settings) as service:
        config = tmp_path / "schemathesis.toml"
        config.write_text(_known_ids(service))
        headers = []
        if who != OPEN:
            with service.sessions.begin() as session:
                _, operator = keys.create(session, "operator", Scope.ADMIN)
                spare, _ = keys.create(session, "spare", Scope.READ)  # that requests revoke, and not their own
                if who != NOBODY:
                    headers = ["--header", f"Authorization: Bearer {keys.create(session, who, Scope(who))[1]}"]
            with config.open("a") as known:
                known.write(f'key_id = "{spare.id}"\n')
            service.http.headers["Authorization"] = f"Bearer {operator}"
        done = subprocess.run(
            [
                *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config)),
                *("run", f"{service.url}/openapi.json", "--max-time", str(SECONDS), "--continue-on-failure"),
                *("--request-timeout", "60", "--checks", WITHOUT_KEYS if who == OPEN else "all"),
                *("--exclude-checks", BEYOND_SCHEMAS),
                *(*headers, *SEED, "--no-color"),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert service.http.get("/v1/jobs").status_code == 200


def _known_ids(service: Service) -> str:
    """Names of things that are there, so that requests reach more than the answer that nothing is.

    The job has succeeded, which no request can change: the stream of its events ends.
    """
    job, dataset = service.submit()["id"], service.upload(jsonl("Once upon a time."))["id"]
    with service.sessions.begin() as session:
        claim = repository.claim(session, job, owner="worker", lease_seconds=60)
        assert claim is not None
        result = {"repo": "demo/out", "revision": "0" * 40, "removed_layers": [9, 10], "metrics": {}}
        repository.succeed(session, job, claim.token, verdict="pass", gates=[], result=result)
    # No webhook's: requests remove it, and schemathesis would take its id for that of the one it made last.
    ids = {"job_id": job, "dataset_id": dataset}
    return "\n".join(["[parameters]", *(f'{name} = "{known}"' for name, known in ids.items()), FILE])
