"""Every command and code block of README and docs does what it says, in the order in which a reader comes to it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook

from app.auth import keys
from app.auth.scopes import Scope
from app.db.migrate import migrate
from app.provenance.signing import load_signer
from app.settings import Settings
from tests.conftest import REPOSITORY, empty_redis, postgres_database
from tests.documentation.blocks import Block, filled_in, made_blocks, written_blocks
from tests.documentation.data import LANGUAGES, check
from tests.documentation.finished_jobs import FinishedJobs, finished_jobs
from tests.documentation.past_engine import write_past_engine
from tests.documentation.stand_ins import write_stand_ins
from tests.integration.api.conftest import running, settings_for
from tests.service_process import ServiceProcesses, running_service, wait_until

PLACES = {
    "": "reader",
    "In your receiver": "receiver",
    "Where the service runs": "machine",
    "From another machine": "elsewhere",
    "With Docker": "machine",
    "On the servers": "servers",
}
"""Title of a block that is run -> where it is run: one shell for each page and place, from its top to its bottom."""
RUN = ("sh", "python")
EXAMPLE_MESSAGE = '{"type": "job.failed", "data": {"id": "1", "verdict": null}}'
_KEPT = ("PATH", "LANG", "LD_LIBRARY_PATH")


def sessions() -> dict[tuple[str, str], list[Block]]:
    """The blocks that are run, and the output that is shown of them, by page and place."""
    found: dict[tuple[str, str], list[Block]] = {}
    place = ""
    for block in written_blocks():
        if block.language in RUN:
            assert block.title in PLACES, f"{block.place}: nobody knows where {block.title!r} is"
            place = PLACES[block.title]
        if block.language in (*RUN, "text"):
            found.setdefault((block.page, place), []).append(block)
    return found


SESSIONS = sessions()
_SERVERS = [pytest.mark.postgres, pytest.mark.redis]


@dataclass(frozen=True)
class Reader:
    """A service with everything in it that pages speak of, and where its reader sits."""

    service: ServiceProcesses
    proxy: FinishedJobs
    queued: str
    """Id of a job that waits."""
    dataset: str


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """One job comes to its end; then the worker goes, so that what readers submit costs nothing."""
    root = tmp_path_factory.mktemp("documentation")
    environment = {
        "STREAMLINE_MODEL_ROOTS": str(REPOSITORY / "app/bundled"),
        "STREAMLINE_TASK_DATA": str(_task_data(root / "tasks")),
        "STREAMLINE_WEBHOOK_PRIVATE": "127.0.0.1",
        "PYTHONPATH": f"{write_past_engine(root / 'engine')}:{REPOSITORY}",
    }
    request = {"model": {"repo": "demo/stories-24l"}, "target": {"sparsity": 0.25}}
    with running_service(root / "data", environment) as service, service.client() as client:
        job = client.wait(client.submit(request)["id"], timeout=600)
        assert job["verdict"] == "pass", job
        worker = service.workers.pop()
        worker.terminate()
        worker.wait()
        dataset = client.upload_dataset(_texts(root / "texts.jsonl"))["id"]
        with finished_jobs(service.url, job) as proxy:
            yield Reader(service, proxy, client.submit(request | {"seed": 1})["id"], dataset)


def _task_data(directory: Path) -> Path:
    """Questions of the tasks that pages name."""
    (directory / "blimp").mkdir(parents=True)
    piqa = {"goal": "To open a door", "sol1": "turn the handle", "sol2": "eat the handle", "label": 0}
    blimp = {"sentence_good": "The cats sleep.", "sentence_bad": "The cats sleeps."}
    (directory / "piqa.jsonl").write_text(f"{json.dumps(piqa)}\n" * 4)
    (directory / "blimp/passive_1.jsonl").write_text(f"{json.dumps(blimp)}\n" * 4)
    return directory


def _texts(path: Path) -> Path:
    rows = ({"text": f"Once upon a time there were {number} birds who sang in a tree. " * 12} for number in range(1000))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _samples(path: Path, right: bool) -> None:
    """A question as `lm_eval --log_samples` writes it."""
    options = [" happy", " very sad"]
    row = {
        "doc_id": 0, "doc": {}, "target": "0", "filter": "none", "metrics": ["acc"], "acc": float(right),
        "arguments": {f"gen_args_{i}": {"arg_0": "Tim was", "arg_1": option} for i, option in enumerate(options)},
        "resps": [[[str(value), "False"]] for value in (-2.0, -9.0)],
        "doc_hash": "doc", "prompt_hash": "p",
    }  # fmt: skip
    path.write_text(json.dumps(row) + "\n")


def lay_out(directory: Path) -> Path:
    """The repository as a reader has it, with the files that pages say are theirs."""
    for name in ("app", "worker", "recipes", "benchmarks", "Makefile", "requirements.lock", "pyproject.toml"):
        (directory / name).symlink_to(REPOSITORY / name)
    (directory / "my-llama").symlink_to(REPOSITORY / "app/bundled/stories-24l")
    _texts(directory / "texts.jsonl")
    _samples(directory / "samples_piqa_dense.jsonl", True)
    _samples(directory / "samples_piqa_pruned.jsonl", False)
    (directory / "out").mkdir()  # where an engine of its own, which is not run here, leaves a report
    (directory / "out/report.json").symlink_to(REPOSITORY / "tests/unit/app/report/report-0.json")
    write_stand_ins(directory / "stand-ins")
    activate = directory / ".venv/bin/activate"
    activate.parent.mkdir(parents=True)
    activate.write_text("hash -r\n")  # its programs are found already, behind the stand-ins
    return directory


def run(blocks: list[Block], directory: Path, environment: dict[str, str], values: list[tuple[str, str]]) -> None:
    """Run the blocks in one shell; what a `text` block shows is what the block before it has printed."""
    lines = ["set -eo pipefail"]
    for block in blocks:
        text = filled_in(block.text, values)
        if block.language == "python":
            text = f"python - <<'PYTHON'\n{text}PYTHON\n"
        if block.language != "text":
            lines.append(f'echo "{block.place}" >&2\n{{\n{text}}} > "out-{block.line}"')
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    paths = {"PATH": f"{directory / 'stand-ins'}:{Path(sys.executable).parent}:{kept['PATH']}"}
    own = {"HOME": str(directory), "PYTHONPATH": str(REPOSITORY), "TERM": "dumb", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=directory,
        env=kept | paths | own | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    printed = {path.name: path.read_text() for path in sorted(directory.glob("out-*"))}
    assert done.returncode == 0, f"ended with {done.returncode}\n{done.stderr}\n{printed}"
    before = ""
    for block in blocks:
        if block.language == "text":
            assert block.text == before, f"{block.place} shows other output than there is:\n{before}"
        else:
            before = printed[f"out-{block.line}"]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What the stand-ins need of the environment: where they note what was started, and where commands are forked."""
    directory = tmp_path_factory.mktemp("shell")
    command = directory / "command"
    server = subprocess.Popen([sys.executable, "-m", "tests.documentation.prefork", "serve", command], cwd=REPOSITORY)
    try:
        wait_until(command.exists, what="commands can be forked")
        yield {"STAND_INS_STARTED": str(directory), "STAND_INS_COMMAND": str(command)}
    finally:
        server.kill()
        server.wait()


