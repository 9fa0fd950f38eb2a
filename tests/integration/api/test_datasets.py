"""Data sets: checked on the way in, stored once, and invisible until they are complete."""

import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.auth import keys
from app.auth.scopes import Scope
from app.datasets import inspection
from tests.integration.api.conftest import JOB, MAX_DATASET_BYTES, Service, jsonl, problem_of
from tests.service_process import wait_until

OWNERS = {"ann": Scope.SUBMIT, "bob": Scope.SUBMIT, "root": Scope.ADMIN}


def staged(service: Service) -> list[Path]:
    return list((service.parts.settings.store_dir / "staging").iterdir())


def post(service: Service, content: bytes, filename: str = "a.jsonl", **form: str) -> httpx.Response:
    return service.http.post("/v1/datasets", files={"file": (filename, content)}, data=form)


def test_an_upload_is_described_and_can_be_found(service: Service) -> None:
    content = b'{"text": "one", "n": 1, "title": "t"}\n\n{"title": "u", "text": "two"}\n'
    answer = post(service, content, name="stories")
    assert answer.status_code == 201
    dataset = answer.json()
    assert {name: dataset[name] for name in ("name", "size", "format", "columns", "rows", "sha256")} == {
        "name": "stories",
        "size": len(content),
        "format": "jsonl",
        "columns": ["text", "title"],
        "rows": 2,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert service.http.get(answer.headers["location"]).json() == dataset
    assert service.http.get("/v1/datasets").json() == {"items": [dataset], "next_cursor": None}
    assert service.parts.blobs.local_path(dataset["sha256"]).read_bytes() == content


def test_the_same_content_and_name_is_the_same_data_set(service: Service) -> None:
    first, again = post(service, jsonl("a"), name="x"), post(service, jsonl("a"), name="x")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    other = post(service, jsonl("a"), name="y")
    assert other.status_code == 201
    assert other.json()["id"] != first.json()["id"]
    assert other.json()["sha256"] == first.json()["sha256"]


def test_plain_text_is_told_from_jsonl_by_name_or_first_line(service: Service) -> None:
    assert service.upload(b"Once upon\na time", "story.txt")["format"] == "text"
    assert service.upload(b"Once upon\na time", "story.txt")["rows"] == 2
    assert service.upload(jsonl("a", "b"), "unnamed")["format"] == "jsonl"
    assert service.upload(b"{not json}\n", "code.txt")["format"] == "text"


def test_an_uploaded_set_calibrates_and_judges(service: Service) -> None:
    train = service.upload(jsonl(*["Once upon a time there was a dog. " * 20] * 20), name="train")
    test = service.upload(b"Once upon a time there was a cat. " * 300, "test.txt")
    job = service.submit(calibration={"dataset": train["id"]}, evaluation={"perplexity": [test["id"]]})
    assert job["spec"]["calibration"] == {"dataset": train["id"], "column": "text"}
    assert job["spec"]["evaluation"]["perplexity"] == [test["id"]]
    assert job["spec"]["replacement"]["tokens"] == 1_000_000


def test_real_data_is_taken(service: Service, shared_data: Path) -> None:
    content = (shared_data / "tinystories_test.jsonl").read_bytes()
    dataset = service.upload(content, "tinystories_test.jsonl")
    assert dataset["rows"] == content.count(b"\n")
    assert "text" in dataset["columns"]
    job = service.submit(calibration={"dataset": dataset["id"]})
    assert job["state"] == "queued"


def test_a_name_that_tasks_are_found_by_is_replaced_by_its_owner_or_an_admin_alone(service: Service) -> None:
    rows = [jsonl(f"version {number}") for number in range(6)]
    with service.sessions.begin() as session:
        made = {name: keys.create(session, name, scope) for name, scope in OWNERS.items()}

    def uploaded(by: str, content: bytes, name: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {made[by][1]}"}
        return service.http.post("/v1/datasets", files={"file": ("f", content)}, data={"name": name}, headers=headers)

    try:
        assert uploaded("ann", rows[0], "blimp/passive_1.jsonl").status_code == 201, "nobody's yet"
        for name in ("blimp/passive_1.jsonl", "passive_1.jsonl", "blimp_passive_1"):
            problem = problem_of(uploaded("bob", rows[1], name), 403)
            assert (problem["code"], problem["pointer"]) == ("dataset_name_taken", "/name")
            assert "another name" in problem["detail"]
            assert "evaluation.task_data" in problem["detail"]
        assert uploaded("bob", rows[0], "blimp/passive_1.jsonl").status_code == 200, "it replaces nothing"
        assert uploaded("bob", rows[1], "passive_1 of bob").status_code == 201
        assert uploaded("ann", rows[2], "blimp_passive_1").status_code == 201
        assert uploaded("root", rows[3], "passive_1.jsonl").status_code == 201
        assert problem_of(uploaded("ann", rows[4], "passive_1.jsonl"), 403)["code"] == "dataset_name_taken"
        assert uploaded("ann", rows[0], "train.jsonl").status_code == 201
        assert uploaded("bob", rows[1], "train.jsonl").status_code == 201, "such a name only describes"
    finally:
        with service.sessions.begin() as session:
            for row, _ in made.values():
                session.delete(session.merge(row))


BAD: list[tuple[str, bytes, str, str]] = [
    ("an empty file", b"", "a.jsonl", "empty"),
    ("white space", b" \n\t\n", "a.txt", "white space"),
    ("rows of nothing", b"\n\n", "a.jsonl", "no rows"),
    ("a row that is no JSON", b'{"text": "a"}\n{"text": }\n', "a.jsonl", "Line 2 is not JSON"),
    ("a row that is no object", b'{"text": "a"}\n["b"]\n', "a.jsonl", "Line 2 is not a JSON object"),
    ("no common column", b'{"a": "x"}\n{"b": "y"}\n', "a.jsonl", "no column"),
    ("no text", b'{"a": 1}\n', "a.jsonl", "no column"),
    ("another encoding", "grün".encode("latin-1"), "a.txt", "not UTF-8"),
    ("another encoding in a row", b'{"text": "gr\xfcn"}\n', "a.jsonl", "In line 1"),
    ("half a character at the end", "grü".encode()[:-1], "a.txt", "not UTF-8"),
    ("UTF-16", "text".encode("utf-16"), "a.txt", "byte order mark"),
    ("a deep row", b'{"text": ' + b"[" * 100_000 + b"\n", "a.jsonl", "Line 1 is not JSON"),
]


@pytest.mark.parametrize(("case", "content", "filename", "says"), BAD, ids=[row[0] for row in BAD])
def test_a_file_that_no_job_could_use_is_refused_with_its_line(
    shared_service: Service, case: str, content: bytes, filename: str, says: str
) -> None:
    problem = problem_of(post(shared_service, content, filename), 422)
    assert (problem["code"], problem["pointer"]) == ("bad_dataset", "/file")
    assert says in problem["detail"]
    assert shared_service.http.get("/v1/datasets").json()["items"] == []
    assert staged(shared_service) == []


def test_a_row_longer_than_memory_should_hold_is_refused(
    shared_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "MAX_LINE_BYTES", 100)
    assert "Line 2 is longer" in problem_of(post(shared_service, jsonl("a", "b" * 200)), 422)["detail"]


def test_half_a_surrogate_pair_makes_no_column_of_text(shared_service: Service) -> None:
    assert problem_of(post(shared_service, b'{"text": "\\ud800"}\n'), 422)["code"] == "bad_dataset"


def test_a_file_over_the_limit_is_refused_and_leaves_nothing(shared_service: Service) -> None:
    answer = post(shared_service, b"x" * (MAX_DATASET_BYTES + 1), "a.txt")
    assert "STREAMLINE_MAX_DATASET_BYTES" in problem_of(answer, 413)["detail"]

    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        for _ in range(40):
            yield b"x" * (1 << 15)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    with httpx.Client(base_url=shared_service.url) as client:
        answer = client.post("/v1/datasets", content=endless(), headers=headers)
    assert problem_of(answer, 413)["code"] == "body_too_large"
    assert staged(shared_service) == []


def test_a_dropped_connection_leaves_nothing(shared_service: Service) -> None:
    host, port = shared_service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v1/datasets HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 90000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhalf'
        )
        wait_until(lambda: staged(shared_service), what="the upload has begun")
    wait_until(lambda: not staged(shared_service), what="what came of it is gone")
    assert shared_service.http.get("/v1/datasets").json()["items"] == []
    assert staged(shared_service) == []


def form(*parts: tuple[str, bytes], end: bytes = b"--b--\r\n") -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="%s"; filename="a.txt"\r\n\r\n'
    return b"".join(head % name.encode() + content + b"\r\n" for name, content in parts) + end


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (form(("file", b"text"), end=b""), 400, "malformed_body"),
        (b"no form", 400, "malformed_body"),
        (form(), 422, "missing_field"),
        (form(("name", b"x")), 422, "missing_field"),
        (form(("file", b"text"), ("colour", b"red")), 422, "unknown_field"),
        (form(("file", b"text"), ("file", b"text")), 400, "malformed_body"),
        (form(("file", b"text"), ("name", b"")), 422, "out_of_range"),
        (form(("file", b"text"), ("name", b"x" * 201)), 422, "out_of_range"),
        (form(("file", b"text"), ("name", b"x" * 9000)), 422, "out_of_range"),
        (form(("file", b"text"), ("name", b"a\0b")), 422, "out_of_range"),
        (form(("file", b"text"), ("name", b"\xff")), 400, "malformed_body"),
    ],
)
def test_a_form_with_a_fault_is_refused(shared_service: Service, body: bytes, status: int, code: str) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = shared_service.http.post("/v1/datasets", content=body, headers=headers)
    assert problem_of(answer, status)["code"] == code


