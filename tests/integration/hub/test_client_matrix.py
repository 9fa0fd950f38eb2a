"""Stock clients of three generations, unchanged, over plain http: everything up, everything down, byte by byte."""

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.hub.client_venvs import VERSIONS, client_python
from tests.integration.hub.conftest import BIG_BYTES, MODEL, PART_BYTES, Hub, client_environment

Run = Callable[..., Any]


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Run:
    """Run code in a fresh process of a client's version; returns what it leaves in `result`."""

    def run(version: str, code: str, *, home: str = "home", xet: bool = True, **values: Any) -> Any:
        lines = [f"{name} = {value!r}" for name, value in values.items()]
        script = "\n".join(["import json", "result = None", *lines, code, "print('RESULT', json.dumps(result))"])
        environment = client_environment(hub, tmp_path / home, "hf_somebody") | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        if not xet:
            environment["HF_HUB_DISABLE_XET"] = "1"
        command = [str(client_python(version)), "-c", script]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.rpartition("RESULT ")[2])

    return run


def digests(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


DOWN = """
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
api = HfApi()
def raised(call, *arguments, **more):
    try:
        call(*arguments, **more)
    except Exception as error:
        return [kind.__name__ for kind in (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError,
                EntryNotFoundError) if isinstance(error, kind)][:1] + [error.response.status_code]
result = dict(
    snapshots={revision: snapshot_download(model, revision=revision) for revision in revisions},
    listed=sorted(api.list_repo_files(model, revision="feature/x")),
    many=len(api.list_repo_files("team/many")),
    paths=[entry.path for entry in api.get_paths_info(model, ["config.json", "absent"])],
    refs=[branch.name for branch in api.list_repo_refs(model).branches],
    models=[found.id for found in api.list_models(author="demo", sort="last_modified")],
    errors=[raised(call, repo, **({"filename": file} if file else {}), **({"revision": rev} if rev else {}))
            for call, repo, file, rev in [
                (api.model_info, "team/absent", None, None), (api.model_info, "team/private", None, None),
                (hf_hub_download, "team/private", "config.json", None), (api.model_info, model, None, "absent"),
                (hf_hub_download, model, "config.json", "absent"), (hf_hub_download, model, "absent.txt", None),
                (hf_hub_download, "team/gated", "config.json", None), (snapshot_download, "team/gated", None, None)]],
)
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_snapshots_by_every_kind_of_revision_are_identical_and_cached(
    hub: Hub, run: Run, stories_model: Path, version: str
) -> None:
    revisions = ["main", "v1", "feature/x", hub.commits["main"]]
    found = run(version, DOWN, model=MODEL, revisions=revisions)
    wanted = digests(stories_model)
    for revision, more in zip(revisions, ([], ["NOTES.md"], ["extra.txt"], []), strict=True):
        got = digests(Path(found["snapshots"][revision]))
        assert {name: digest for name, digest in got.items() if name not in more} == wanted
        assert set(got) == {*wanted, *more}
    assert found["listed"] == sorted([*wanted, "extra.txt"])
    assert (found["many"], found["paths"], found["models"]) == (1100, ["config.json"], [MODEL])
    assert found["refs"] == ["feature/x", "main"]
    assert found["errors"] == [
        *([["RepositoryNotFoundError", 404]] * 3),
        *([["RevisionNotFoundError", 404]] * 2),
        ["EntryNotFoundError", 404],
        *([["GatedRepoError", 403]] * 2),
    ]
    hub.wire.transfers.clear()
    code = "from huggingface_hub import snapshot_download\nresult = snapshot_download(model)"
    assert run(version, code, model=MODEL) == found["snapshots"]["main"]
    assert hub.wire.file_bytes() == 0


RESUMED = """
from huggingface_hub import hf_hub_download
try:
    result = hf_hub_download("team/big", "big.bin")
except Exception:  # clients before 1.0 go on when they are called again
    result = hf_hub_download("team/big", "big.bin")
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cut_transfer_of_more_than_ten_megabytes_goes_on(hub: Hub, run: Run, version: str) -> None:
    hub.wire.transfers.clear()
    hub.wire.cut = ("big.bin", 13 << 20)
    assert Path(run(version, RESUMED)).read_bytes() == hub.big
    first, second = [transfer for transfer in hub.wire.transfers if transfer.method == "GET"]
    assert (first.status, second.status) == (200, 206)
    assert second.sent <= BIG_BYTES - (10 << 20)


UP = """
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
api = HfApi()
api.create_repo(repo, private=True, exist_ok=True)
api.create_repo(repo, exist_ok=True)
made = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="All of it")
api.create_branch(repo, branch="feature/x")
api.create_tag(repo, tag="v1")
api.upload_file(path_or_fileobj=b"new", path_in_repo="sub/new.txt", repo_id=repo, revision="feature/x")
api.delete_file("sub/new.txt", repo, revision="feature/x")
def status(call, *arguments, **more):
    try:
        call(*arguments, **more)
    except Exception as error:
        return error.response.status_code
stale = api.list_repo_commits(repo)[1].commit_id
result = dict(
    oid=made.oid,
    private=api.model_info(repo).private,
    titles=[commit.title for commit in api.list_repo_commits(repo, revision="feature/x")],
    stale=status(api.upload_file, path_or_fileobj=b"x", path_in_repo="x", repo_id=repo, parent_commit=stale),
    again=[status(api.create_repo, repo), status(api.create_tag, repo, tag="v1"),
           status(api.create_branch, repo, branch="main")],
    unchanged=api.upload_folder(repo_id=repo, folder_path=folder).oid,
)
copy = repo + "-copy"
api.create_repo(copy)
api.upload_folder(repo_id=copy, folder_path=folder)
api.move_repo(copy, copy + "-moved")
result["snapshots"] = [api.snapshot_download(name) for name in (repo, copy + "-moved")]
api.delete_repo(copy + "-moved")
result["gone"] = api.repo_exists(copy + "-moved")
"""


@pytest.mark.parametrize(
    ("version", "xet"), [("0.36.2", False), ("1.28.0", False), ("1.28.0", True), ("2.4.0", False), ("2.4.0", True)]
)
def test_a_folder_goes_up_and_comes_back_identical(
    hub: Hub, run: Run, stories_model: Path, tmp_path: Path, version: str, xet: bool
) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for path in stories_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "sub" / "big.bin").write_bytes(hub.big[: PART_BYTES + 1000])
    (folder / "empty.txt").touch()
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    repo = f"up/{version}-{'xet' if xet else 'lfs'}"
    hub.wire.transfers.clear()
    found = run(version, UP, repo=repo, folder=str(folder), xet=xet)
    for snapshot in found["snapshots"]:
        assert digests(Path(snapshot)) == digests(folder)
    assert (found["private"], found["gone"], found["stale"]) == (True, False, 412)
    assert found["again"] == [409, 409, 409]
    assert found["unchanged"] == found["oid"], "what is there is not sent again"
    assert found["titles"][1:] == ["Upload sub/new.txt with huggingface_hub", "All of it", "initial commit"]
    bridged = [transfer for transfer in hub.wire.transfers if transfer.path.startswith("/xet/")]
    assert bool(bridged) is xet


