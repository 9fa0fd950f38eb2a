"""Models of an upstream hub: a service of our own behind a proxy with bad days, and two replicas that copy from it."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.client import Streamline
from app.db.migrate import migrate
from app.db.session import connect, session_factory
from app.hub.publishing import StagedFile, commit_files
from app.settings import Settings
from app.storage.blobs import BlobStore
from app.storage.opening import open_stores
from tests.conftest import empty_redis, postgres_database
from tests.integration.api.conftest import problem_of
from tests.integration.hub.faulty_proxy import Proxy, faulty_proxy
from tests.ports import unused_port
from tests.service_process import QUICK_JOB, ServiceProcesses, wait_until
from tests.shallow_model import write_shallow_model

pytestmark = [pytest.mark.postgres, pytest.mark.redis]

MODEL = "up/stories"
TOKEN = "hf_theTokenThatTheUpstreamIsShownAndNobodyElse"
MAX_BYTES = 256 << 20
BIG_BYTES = 12 << 20
FRESH_SECONDS = 1.0


@dataclass(frozen=True)
class Pair:
    """The upstream's proxy, and two replicas of the service that copies from it."""

    proxy: Proxy
    service: ServiceProcesses
    replicas: tuple[str, str]
    upstream: httpx.Client
    publish: Callable[..., str]

    def get(self, path: str, *, replica: int = 0, **more: Any) -> httpx.Response:
        return httpx.get(self.replicas[replica] + path, timeout=60, trust_env=False, **more)

    def blobs(self) -> set[str]:
        return {path.parent.name + path.name for path in (self.service.data_dir / "store").glob("blobs/sha256/*/*")}


def _publisher(sessions: sessionmaker[Session], store: BlobStore) -> Callable[..., str]:
    def publish(repo: str, contents: dict[str, bytes], *, sizes: dict[str, int] | None = None) -> str:
        files = []
        for path, content in contents.items():
            blob = store.put_bytes(content)
            files.append(StagedFile(path, blob.size, blob.sha256, blob.git_oid))
        for path, size in (sizes or {}).items():  # named, and not there
            files.append(StagedFile(path, size, hashlib.sha256(path.encode()).hexdigest(), "0" * 40))
        with sessions.begin() as session:
            return commit_files(session, repo, files, f"m{time.monotonic_ns()}").oid

    return publish


def _second_replica(service: ServiceProcesses, url: str) -> "subprocess.Popen[bytes]":
    api = service._spawn("api-2", "app.cli", "api", "--port", url.rpartition(":")[2])
    with Streamline(url) as client:
        wait_until(client.ready, what="the second replica is ready")
    return api


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, stories_model: Path) -> Iterator[Pair]:
    root = tmp_path_factory.mktemp("pair")
    settings = Settings(data_dir=root / "upstream")
    settings.data_dir.mkdir()
    migrate(settings.database)
    engine = connect(settings.database)
    sessions = session_factory(engine)
    store, _ = open_stores(settings, sessions)
    publish = _publisher(sessions, store)
    publish(MODEL, files_of(stories_model, b"\x3b"))
    with ExitStack() as stack:
        upstream = ServiceProcesses(settings.data_dir, {})
        stack.callback(upstream.stop)
        upstream.start_api()
        proxy = stack.enter_context(faulty_proxy(upstream.url))
        environment = {
            "STREAMLINE_DATABASE_URL": stack.enter_context(postgres_database()),
            "STREAMLINE_BROKER_URL": empty_redis(),
            "STREAMLINE_UPSTREAM": proxy.url,
            "STREAMLINE_UPSTREAM_TOKEN": TOKEN,
            "STREAMLINE_UPSTREAM_MAX_BYTES": str(MAX_BYTES),
            "STREAMLINE_UPSTREAM_FRESH_SECONDS": str(FRESH_SECONDS),
        }
        service = ServiceProcesses(root / "service", environment)
        stack.callback(service.stop)
        service.migrate()
        service.start_api()
        second = unused_port()
        replicas = (service.url, f"http://127.0.0.1:{second}")
        service.workers.append(_second_replica(service, replicas[1]))
        http = stack.enter_context(httpx.Client(base_url=upstream.url))
        try:
            yield Pair(proxy, service, replicas, http, publish)
        except BaseException:
            print(service.logs())
            raise
        finally:
            engine.dispose()


@pytest.fixture(autouse=True)
def good_day(pair: Pair) -> Iterator[None]:
    pair.proxy.asked.clear()
    yield
    if pair.proxy.down:
        time.sleep(FRESH_SECONDS)  # an upstream that did not answer is left alone for so long
    pair.proxy.down, pair.proxy.sends_away = False, None
    for faults in (pair.proxy.cuts, pair.proxy.damaged, pair.proxy.slow, pair.proxy.held):
        faults.clear()