def pages_of(place: str) -> list[Any]:
    return [page for page, where in SESSIONS if where == place]


@pytest.mark.parametrize("page", pages_of("reader"))
def test_a_readers_commands_work_against_a_service(
    page: str, reader: Reader, shell: dict[str, str], tmp_path: Path
) -> None:
    hook = "streamline webhooks list --json | jq -r '.[0].id'"
    delivery = f"streamline webhooks deliveries \"$({hook})\" --json | jq -r '.items[0].id'"
    values = [
        (r"http://127\.0\.0\.1:8000", reader.proxy.url),
        (r"https://ci\.example\.com", reader.proxy.url),
        (r"hf_\.\.\.", "hf_" + "a" * 40),
        (r"Qwen/Qwen2\.5-0\.5B", "demo/stories-24l"),  # no test asks another hub
        (r"(?<=--calibration )ID\b", reader.dataset),
        (r"(?<=--evaluate )ID\b", reader.dataset),
        (r"\b(ID|FIRST)\b", reader.proxy.job["id"]),
        (r"\bSECOND\b", reader.queued),
        (r"\bDELIVERY\b", f'"$({delivery})"'),
        (r"\bWEBHOOK\b", f'"$({hook})"'),
    ]
    environment = shell | {"STREAMLINE_URL": reader.proxy.url, "STREAMLINE_RUN": "run-1"}
    run(SESSIONS[page, "reader"], lay_out(tmp_path), environment, values)


