import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel
from sqlalchemy import update

from app.auth import audit
from app.cli import exits
from app.cli.application import run
from app.cli.exits import UsageError
from app.cli.request import build
from app.db.clock import db_now
from app.db.migrate import migrate
from app.db.models import ApiKeyRow
from app.db.session import connect, session_factory
from app.jobs.spec.judgement import Gates, TaskGates
from app.version import VERSION

NO_TARGET = {"sparsity": None, "layers": None, "window": None}


def test_options_become_the_request() -> None:
    request = build(
        None,
        model="team/llama@v1",
        target=NO_TARGET | {"sparsity": 0.25},
        kind="ffn",
        selection={"windows": None, "rounds": 3, "mode": "iterative"},
        calibration="ds_1",
        evaluate=["ds_2"],
        stride=64,
        gates=["max_perplexity_ratio=1.3"],
        output={"repo": "team/out", "format": None},
        labels=["ci_run=123"],
        seed=7,
    )
    assert request == {
        "model": {"repo": "team/llama", "revision": "v1"},
        "target": {"sparsity": 0.25},
        "replacement": {"kind": "ffn"},
        "selection": {"rounds": 3, "mode": "iterative"},
        "calibration": {"dataset": "ds_1"},
        "evaluation": {"perplexity": ["ds_2"], "stride": 64},
        "gates": {"max_perplexity_ratio": 1.3},
        "output": {"repo": "team/out"},
        "labels": {"ci_run": "123"},
        "seed": 7,
    }


def bars(section: type[BaseModel], prefix: str = "") -> list[str]:
    return [prefix + name for name, field in section.model_fields.items() if name != "tasks" or prefix]


@pytest.mark.parametrize("gate", [*bars(Gates), *bars(TaskGates, "piqa.")])
@pytest.mark.parametrize("value", ["1", "0.5", " 1.0", "4e6"])
def test_every_gate_of_a_request_can_be_given_as_an_option(gate: str, value: str) -> None:
    gates = build(None, model="a/b", target=NO_TARGET | {"layers": 2}, kind=None, gates=[f"{gate} = {value}"])["gates"]
    given = gates["tasks"]["piqa"] if "." in gate else gates
    assert given == {gate.rpartition(".")[2]: float(value)}
    whole, share = gate == "max_parameters", any(word in gate for word in ("stability", "flip"))
    if not (whole and value == "0.5") and not (share and value == "4e6"):
        Gates.model_validate_json(json.dumps(gates))


def test_options_win_over_the_file(tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"model": {"repo": "a/b"}, "target": {"layers": 2}, "seed": 1}))
    request = build(spec, model=None, target=NO_TARGET | {"sparsity": 0.5}, kind=None, seed=2)
    assert request == {"model": {"repo": "a/b"}, "target": {"sparsity": 0.5}, "seed": 2}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["submit"], "names no model"),
        (["submit", "--model", "a/b"], "names no target"),
        (
            ["submit", "--model", "a/b", "--sparsity", "0.2", "--layers", "3"],
            "one of --sparsity, --layers and --window",
        ),
        (["submit", "--model", "a/b", "--sparsity", "lots"], "sparsity"),
        (["submit", "--model", "a/b", "--sparsity", "0.2", "--gate", "speed"], "name=value"),
        (["submit", "--model", "a/b", "--sparsity", "0.2", "--gate", "min_speedup=fast"], "takes a number"),
        (["submit", "nowhere.json"], "no file nowhere.json"),
        (["submit", "--modell", "a/b"], "Possible options: --model"),
        (["submit", "--model", "a/b", "--sparsity", "nan"], "not finite"),
        (["submit", "--model", "a/b", "--layers", "2", "--gate", "min_speedup=inf"], "not finite"),
        (["plan", "."], "is a directory"),
        (["plan", "spec.yml"], "TOML or JSON"),
        (["submit", "--model", "a/b", "--layers", "2", "--when-moved", "--idempotency-key", "k"], "--when-moved"),
        (["submit", "--model", "a/b", "--layers", "2", "--wait", "--junit", "/proc/x.xml"], "/proc/x.xml: No such"),
        (["--show-completion", "zsh"], "takes no shell"),
        (["keys", "create", " "], "needs a name"),
        (["keys", "create", "ci", "--days", "0"], "more than 0"),
        (["keys", "create", "ci", "--days", "nan"], "more than 0"),
        (["frobnicate"], "frobnicate"),
        (["up", "--host", "0.0.0.0"], "Refusing to listen"),
    ],
)
def test_a_usage_mistake_is_one_sentence_and_exit_64(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == exits.BAD_USAGE
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_no_service_at_the_address_says_which_and_how_to_start_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLINE_URL", "http://127.0.0.1:9")
    assert run(["status"]) == exits.BAD_USAGE
    assert "http://127.0.0.1:9" in (said := capsys.readouterr().err)
    assert "streamline up" in said


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == exits.PASSED
    assert capsys.readouterr().out == f"streamline {VERSION}\n"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("submit --kind lin", {"linear_merged", "linear_residual"}), ("status --state ca", {"cancelled"})],
)
def test_what_an_option_can_be_is_completed(typed: str, offered: set[str]) -> None:
    asked = {
        "_STREAMLINE_COMPLETE": "complete_bash",
        "COMP_WORDS": f"streamline {typed}",
        "COMP_CWORD": str(len(typed.split())),
    }
    command = [sys.executable, "-c", "import sys; from app.cli import main; sys.argv[0] = 'streamline'; main()"]
    answer = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=True)
    assert set(answer.stdout.split()) == offered


