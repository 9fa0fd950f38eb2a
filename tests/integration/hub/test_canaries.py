"""A pickle at every door where a file can come in: refused, or kept as bytes that nothing opens.

What the engine does with one is in tests/unit/worker/engine/test_canaries.py.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.auth import keys
from app.auth.scopes import Scope
from app.hub.uploads import PART_BYTES
from tests.canary import Canary
from tests.integration.api.conftest import JOB, Service, problem_of, running, settings_for
from tests.integration.hub.keyed import Keyed
from tests.integration.hub.test_uploads import inline, send, stored
from tests.integration.hub.test_xet_bridge import NAME, Bridge
from tests.unit.app.hub.xet_objects import shard, xorb


@dataclass(frozen=True)
class Scene:
    """A service with a key, an upstream hub, directories to import from and with data of tasks, and pickles."""

    keyed: Keyed
    upstream: Keyed
    models: Path
    tasks: Path
    stories: Path
    canary: Canary

    @property
    def service(self) -> Service:
        return self.keyed.service

    def refuses_a_job(self, repo: str, *codes: str) -> None:
        """With the model of this name, whichever of its files is looked at first."""
        problem = self.service.refused(JOB | {"model": {"repo": repo}})
        assert problem["code"] in codes, problem

    def config(self) -> bytes:
        return (self.stories / "config.json").read_bytes()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, stories_model: Path) -> Iterator[Scene]:
    root = tmp_path_factory.mktemp("doors")
    for name in ("models", "tasks"):
        (root / name).mkdir()
    with ExitStack() as stack:
        upstream = stack.enter_context(running(settings_for(root / "upstream", None)))
        settings = settings_for(root / "data", None).model_copy(
            update={
                "model_roots": (root / "models",),
                "task_data": root / "tasks",
                "upstream": upstream.url,
                "upstream_fresh_seconds": 0.0,
            }
        )
        service = stack.enter_context(running(settings))
        with service.sessions.begin() as session:
            row, key = keys.create(session, "owner", Scope.ADMIN)
            ids = {"owner": row.id}
        service.http.headers["Authorization"] = f"Bearer {key}"
        keyed = Keyed(service, {"owner": key}, ids)
        yield Scene(
            keyed,
            Keyed(upstream, {"owner": "hf_nobody"}, {}),
            root / "models",
            root / "tasks",
            stories_model,
            Canary(root / "somebody-unpickled-it"),
        )


def upload_of_a_data_set(scene: Scene, content: bytes) -> None:
    """As rows it is refused; as a text it is one, if all of its bytes are, and is kept as bytes."""
    for name in ("text.jsonl", "text.txt", "text.pkl"):
        answer = scene.service.http.post("/v1/datasets", files={"file": (name, content)})
        if name == "text.jsonl" or b"\0" in content:
            problem_of(answer, 422)
        else:
            assert answer.json()["format"] == "text"


def regular_file_of_a_commit(scene: Scene, content: bytes) -> None:
    """As each of the files that a job looks at: the weights, their pickled form alone, config and tokenizer."""
    for number, name in enumerate(("model.safetensors", "pytorch_model.bin", "config.json")):
        repo = f"own/regular-{number}-{len(content)}"
        scene.keyed.make("owner", repo)
        lines = {"config.json": scene.config()} | {name: content}
        made = scene.keyed.commit("owner", repo, *(inline(path, data) for path, data in lines.items()))
        assert made.status_code == 200, made.text
        scene.refuses_a_job(repo, "unreadable_model", "no_safetensors")
        assert scene.service.http.get(f"/{repo}/resolve/main/{name}").content == content


def large_file_by_one_link(scene: Scene, content: bytes) -> None:
    repo = f"own/link-{len(content)}"
    scene.keyed.make("owner", repo)
    assert send(scene.keyed, "owner", repo, content).status_code == 200
    lines = inline("config.json", scene.config()), stored("model.safetensors", content)
    assert scene.keyed.commit("owner", repo, *lines).status_code == 200
    scene.refuses_a_job(repo, "unreadable_model")


def large_file_in_parts(scene: Scene, content: bytes) -> None:
    repo = f"own/parts-{len(content)}"
    scene.keyed.make("owner", repo)
    if content == scene.canary.torch_file:
        return  # the way is the same whatever the bytes are, and takes seconds
    content += bytes(PART_BYTES)  # what follows the last opcode is not read by an unpickler
    (entry,) = scene.keyed.batch("owner", repo, content).json()["objects"]
    upload = entry["actions"]["upload"]
    for number in (1, 2):
        part = content[(number - 1) * PART_BYTES : number * PART_BYTES]
        assert httpx.put(upload["header"][str(number)], content=part).status_code == 200
    assert httpx.post(upload["href"], json={}).status_code == 200
    lines = inline("config.json", scene.config()), stored("model.safetensors", content)
    assert scene.keyed.commit("owner", repo, *lines).status_code == 200
    scene.refuses_a_job(repo, "unreadable_model")


def large_file_through_xet(scene: Scene, content: bytes) -> None:
    repo = f"own/xet-{len(content)}"
    scene.keyed.make("owner", repo)
    bridge = Bridge(scene.keyed, "owner", repo)
    assert bridge.xorb(content).status_code == 400, "a pickle is no xorb"
    assert bridge.shard(content).status_code == 400
    assert bridge.xorb(xorb(content)).status_code == 200
    assert bridge.shard(shard((content, [(NAME, len(content), 0, 1)]))).status_code == 200
    lines = inline("config.json", scene.config()), stored("model.safetensors", content)
    assert scene.keyed.commit("owner", repo, *lines).status_code == 200
    scene.refuses_a_job(repo, "unreadable_model")


def import_from_a_directory(scene: Scene, content: bytes) -> None:
    """Beside the weights it is left out, in place of a file of the model it is refused."""
    for name, status in (("adapter_model.bin", 201), ("model.safetensors", 422), ("config.json", 422)):
        directory = scene.models / f"{name}-{len(content)}"
        shutil.copytree(scene.stories, directory)
        (directory / name).unlink(missing_ok=True)
        (directory / name).write_bytes(content)
        repo = f"imported/{directory.name.replace('_', '-')}"
        answer = scene.service.http.post("/v1/imports", json={"path": str(directory), "repo": repo})
        assert answer.status_code == status, answer.text
        if status == 201:
            assert answer.json()["skipped"] == [name]


def tokenizer_of_a_model(scene: Scene, content: bytes) -> None:
    directory = scene.models / f"tokenizer-{len(content)}"
    shutil.copytree(scene.stories, directory)
    (directory / "tokenizer.json").unlink()
    (directory / "tokenizer.json").write_bytes(content)
    repo = f"imported/tokenizer-{len(content)}"
    assert scene.service.http.post("/v1/imports", json={"path": str(directory), "repo": repo}).status_code == 201
    dataset = scene.service.upload(b'{"text": "Once upon a time there was a girl."}\n' * 500)["id"]
    body = JOB | {"model": {"repo": repo}, "calibration": {"dataset": dataset}}
    assert scene.service.refused(body)["code"] == "unreadable_model"


def adapter_beside_a_model(scene: Scene, content: bytes) -> None:
    repo = f"own/adapter-{len(content)}"
    scene.keyed.make("owner", repo)
    files = {path.name: path.read_bytes() for path in scene.stories.iterdir() if path.name != "README.md"}
    weights = files.pop("model.safetensors")
    assert send(scene.keyed, "owner", repo, weights).status_code == 200
    files |= {"adapter_config.json": b'{"peft_type": "LORA"}', "adapter_model.bin": content}
    lines = [stored("model.safetensors", weights), *(inline(name, data) for name, data in files.items())]
    made = scene.keyed.commit("owner", repo, *lines)
    assert made.status_code == 200, made.text
    scene.refuses_a_job(repo, "unsupported_model")


def pull_from_an_upstream(scene: Scene, content: bytes) -> None:
    """Pickled weights alone are refused, those beside others left out, and a forged file is refused at the job."""
    upstream = scene.upstream.service.http
    for name, codes in (("pytorch_model.bin", ("no_safetensors",)), ("model.safetensors", ("unreadable_model",))):
        repo = f"up/{name.partition('.')[0].replace('_', '-')}-{len(content)}"
        body = {"name": repo.partition("/")[2], "organization": "up", "type": "model"}
        assert upstream.post("/api/repos/create", json=body).status_code == 200
        lines = [("header", {"summary": "m"}), inline("config.json", scene.config()), inline(name, content)]
        sent = "\n".join(json.dumps({"key": key, "value": value}) for key, value in lines)
        made = upstream.post(f"/api/models/{repo}/commit/main", content=sent.encode())
        assert made.status_code == 200, made.text
        scene.refuses_a_job(repo, *codes)


def data_of_a_task(scene: Scene, content: bytes) -> None:
    (scene.tasks / "piqa.jsonl").write_bytes(content)
    problem = scene.service.refused(JOB | {"evaluation": {"tasks": ["piqa"]}})
    assert problem["code"] in {"bad_task_data", "missing_task_data", "unknown_column"}
    (scene.tasks / "piqa.jsonl").unlink()


DOORS: list[Callable[[Scene, bytes], None]] = [
    upload_of_a_data_set,
    regular_file_of_a_commit,
    large_file_by_one_link,
    large_file_in_parts,
    large_file_through_xet,
    import_from_a_directory,
    tokenizer_of_a_model,
    adapter_beside_a_model,
    pull_from_an_upstream,
    data_of_a_task,
]


@pytest.mark.parametrize("form", ["pickle", "torch_file"])
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_no_pickle_that_comes_in_is_opened(door: Callable[[Scene, bytes], None], form: str, scene: Scene) -> None:
    content: bytes = getattr(scene.canary, form)
    door(scene, content)
    assert not scene.canary.sang