def test_another_body_than_a_form_is_refused(shared_service: Service) -> None:
    answer = shared_service.http.post("/v1/datasets", json={"file": "x"})
    assert problem_of(answer, 415)["code"] == "unsupported_media_type"


def test_a_full_disk_is_said_before_the_first_byte(shared_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.storage.staging.free_bytes", lambda _: 10)
    problem = problem_of(post(shared_service, jsonl("a")), 507)
    assert problem["code"] == "storage_full"
    assert "10 are free" in problem["detail"]


def test_lists_come_in_pages_by_name(service: Service) -> None:
    for name in ("c", "a", "b"):
        service.upload(jsonl(name), name=name)
    first = service.http.get("/v1/datasets?limit=2").json()
    rest = service.http.get("/v1/datasets", params={"cursor": first["next_cursor"]}).json()
    assert [item["name"] for item in first["items"] + rest["items"]] == ["a", "b", "c"]
    assert rest["next_cursor"] is None
    assert problem_of(service.http.get("/v1/datasets?cursor=x"), 422)["parameter"] == "cursor"


def test_a_data_sets_name_may_be_any_text_of_one_line(service: Service) -> None:
    assert service.upload(jsonl("a"), name="Märchen 🐉")["name"] == "Märchen 🐉"
    assert json.loads(service.http.get("/v1/datasets").text)["items"][0]["name"] == "Märchen 🐉"


def test_an_evaluation_set_must_have_the_column_too(shared_service: Service) -> None:
    other = shared_service.upload(jsonl("a" * 9, column="body"), name="other")
    problem = shared_service.refused(JOB | {"evaluation": {"perplexity": [other["id"]]}})
    assert problem["code"] == "unknown_column"