def test_a_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    for content, said in (("[1]", "hold one object"), ("{", "not JSON"), ("[" * 100_000, "too deeply")):
        spec.write_text(content)
        with pytest.raises(UsageError, match=said):
            build(spec, model=None, target=NO_TARGET, kind=None)


def test_a_key_is_made_for_the_data_directory_that_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STREAMLINE_DATABASE_URL", raising=False)
    for lost in (["create", "ci"], ["list"], ["audit"], ["list", "--data", str(tmp_path / "there")]):
        assert run(["keys", *lost]) == exits.BAD_USAGE
        assert "No service has run with the directory" in capsys.readouterr().err
    assert run(["keys", "create", "ci", "--data", str(tmp_path / "there")]) == exits.PASSED
    made = capsys.readouterr()
    assert made.out.startswith("hf_")
    assert f"{tmp_path / 'there'}, which no service has run with yet." in made.err
    assert run(["keys", "list", "--data", str(tmp_path / "there"), "--json"]) == exits.PASSED
    assert [key["name"] for key in json.loads(capsys.readouterr().out)] == ["ci"]
    assert not (tmp_path / "streamline-data").exists()


def test_keys_are_listed_with_what_they_are_good_for_and_changes_with_their_requests(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STREAMLINE_DATABASE_URL", raising=False)
    monkeypatch.setenv("STREAMLINE_DATA_DIR", str(tmp_path))
    migrate(database := f"sqlite:///{tmp_path / 'streamline.db'}")

    def printed(*arguments: str) -> str:
        assert run(["keys", *arguments]) == exits.PASSED
        return capsys.readouterr().out

    assert "no key yet" in printed("list")
    assert "Nothing has been changed" in printed("audit")
    printed("create", "old", "--days", "1", "--max-queued-jobs", "3", "--max-bytes-per-day", "5000")
    engine = connect(database)
    with session_factory(engine).begin() as session:
        session.execute(update(ApiKeyRow).values(expires_at=db_now(-60)))
        audit.record(session, key_id="", key_name="", action="POST", target="/v1/jobs", status=401, request_id="r-1")
    engine.dispose()
    listed = printed("list")
    assert "expired" in listed
    assert re.search(r"old  \(until \S+ \S+ UTC, 3 jobs in the queue, 5,000 bytes a day\)", listed)
    (key,) = json.loads(printed("list", "--json"))
    assert (key["state"], key["revoked"]) == ("expired", False)
    assert "request r-1" in printed("audit")


def test_a_database_that_does_not_answer_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMLINE_DATABASE_URL", "postgresql://nobody:secret@127.0.0.1:9/none")
    assert run(["migrate"]) == exits.BAD_USAGE
    assert (said := capsys.readouterr().err).count("\n") == 1
    assert "STREAMLINE_DATABASE_URL" in said
    assert "secret" not in said


def test_an_address_without_a_scheme_is_understood(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLINE_URL", "127.0.0.1:9")
    assert run(["status"]) == exits.BAD_USAGE
    assert "http://127.0.0.1:9" in capsys.readouterr().err