def test_the_hf_command_uploads_what_transformers_then_loads(
    hub: Hub, client: Callable[..., Any], stories_model: Path, tmp_path: Path
) -> None:
    repo = "up/command"
    command = [str(client_python("2.4.0").with_name("hf")), "upload", repo, str(stories_model), "--private"]
    done = subprocess.run(
        command, env=client_environment(hub, tmp_path / "hf"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = client(f"""
from transformers import AutoModelForCausalLM, AutoTokenizer
result = [sum(p.numel() for p in AutoModelForCausalLM.from_pretrained("{repo}").parameters()),
          AutoTokenizer.from_pretrained("{repo}").decode(AutoTokenizer.from_pretrained("{repo}")("Once")["input_ids"])]
""")
    assert found[0] == 4_954_240
    assert "Once" in found[1]


def test_llama_cpps_requests_are_answered(hub: Hub, stories_model: Path) -> None:
    key = {"Authorization": "Bearer hf_" + "a" * 34, "User-Agent": "llama-cpp"}
    refs = hub.http.get(f"/api/models/{MODEL}/refs", headers=key).json()
    commit = next(branch["targetCommit"] for branch in refs["branches"] if branch["name"] == "main")
    tree = hub.http.get(f"/api/models/{MODEL}/tree/{commit}?recursive=true", headers=key).json()
    assert {entry["path"]: entry["size"] for entry in tree} == {
        path.name: path.stat().st_size for path in stories_model.iterdir()
    }
    where = f"/{MODEL}/resolve/{commit}/model.safetensors"
    head = hub.http.head(where, headers=key)
    assert head.headers["Accept-Ranges"] == "bytes"
    start = int(head.headers["Content-Length"]) - 1000
    rest = hub.http.get(where, headers=key | {"Range": f"bytes={start}-"})
    assert rest.status_code == 206
    assert rest.content == (stories_model / "model.safetensors").read_bytes()[start:]
    lfs = next(entry["lfs"]["oid"] for entry in tree if entry["path"] == "model.safetensors")
    assert head.headers["ETag"].strip('"') == lfs


def test_text_generation_inferences_requests_are_answered(hub: Hub, stories_model: Path) -> None:
    info = hub.http.get(f"/api/models/{MODEL}/revision/main").json()
    assert "model.safetensors" in {sibling["rfilename"] for sibling in info["siblings"]}
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        where = f"/{MODEL}/resolve/main/{name}"
        probe = hub.http.get(where, headers={"Range": "bytes=0-0"})
        assert probe.status_code == 206
        size = int(probe.headers["Content-Range"].rpartition("/")[2])
        assert size == (stories_model / name).stat().st_size
        assert probe.headers["X-Repo-Commit"] == info["sha"]
        half = size // 2
        spans = (f"0-{half}", f"{half + 1}-{size}")
        parts = [hub.http.get(where, headers={"Range": f"bytes={span}"}) for span in spans]
        assert b"".join(part.content for part in parts) == (stories_model / name).read_bytes()
    assert hub.http.get(f"/{MODEL}/resolve/main/absent.json", headers={"Range": "bytes=0-0"}).status_code == 404
