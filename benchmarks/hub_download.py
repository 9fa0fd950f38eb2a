"""The hub against nginx with sendfile, on loopback, with the same stock client; its lists; the memory of transfers.

    python -m benchmarks.hub_download [--bytes 2000000000] [--rounds 3]

Limits: a download by one client at least 0.7 x nginx's speed; a page of a list of 10,000 repositories with 100,000
files under 50 ms, and so a page of a tree with last commits after 1,000 commits of 1,000 files; while 16 clients
download at a limited rate, 99 of 100 other calls under 100 ms; the server grows by less than 64 MB per transfer, down
and up. Exits 1 where one is missed. nginx is Debian's (`apt-get install nginx-light`); without it only the other limits
are measured.
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
from sqlalchemy import insert

from app.db.migrate import migrate
from app.db.models import CommitFileRow, CommitRow, RefRow, RepoRow, RepoTagRow
from app.db.session import connect, session_factory
from app.hub.publishing import StagedFile, commit_files
from app.settings import Settings
from app.storage.opening import open_stores

SPEED_RATIO = 0.7
PAGE_SECONDS = 0.050
MEMORY_BYTES = 64 << 20
LATENCY_SECONDS = 0.100
REPOS, FILES_EACH = 10_000, 10
DEEP_COMMITS, DEEP_FILES = 1_000, 1_000
CLIENTS, RATE_BYTES, CALLS = 16, 10_000_000, 600
BLOCK = 64 << 20

CLIENT = """
import sys, time
from huggingface_hub import hf_hub_download
began = time.perf_counter()
hf_hub_download("bench/big", "big.bin")
print("SECONDS", time.perf_counter() - began)
"""
DOWNLOADERS = """
import sys, threading, time
import httpx
url, clients, rate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def download():
    while True:
        with httpx.stream("GET", url, timeout=60) as answer:
            began, received = time.monotonic(), 0
            for piece in answer.iter_raw(262144):
                received += len(piece)
                time.sleep(max(0.0, received / rate - (time.monotonic() - began)))
for _ in range(clients):
    threading.Thread(target=download, daemon=True).start()
sys.stdin.read()
"""
UPLOADER = """
import sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("bench/up", exist_ok=True)
api.upload_file(path_or_fileobj=sys.argv[1], path_in_repo="up.bin", repo_id="bench/up")
"""
NGINX = """
{user} daemon off; worker_processes 1; pid {root}/nginx.pid; error_log {root}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream;
  client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location = /bench/big/resolve/main/big.bin {{ alias {file}; add_header X-Repo-Commit {commit}; }}
  }}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_file(path: Path, size: int) -> None:
    block = os.urandom(min(BLOCK, size))
    with path.open("wb") as file:
        left = size
        while left:
            left -= file.write(block[: min(len(block), left)])


def fill_lists(settings: Settings) -> None:
    engine = connect(settings.database)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with session_factory(engine).begin() as session:
        for first in range(0, REPOS, 1000):
            numbers = range(first + 1000, first + 2000)
            rows = [
                {"id": n, "name": f"team{n % 50}/model-{n:05}", "created_at": start + timedelta(seconds=n),
                 "last_modified": start + timedelta(seconds=n)} for n in numbers
            ]  # fmt: skip
            session.execute(insert(RepoRow), rows)
            session.execute(
                insert(CommitRow), [{"id": n, "repo_id": n, "oid": f"{n:040x}", "message": "m"} for n in numbers]
            )
            session.execute(
                insert(RefRow), [{"repo_id": n, "kind": "branch", "name": "main", "commit_id": n} for n in numbers]
            )
            session.execute(insert(RepoTagRow), [{"repo_id": n, "tag": f"tag{n % 7}"} for n in numbers])
            files = [
                {"commit_id": n, "path": f"model-{index:05}.safetensors", "size": 5, "sha256": "0" * 64,
                 "git_oid": "0" * 40} for n in numbers for index in range(FILES_EACH)
            ]  # fmt: skip
            session.execute(insert(CommitFileRow), files)
    engine.dispose()


def fill_history(settings: Settings) -> None:
    """A repository whose every commit changes one of its files, as the service itself writes them."""
    engine = connect(settings.database)
    sessions = session_factory(engine)
    files = {f"d{n % 50}/f{n:05}.json": n for n in range(DEEP_FILES)}
    with sessions.begin() as session:
        for commit in range(DEEP_COMMITS):
            files[f"d{commit % 50}/f{commit % DEEP_FILES:05}.json"] = DEEP_FILES + commit
            staged = [StagedFile(path, 5, f"{content:064x}", f"{content:040x}") for path, content in files.items()]
            commit_files(session, "bench/deep", staged, f"commit {commit}")
            session.expunge_all()
    engine.dispose()


@contextmanager
def process(command: list[str], environment: dict[str, str], url: str) -> Iterator[psutil.Process]:
    with subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    httpx.get(url)
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield psutil.Process(running.pid)
        finally:
            running.terminate()