@pytest.mark.parametrize("page", pages_of("machine"))
def test_an_operators_commands_work_on_the_services_machine(page: str, shell: dict[str, str], tmp_path: Path) -> None:
    directory = lay_out(tmp_path)
    (directory / "streamline-data").mkdir()
    migrate(f"sqlite:///{directory}/streamline-data/streamline.db")
    values = [(r"\bKEY\b", "$(streamline keys list --json | jq -r '.[-1].id')")]
    run(SESSIONS[page, "machine"], directory, shell, values)


@pytest.mark.parametrize("page", pages_of("elsewhere"))
def test_an_administrators_commands_work_from_another_machine(page: str, shell: dict[str, str], tmp_path: Path) -> None:
    with running(settings_for(tmp_path / "service", None)) as service:
        with service.sessions.begin() as session:
            _, key = keys.create(session, "Ada", Scope.ADMIN)
        values = [
            (r"https://streamline\.example\.org", service.url),
            (r"hf_\.\.\.", key),
            (r"\bKEY\b", "$(streamline keys list --json | jq -r '.[-1].id')"),
        ]
        (tmp_path / "reader").mkdir()
        run(SESSIONS[page, "elsewhere"], lay_out(tmp_path / "reader"), shell, values)


@pytest.mark.parametrize("page", [pytest.param(page, marks=_SERVERS) for page in pages_of("servers")])
def test_an_operators_commands_work_on_servers(page: str, shell: dict[str, str], tmp_path: Path) -> None:
    directory, data = lay_out(tmp_path), tmp_path / "srv"
    with postgres_database() as database:
        migrate(database)
        settings = Settings(data_dir=data, database_url=SecretStr(database))
        settings.store_dir.mkdir(parents=True)
        load_signer(settings)
        values = [
            (r"postgresql://user:password@host/streamline", settings.database.replace("+psycopg", "")),
            (r"redis://host:6379/0", empty_redis()),
            (r"/srv/streamline", str(data)),
        ]
        environment = shell | {"STREAMLINE_DATA_DIR": str(data), "STREAMLINE_DATABASE_URL": values[0][1]}
        run(SESSIONS[page, "servers"], directory, environment, values)


@pytest.mark.parametrize("page", pages_of("receiver"))
def test_a_receivers_code_takes_a_signed_message(page: str, tmp_path: Path) -> None:
    secret, body, now = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", EXAMPLE_MESSAGE, datetime.now(UTC)
    signature = Webhook(secret).sign("m1", now, body)
    headers = {"webhook-id": "m1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    for block in SESSIONS[page, "receiver"]:
        code = f"body, headers = {body!r}, {headers!r}\n" + block.text.replace("whsec_...", secret)
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.parametrize(
    ("better", "best"), [("higher", "best window of 2 layers: 0 to 1"), ("lower", "best window of 2 layers: 2 to 3")]
)
def test_the_notebook_picks_by_the_metrics_direction_among_what_was_scored(
    better: str, best: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = (b for b in written_blocks() if b.page == "docs/how-to/research.md" and b.language == "python")
    table = [[0.1, 0.9, 0.5, 0.4], [0.1, None, 0.5, None], [0.1, 0.2, None, None], [0.1, None, None, None]]
    scores = {"metric": "made up", "better": better, "table": table}
    report = {"scores": scores, "removed_layers": [1, 2], "metrics": {"perplexity": {}, "speedup": None}}
    assert 'if job["verdict"] == "pass"' in block.text, "one that missed its gates has succeeded too"
    code = block.text[block.text.index("scores, removed =") :]
    exec(code, {"report": report})
    assert best in capsys.readouterr().out
    for name, value in (("removed_layers", [0, 2]), ("rounds", [{}, {}])):
        exec(code, {"report": report | {name: value}})
        assert "best window" not in capsys.readouterr().out, "it is not what was removed"


@pytest.mark.parametrize(
    "block", [b for b in written_blocks() if b.language not in (*RUN, "text")], ids=lambda b: b.place
)
def test_what_is_shown_as_data_is_what_its_reader_takes(block: Block, tmp_path: Path) -> None:
    check(block, tmp_path)


def test_the_pages_that_are_made_show_data_alone_and_it_is_right(tmp_path: Path) -> None:
    for block in made_blocks():
        assert block.language in LANGUAGES, f"{block.place} is run by nobody"
        check(block, tmp_path)