def client(pair: Pair, home: Path, code: str) -> Any:
    """Run Python code in a fresh process with the stock client pointed at the copying service."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON", "STREAMLINE_"))}
    environment = kept | {"HF_ENDPOINT": pair.service.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    script = f"import json\nresult = None\n{code}\nprint('RESULT', json.dumps(result))"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=home.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("RESULT ")[2])


def test_a_stock_client_gets_what_is_not_here_and_its_second_snapshot_asks_nobody(
    pair: Pair, tmp_path: Path, stories_model: Path
) -> None:
    code = f"from huggingface_hub import snapshot_download\nresult = snapshot_download('{MODEL}')"
    snapshot = Path(client(pair, tmp_path / "home", code))
    assert snapshot.name == pair.upstream.get(f"/api/models/{MODEL}").json()["sha"], "pinned under its own commit"
    files = files_of(stories_model, b"\x3b")
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == files
    assert len(pair.proxy.of("/model.safetensors")) == 1
    assert {asked.authorization for asked in pair.proxy.asked} == {f"Bearer {TOKEN}"}
    pair.proxy.down = True
    again = Path(client(pair, tmp_path / "other", code))
    assert (again / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_sixteen_who_ask_at_once_make_one_download(pair: Pair) -> None:
    big = os.urandom(BIG_BYTES)
    commit = pair.publish("up/asked", {"big.gguf": big, "model.safetensors": safetensors(), "README.md": b"# Read me"})
    pair.proxy.slow["/big.gguf"] = 0.005
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: pair.get("/up/asked/resolve/main/big.gguf", replica=n % 2), range(16)))
    assert all(answer.content == big for answer in answers)
    assert {answer.headers["X-Repo-Commit"] for answer in answers} == {commit}
    assert len(pair.proxy.of("/big.gguf")) == 1
    assert len(pair.proxy.of("/README.md")) == 1


def test_bytes_are_served_while_they_come(pair: Pair) -> None:
    big = os.urandom(BIG_BYTES)
    pair.publish("up/slow", {"big.gguf": big})
    pair.proxy.held["/big.gguf"] = go_on = threading.Event()
    try:
        with httpx.stream("GET", f"{pair.service.url}/up/slow/resolve/main/big.gguf", timeout=60) as answer:
            pieces = answer.iter_raw()
            first = next(pieces)  # which does not wait for the last
            go_on.set()
            assert first + b"".join(pieces) == big
    finally:
        go_on.set()


def test_a_download_that_is_cut_goes_on_from_there(pair: Pair) -> None:
    big = os.urandom(BIG_BYTES)
    pair.publish("up/cut", {"big.gguf": big})
    pair.proxy.cuts["/big.gguf"] = 5 << 20
    assert pair.get("/up/cut/resolve/main/big.gguf").content == big
    first, second = pair.proxy.of("/big.gguf")
    assert first.range == f"bytes=0-{BIG_BYTES - 1}"
    assert second.range is not None
    assert 4 << 20 < int(second.range.removeprefix("bytes=").partition("-")[0]) <= 5 << 20


def test_damaged_bytes_are_never_received_whole_and_never_kept(pair: Pair) -> None:
    big = os.urandom(BIG_BYTES)
    pair.publish("up/damaged", {"big.gguf": big, "small.txt": b"small"})
    pair.proxy.damaged.add("/small.txt")
    refused = pair.get("/up/damaged/resolve/main/big.gguf")
    assert (refused.status_code, refused.headers["X-Error-Code"]) == (502, "UpstreamDamaged")
    pair.proxy.damaged = {"/big.gguf"}
    with pytest.raises(httpx.RemoteProtocolError):
        pair.get("/up/damaged/resolve/main/big.gguf")
    assert hashlib.sha256(big).hexdigest() not in pair.blobs()
    pair.proxy.damaged.clear()

    def healed() -> bool:  # the copying service tries once more by itself, and that may still be under way
        try:
            return pair.get("/up/damaged/resolve/main/big.gguf").content == big
        except httpx.RemoteProtocolError:
            return False

    wait_until(healed, seconds=120, what="right bytes are served")


def test_a_branch_that_moves_is_followed_and_its_old_commit_stays(pair: Pair) -> None:
    old = pair.publish("up/moving", {"config.json": b'{"v": 1}'})
    assert pair.get("/up/moving/resolve/main/config.json").content == b'{"v": 1}'
    new = pair.publish("up/moving", {"config.json": b'{"v": 2}'})

    def moved() -> bool:
        return pair.get("/up/moving/resolve/main/config.json").headers["X-Repo-Commit"] == new

    wait_until(moved, seconds=120, what="the copy's branch follows")
    pair.proxy.down = True
    assert pair.get(f"/up/moving/resolve/{old}/config.json").content == b'{"v": 1}'
    assert pair.get("/up/moving/resolve/main/config.json").content == b'{"v": 2}'


def test_an_upstream_that_is_down_is_an_error_of_its_own_and_what_is_here_is_served(pair: Pair, tmp_path: Path) -> None:
    pair.publish("up/before", {"config.json": b"{}"})
    assert pair.get("/up/before/resolve/main/config.json").status_code == 200
    pair.proxy.down = True
    time.sleep(FRESH_SECONDS)
    for replica in (0, 1):
        assert pair.get("/up/before/resolve/main/config.json", replica=replica).status_code == 200
    away = pair.get("/up/never-asked/resolve/main/config.json")
    assert (away.status_code, away.headers["X-Error-Code"]) == (502, "UpstreamUnavailable")
    assert TOKEN not in away.text
    code = """