def seconds(url: str, home: Path) -> float:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT],
        env=os.environ | {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    shutil.rmtree(home)
    return float(done.stdout.rpartition("SECONDS ")[2])


def peak_bytes(server: psutil.Process) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def measure_lists(url: str) -> bool:
    pages = {
        "names": "/api/models",
        "second page": "/api/models?limit=100",
        "newest": "/api/models?sort=lastModified&limit=100",
        "with files": "/api/models?full=true&limit=100",
        "found": "/api/models?search=del-09&limit=100",
        "tagged": "/api/models?filter=tag3&sort=createdAt&limit=100",
        "a tree": "/api/models/bench/deep/tree/main?recursive=true&limit=100",
        "expanded": "/api/models/bench/deep/tree/main?expand=true",
    }
    met = True
    with httpx.Client(base_url=url, timeout=60) as http:
        for name, path in pages.items():
            where = http.get(path).links["next"]["url"] if name == "second page" else path
            taken = []
            for _ in range(9):
                began = time.perf_counter()
                http.get(where).raise_for_status()
                taken.append(time.perf_counter() - began)
            middle = statistics.median(taken)
            met &= middle < PAGE_SECONDS
            print(f"list of {REPOS:,} repositories, {REPOS * FILES_EACH:,} files: {name:12} {1000 * middle:6.1f} ms")
    return met


def measure_latency(url: str, server: psutil.Process) -> bool:
    """Other calls while clients download slowly; and the memory that one such download takes."""
    before = server.memory_info().rss
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")
    command = [sys.executable, "-c", DOWNLOADERS, f"{url}/bench/big/resolve/main/big.bin"]
    paths = ("/api/models?limit=100", "/api/models/bench/big", "/v1/jobs", "/healthz", "/api/models/bench/big/refs")
    taken = []
    with (
        subprocess.Popen([*command, str(CLIENTS), str(RATE_BYTES)], stdin=subprocess.PIPE) as downloaders,
        httpx.Client(base_url=url, timeout=60) as http,
    ):
        time.sleep(1.0)
        for number in range(CALLS):
            began = time.perf_counter()
            http.get(paths[number % len(paths)]).raise_for_status()
            taken.append(time.perf_counter() - began)
            time.sleep(0.005)
        downloaders.kill()
    p99 = statistics.quantiles(taken, n=100)[98]
    each = (peak_bytes(server) - before) / CLIENTS
    print(
        f"calls beside {CLIENTS} downloads of {RATE_BYTES / 1e6:.0f} MB/s: "
        f"p50 {1000 * statistics.median(taken):.1f} ms, p99 {1000 * p99:.1f} ms; {each / 1e6:.1f} MB per download"
    )
    return p99 < LATENCY_SECONDS and each < MEMORY_BYTES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=2_000_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        settings = Settings(data_dir=root / "data")
        settings.data_dir.mkdir()
        migrate(settings.database)
        big = root / "big.bin"
        make_file(big, arguments.bytes)
        engine = connect(settings.database)
        sessions = session_factory(engine)
        store, _ = open_stores(settings, sessions)
        blob = store.put_file(big)
        with sessions.begin() as session:
            commit = commit_files(
                session, "bench/big", [StagedFile("big.bin", blob.size, blob.sha256, blob.git_oid)], "Big"
            )
        engine.dispose()
        fill_lists(settings)
        fill_history(settings)
        api_port, nginx_port = free_port(), free_port()
        ours, theirs = f"http://127.0.0.1:{api_port}", f"http://127.0.0.1:{nginx_port}"
        (root / "nginx.conf").write_text(
            NGINX.format(
                user="user root;" if os.geteuid() == 0 else "",
                root=root,
                port=nginx_port,
                file=store.local_path(blob.sha256),
                commit=commit.oid,
            )
        )
        nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        met = True
        api = [sys.executable, "-m", "app.cli", "api", "--port", str(api_port)]
        with process(api, {"STREAMLINE_DATA_DIR": str(settings.data_dir)}, f"{ours}/healthz") as server:
            met &= measure_lists(ours)
            met &= measure_latency(ours, server)
            Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # the peak counts from here
            before = server.memory_info().rss
            if nginx:
                with process([nginx, "-c", str(root / "nginx.conf"), "-p", str(root)], {}, theirs):
                    pairs = [
                        (seconds(ours, root / "home"), seconds(theirs, root / "home")) for _ in range(arguments.rounds)
                    ]
                ratio = statistics.median(other / own for own, other in pairs)
                own, other = (statistics.median(column) for column in zip(*pairs, strict=True))
                speed = [arguments.bytes / value / 1e6 for value in (own, other)]
                print(f"download: {speed[0]:.0f} MB/s, nginx {speed[1]:.0f} MB/s; ratio {ratio:.2f}")
                met &= ratio >= SPEED_RATIO
            else:
                print("download: nginx was not found, so that nothing can be said about it")
                seconds(ours, root / "home")
            down = peak_bytes(server) - before
            upload = {"HF_ENDPOINT": ours, "HF_HOME": str(root / "up"), "HF_HUB_DISABLE_XET": "1"}
            subprocess.run(
                [sys.executable, "-c", UPLOADER, str(big)], env=os.environ | upload, check=True, capture_output=True
            )
            up = peak_bytes(server) - before
            print(f"server's peak memory grew by {down / 1e6:.0f} MB over downloads, {up / 1e6:.0f} MB over an upload")
            met &= max(down, up) < MEMORY_BYTES
    print(
        f"limits (ratio {SPEED_RATIO}, page {1000 * PAGE_SECONDS:.0f} ms, p99 {1000 * LATENCY_SECONDS:.0f} ms, memory "
        f"{MEMORY_BYTES / 1e6:.0f} MB): "
        f"{'met' if met else 'MISSED'}"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
