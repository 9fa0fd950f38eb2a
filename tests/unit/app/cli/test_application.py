"""What the command says of failures that it knows, and the exit code that it ends with."""

import sqlite3
from pathlib import Path

import pytest

from app.cli import exits
from app.cli.application import run
from app.db.migrate import migrate


@pytest.fixture
def of_a_newer_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory of a service that was updated and has then been taken back."""
    monkeypatch.delenv("STREAMLINE_DATABASE_URL", raising=False)
    monkeypatch.setenv("STREAMLINE_DATA_DIR", str(tmp_path))
    migrate(f"sqlite:///{tmp_path / 'streamline.db'}")
    with sqlite3.connect(tmp_path / "streamline.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    return tmp_path


@pytest.mark.parametrize(
    "arguments", [["migrate"], ["up", "--port", "0"], ["keys", "list"], ["gc"], ["fsck"]], ids=lambda found: found[0]
)
def test_a_database_of_a_newer_release_is_told_in_one_sentence(
    of_a_newer_release: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == exits.BAD_USAGE
    said = capsys.readouterr().err
    assert said.startswith("streamline: The database was made by a newer release (9999); this one knows up to 00")
    assert said.endswith(". Start that release, or restore the backup from before it.\n")
    assert said.count("\n") == 1