from huggingface_hub import HfApi, hf_hub_download
result = []
for call in (lambda: HfApi().model_info("up/never-asked"), lambda: hf_hub_download("up/never-asked", "config.json")):
    try:
        call()
    except Exception as error:
        result.append([type(error).__name__, "upstream hub" in str(error) + str(error.__cause__)])
"""
    assert client(pair, tmp_path / "home", code) == [["HfHubHTTPError", True], ["LocalEntryNotFoundError", True]]
    body = {"model": {"repo": "up/never-asked"}, "target": {"sparsity": 0.25}}
    problem = problem_of(httpx.post(f"{pair.service.url}/v1/jobs", json=body), 502)
    assert (problem["code"], problem["pointer"]) == ("upstream_unavailable", "/model/repo")


def test_what_the_upstream_has_not_is_asked_for_once(pair: Pair) -> None:
    began = time.monotonic()
    for _ in range(20):
        answer = pair.get("/up/absent/resolve/main/config.json", headers={"Authorization": "Bearer hf_any"})
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "RepoNotFound")
    assert len(pair.proxy.of("/api/models/up/absent/revision/main")) <= 1 + (time.monotonic() - began) / FRESH_SECONDS
    assert pair.get(f"/{MODEL}/resolve/nope/config.json").headers["X-Error-Code"] == "RevisionNotFound"


def test_the_token_goes_to_no_other_host(pair: Pair) -> None:
    big = os.urandom(2 << 20)
    pair.publish("up/elsewhere", {"model.safetensors": safetensors(big)})
    with faulty_proxy(pair.proxy.target) as cdn:
        pair.proxy.sends_away = cdn.url
        assert pair.get("/up/elsewhere/resolve/main/model.safetensors").content == safetensors(big)
        assert {asked.authorization for asked in cdn.asked} == {None}
    assert {asked.authorization for asked in pair.proxy.asked} == {f"Bearer {TOKEN}"}
    assert TOKEN not in pair.service.logs()


def test_what_is_not_copied_is_refused_with_the_reason(pair: Pair) -> None:
    pair.publish("up/pickled", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    pair.publish("up/huge", {"config.json": b"{}"}, sizes={"model.safetensors": MAX_BYTES})
    for repo, words in (("up/pickled", "only in"), ("up/huge", "STREAMLINE_UPSTREAM_MAX_BYTES")):
        refused = pair.get(f"/{repo}/resolve/main/config.json")
        assert (refused.status_code, refused.headers["X-Error-Code"]) == (403, "UpstreamRefused")
        assert words in refused.json()["error"]
    codes = []
    for repo in ("up/pickled", "up/huge", "up/absent"):
        answer = httpx.post(f"{pair.service.url}/v1/plans", json={"model": {"repo": repo}, "target": {"layers": 1}})
        codes.append(problem_of(answer, 422)["code"])
    assert codes == ["no_safetensors", "model_not_fetched", "unknown_model"]
    both = pair.publish("up/both", {"model.safetensors": safetensors(), "pytorch_model.bin": b"x"})
    listed = pair.get(f"/api/models/up/both/tree/{both}").json()
    assert [entry["path"] for entry in listed] == ["model.safetensors"], "pickles are left out"


def test_our_own_names_win_and_a_copy_takes_no_changes(pair: Pair) -> None:
    pair.publish("up/taken", {"config.json": b'{"theirs": 1}'})
    made = httpx.post(f"{pair.service.url}/api/repos/create", json={"name": "taken", "organization": "up"})
    assert made.status_code == 200
    assert pair.get("/up/taken/resolve/main/config.json").headers["X-Error-Code"] == "EntryNotFound"
    assert pair.proxy.asked == []
    assert pair.get(f"/api/models/{MODEL}").status_code == 200
    lines = [{"key": "header", "value": {"summary": "m"}}, {"key": "file", "value": {"path": "a", "content": "b"}}]
    body = "\n".join(map(json.dumps, lines))
    refused = httpx.post(f"{pair.service.url}/api/models/{MODEL}/commit/main", content=body)
    assert refused.status_code == 403
    assert "read-only copy" in refused.json()["error"]
    job = QUICK_JOB | {"model": {"repo": "up/taken"}, "output": {"repo": MODEL}}
    assert problem_of(httpx.post(f"{pair.service.url}/v1/jobs", json=job), 422)["code"] == "unreadable_model"


def test_a_job_on_an_upstream_model_is_pinned_at_submission_and_fetches_with_progress(
    pair: Pair, tmp_path: Path
) -> None:
    write_shallow_model(tmp_path / "model")
    files = files_of(tmp_path / "model", b"\x3c")
    weights = files["model.safetensors"]
    name = "up/for-a-job"
    commit = pair.publish(name, files)
    pair.proxy.slow["/model.safetensors"] = 0.01
    with pair.service.client() as api:
        job = api.submit(QUICK_JOB | {"model": {"repo": name, "revision": "main"}})
        assert job["spec"]["model"]["revision"] == commit
        assert len(pair.proxy.of("/model.safetensors")) == 1, "its header alone"
        assert hashlib.sha256(weights).hexdigest() not in pair.blobs()
        pair.publish(name, {"config.json": b"{}"})  # what comes later does not concern the job
        if not pair.service.workers[1:]:  # behind the second replica
            pair.service.start_worker()
        done = api.wait(job["id"], timeout=600)
        assert done["state"] == "succeeded", done["error"]
        events = api.events(job["id"])
    fetching = [event["data"] for event in events if event["event"] == "progress" and event["data"]["stage"] == "fetch"]
    assert fetching, "bytes were reported on their way"
    revision = done["result"]["revision"]
    base = pair.get(f"/{done['result']['repo']}/resolve/{revision}/provenance.json").json()["base"]
    assert base == {"repo": name, "commit": commit}


def test_a_job_that_is_cancelled_while_it_fetches_goes_on_from_there(pair: Pair, stories_model: Path) -> None:
    pair.publish("up/cancelled", files_of(stories_model, b"\x3d"))
    if not pair.service.workers[1:]:
        pair.service.start_worker()
    pair.proxy.slow["/model.safetensors"] = 0.1
    with pair.service.client() as api:
        job_id = api.submit(QUICK_JOB | {"model": {"repo": "up/cancelled"}})["id"]

        def fetched() -> int:
            events = [event["data"] for event in api.events(job_id) if event["event"] == "progress"]
            return int(events[-1]["done"]) if events else 0

        wait_until(lambda: fetched() > 1 << 20, seconds=120, what="a megabyte has come")
        api.cancel(job_id)
        assert api.wait(job_id, timeout=120)["state"] == "cancelled"
        pair.proxy.asked.clear()
        pair.proxy.slow.clear()
        api.retry(job_id)
        wait_until(lambda: pair.proxy.of("/model.safetensors"), seconds=120, what="the job fetches again")
        start = (pair.proxy.of("/model.safetensors")[0].range or "").removeprefix("bytes=").partition("-")[0]
        assert int(start) > 1 << 20, "what had come is not fetched again"
        api.cancel(job_id)
        assert api.wait(job_id, timeout=120)["state"] == "cancelled"


def test_a_replica_that_dies_leaves_its_download_to_the_other(pair: Pair) -> None:
    big = os.urandom(BIG_BYTES)
    pair.publish("up/orphaned", {"big.gguf": big})
    pair.proxy.slow["/big.gguf"] = 0.05
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(pair.get, "/up/orphaned/resolve/main/big.gguf", replica=1)
        wait_until(lambda: pair.proxy.of("/big.gguf"), what="the second replica fetches")
        follower = pool.submit(pair.get, "/up/orphaned/resolve/main/big.gguf", replica=0)
        time.sleep(1.5)
        pair.service.workers[0].kill()
        pair.proxy.slow.clear()
        assert follower.result().content == big
        with pytest.raises(httpx.TransportError):
            first.result()
    pair.service.workers[0].wait()
    pair.service.workers[0] = _second_replica(pair.service, pair.replicas[1])
    one, other = pair.proxy.of("/big.gguf")
    assert one.range == f"bytes=0-{BIG_BYTES - 1}"
    assert other.range != one.range, "it went on from what had come"
    fsck = [sys.executable, "-m", "app.cli", "fsck", "--json"]
    done = subprocess.run(fsck, env=pair.service.environment, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["clean"]) == (0, True), done.stdout


def files_of(model: Path, last: bytes) -> dict[str, bytes]:
    """The model's files, its weights with another last byte: nobody has had these bytes before."""
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    return files | {"model.safetensors": files["model.safetensors"][:-1] + last}


def safetensors(content: bytes = b"\0" * 16) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}}).encode()
    return len(header).to_bytes(8, "little") + header + content
