"""What is told to clients and written into logs: which file and what went wrong, not where, and no key."""

from pathlib import Path

import pytest

from app.core.redaction import Redaction, without_keys, without_stack

KEY = "hf_" + "aB3" * 14


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("/srv/data/work/7/model.safetensors is short", "<workspace>/model.safetensors is short"),
        ("cannot open '/srv/data/store/x'", "cannot open '<data>/store/x'"),
        ("file:///srv/data/x", "file://<data>/x"),
        ("/srv/database/x is another", "…/x is another"),
        ("see /opt/models/llama/config.json, line 3", "see …/config.json, line 3"),
        ("(/opt/models/llama)", "(…/llama)"),
        ("demo/stories-24l and/or 3 tokens/s", "demo/stories-24l and/or 3 tokens/s"),
        ("POST /v1/jobs/7/retry", "POST /v1/jobs/7/retry"),
        ("no\0thing that a \ud800row cannot hold", "no\ufffdthing that a \ufffdrow cannot hold"),
        ("http://127.0.0.1:8000/docs/x s3://bucket/prefix/y", "http://127.0.0.1:8000/docs/x s3://bucket/prefix/y"),
    ],
)
def test_a_place_is_told_by_its_name_and_another_path_by_its_last_part(said: str, told: str) -> None:
    redaction = Redaction(data=Path("/srv/data"), workspace=Path("/srv/data/work/7"))
    assert redaction(said) == told
    assert redaction.of_values({"a": [said], "b": 3}) == {"a": [told], "b": 3}


def test_a_directory_behind_a_symbolic_link_has_one_name(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    redaction = Redaction(data=tmp_path / "link")
    assert redaction(f"{tmp_path}/link/x and {tmp_path}/real/x") == "<data>/x and <data>/x"


@pytest.mark.parametrize(
    "said",
    [
        f"key {KEY} was refused",
        "authorization: Bearer " + "s3cr" * 6 + "et",
        "postgresql://user:s3cret@db/streamline",
        "PUT /api/uploads/WyJ1cGxvYWQiXQ.s3cret",
        "https://bucket/x?X-Amz-Signature=s3cret&a=b",
        "AWS_SECRET_ACCESS_KEY=s3cret",
    ],
)
def test_no_key_is_told(said: str) -> None:
    told = without_keys(said)
    assert "s3cret" not in told
    assert KEY not in told
    assert told != said


def test_a_stack_is_told_without_its_frames() -> None:
    stack = (
        'Traceback (most recent call last):\n  File "/srv/a.py", line 3, in run\n    x = y["secret"]\n        ^^^^\n'
        "KeyError: 'b'\n\nDuring handling of the above exception, another exception occurred:\n\n"
        'Traceback (most recent call last):\n  File "/srv/a.py", line 5, in run\n    raise\nValueError: no such thing'
    )
    assert without_stack(f"loading\n{stack}") == "loading\nKeyError: 'b'\nValueError: no such thing"
    assert without_stack("plain\n  indented") == "plain\n  indented"
