"""`streamline download` against a real hub: which one it asks, what it says to a wrong key, and where it goes on."""

from pathlib import Path

import pytest

from app.cli import exits
from app.cli.application import run
from tests.integration.hub.conftest import BIG_BYTES, Hub
from tests.integration.hub.keyed import PUBLIC, Keyed


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STREAMLINE_URL", "STREAMLINE_API_KEY", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def test_a_download_that_breaks_off_goes_on_from_there_by_itself(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLINE_URL", hub.url)
    hub.wire.transfers.clear()
    hub.wire.cut = ("big.bin", 13 << 20)
    assert run(["download", "team/big", str(tmp_path)]) == exits.PASSED
    assert (tmp_path / "big.bin").read_bytes() == hub.big
    _, second = [transfer for transfer in hub.wire.transfers if transfer.path.endswith("big.bin")]
    assert second.status == 206
    assert second.sent < BIG_BYTES // 2 + (1 << 20)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("repo", "said"),
    [
        ("team/nested@v9", "team/nested has no branch, tag or commit 'v9'"),
        ("team/missed", "team/missed has nothing at `main`, where a job's model comes once it has passed"),
    ],
)
def test_a_revision_that_is_not_there_is_told_in_the_hubs_words(
    hub: Hub,
    tmp_path: Path,
    repo: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STREAMLINE_URL", hub.url)
    assert run(["download", repo, str(tmp_path)]) == exits.BAD_USAGE
    told = capsys.readouterr().err
    assert said in told
    assert "Another hub" not in told


def test_the_hub_is_that_of_the_machines_other_clients_where_nothing_else_is_said(
    keyed: Keyed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", keyed.service.url)
    monkeypatch.setenv("STREAMLINE_API_KEY", keyed.keys["reader"])
    assert run(["download", PUBLIC, str(tmp_path)]) == exits.NOT_ALLOWED, "that key is for another address"
    assert capsys.readouterr().err.endswith("set HF_TOKEN.\n")
    monkeypatch.setenv("HF_TOKEN", keyed.keys["reader"])
    assert run(["download", PUBLIC, str(tmp_path)]) == exits.PASSED
    assert (tmp_path / "config.json").read_bytes() == b"{}"
    (tmp_path / "provenance.json").write_text("{}")
    assert run(["verify", str(tmp_path)]) == exits.FAILED_OR_GATE_MISSED, "its key was found there"


def test_a_wrong_key_is_told_from_a_model_that_is_not_there(
    keyed: Keyed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAMLINE_URL", keyed.service.url)
    monkeypatch.setenv("STREAMLINE_API_KEY", "hf_" + "a" * 40)
    assert run(["download", PUBLIC, str(tmp_path)]) == exits.NOT_ALLOWED
    said = capsys.readouterr().err
    assert said.startswith("streamline: The key in STREAMLINE_API_KEY is not known")
    assert said.count("STREAMLINE_API_KEY") == 1
    monkeypatch.setenv("STREAMLINE_API_KEY", keyed.keys["reader"])
    assert run(["download", "team/absent", str(tmp_path)]) == exits.BAD_USAGE
    said = capsys.readouterr().err
    assert "There is no repository 'team/absent' here" in said
    assert "Another hub is asked where STREAMLINE_URL names it." in said
