"""Stock clients, unchanged, over plain http."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.hub.conftest import BIG_BYTES, MANY_FILES, MODEL, Hub, client_environment

Client = Callable[..., Any]


def digests(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


def test_one_file_is_downloaded_byte_identical_and_cached_by_its_etag(
    hub: Hub, client: Client, stories_model: Path
) -> None:
    code = f"""
from huggingface_hub import hf_hub_download
result = [hf_hub_download("{MODEL}", name) for name in ("config.json", "model.safetensors")]
"""
    config, weights = map(Path, client(code))
    assert config.read_bytes() == (stories_model / "config.json").read_bytes()
    assert weights.read_bytes() == (stories_model / "model.safetensors").read_bytes()
    assert config.parent.name == hub.commits["main"]
    assert weights.resolve().name == hashlib.sha256(weights.read_bytes()).hexdigest()
    hub.wire.transfers.clear()
    client(code)
    assert {transfer.method for transfer in hub.wire.transfers} == {"HEAD"}


def test_a_second_snapshot_transfers_no_file_bytes(hub: Hub, client: Client, stories_model: Path) -> None:
    code = f"""
from huggingface_hub import snapshot_download
result = snapshot_download("{MODEL}")
"""
    hub.wire.transfers.clear()
    snapshot = Path(client(code))
    assert digests(snapshot) == digests(stories_model)
    assert hub.wire.file_bytes() == sum(path.stat().st_size for path in stories_model.iterdir())
    hub.wire.transfers.clear()
    assert Path(client(code)) == snapshot
    assert hub.wire.file_bytes() == 0


def test_the_hf_command_downloads(hub: Hub, tmp_path: Path, stories_model: Path) -> None:
    command = [str(Path(sys.executable).with_name("hf")), "download", MODEL, "--local-dir", str(tmp_path / "model")]
    done = subprocess.run(
        command, env=client_environment(hub, tmp_path / "home"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "model") == digests(stories_model)


def test_listing_and_info_by_every_kind_of_revision(hub: Hub, client: Client, stories_model: Path) -> None:
    found = client(f"""
from huggingface_hub import HfApi
api = HfApi()
result = dict(
    files={{rev: sorted(api.list_repo_files("{MODEL}", revision=rev)) for rev in ("main", "feature/x", "v1", "v1/rc")}},
    sha={{rev: api.model_info("{MODEL}", revision=rev).sha for rev in (None, "main", "feature/x", "v1")}},
    bare=[api.model_info("stories").sha, sorted(api.list_repo_files("stories"))],
    lfs=[(s.rfilename, s.size, s.lfs and s.lfs.sha256)
         for s in api.model_info("{MODEL}", files_metadata=True).siblings],
    expanded=sorted(k for k, v in vars(api.model_info("{MODEL}", expand=["sha", "private"])).items() if v is not None),
    exists=[api.repo_exists("{MODEL}"), api.repo_exists("team/nothing"), api.repo_exists("team/missed"),
            api.file_exists("{MODEL}", "config.json"), api.file_exists("{MODEL}", "no.json"),
            api.revision_exists("{MODEL}", "v1"), api.revision_exists("{MODEL}", "v2")],
    refs=[[(r.name, r.target_commit) for r in kind] for kind in (api.list_repo_refs("{MODEL}").branches,
                                                                 api.list_repo_refs("{MODEL}").tags)],
    commits=[(c.commit_id, c.title, c.message) for c in api.list_repo_commits("{MODEL}", revision="feature/x")],
    models=[m.id for m in api.list_models(author="demo")],
    full=[len(m.siblings) for m in api.list_models(search="STORIES", full=True)],
    size=[f.size for f in api.get_safetensors_metadata("{MODEL}").files_metadata.values() if hasattr(f, "size")],
    parameters=sum(api.get_safetensors_metadata("{MODEL}").parameter_count.values()),
)
""")
    names = sorted(path.name for path in stories_model.iterdir())
    commits = hub.commits
    assert found["files"] == {
        "main": names,
        "feature/x": sorted([*names, "extra.txt"]),
        "v1": sorted([*names, "NOTES.md"]),
        "v1/rc": sorted([*names, "extra.txt"]),
    }
    main = commits["main"]
    assert found["sha"] == {"null": main, "main": main, "feature/x": commits["feature/x"], "v1": commits["v1"]}
    assert found["bare"] == [commits["bare"], names]
    weights = hashlib.sha256((stories_model / "model.safetensors").read_bytes()).hexdigest()
    assert ["model.safetensors", (stories_model / "model.safetensors").stat().st_size, weights] in found["lfs"]
    assert [sha256 for name, _, sha256 in found["lfs"] if name == "config.json"] == [None]
    assert {"sha", "private", "id"} <= set(found["expanded"])
    assert "siblings" not in found["expanded"]
    assert found["exists"] == [True, False, True, True, False, True, False]
    assert found["refs"] == [
        [["feature/x", commits["feature/x"]], ["main", main]],
        [["v1", commits["v1"]], ["v1/rc", commits["feature/x"]]],
    ]
    assert found["commits"] == [[commits["feature/x"], "More", "Details."]]
    assert found["models"] == [MODEL]
    assert found["full"] == [len(names)] * 2
    assert found["parameters"] == 4_954_240


def test_trees_show_directories_their_files_and_last_commits(hub: Hub, client: Client) -> None:
    found = client("""
from huggingface_hub import HfApi
api = HfApi()
def tree(**arguments):
    return [(type(e).__name__, e.path, e.last_commit and e.last_commit.title)
            for e in api.list_repo_tree("team/nested", **arguments)]
result = [tree(), tree(recursive=True), tree(path_in_repo="d/e"), tree(expand=True, recursive=True)]
""")
    kinds = {
        "a.txt": "RepoFile",
        "d": "RepoFolder",
        "d/b.txt": "RepoFile",
        "d/e": "RepoFolder",
        "d/e/c.txt": "RepoFile",
    }
    assert found == [
        [[kinds[path], path, None] for path in ("a.txt", "d")],
        [[kind, path, None] for path, kind in kinds.items()],
        [["RepoFile", "d/e/c.txt", None]],
        [[kind, path, "Two" if path == "a.txt" else "One"] for path, kind in kinds.items()],
    ]


def test_a_long_listing_is_read_page_by_page(hub: Hub, client: Client) -> None:
    hub.wire.transfers.clear()
    names = client("""
from huggingface_hub import HfApi
result = HfApi().list_repo_files("team/many")
""")
    assert names == [f"{index:05}.txt" for index in range(MANY_FILES)]
    assert len([transfer for transfer in hub.wire.transfers if "/tree/" in transfer.path]) == 2


def test_a_cut_transfer_goes_on_where_it_was_cut(hub: Hub, client: Client) -> None:
    hub.wire.transfers.clear()
    hub.wire.cut = ("big.bin", 13 << 20)
    path = Path(
        client("""
from huggingface_hub import hf_hub_download
result = hf_hub_download("team/big", "big.bin")
""")
    )
    assert path.read_bytes() == hub.big
    first, second = [transfer for transfer in hub.wire.transfers if transfer.method == "GET"]
    assert (first.status, first.range) == (200, None)
    assert second.status == 206
    assert second.range is not None
    resumed_at = int(second.range.removeprefix("bytes=").rstrip("-"))
    assert 10 << 20 <= resumed_at <= 13 << 20
    assert second.sent == BIG_BYTES - resumed_at


def test_empty_files_arrive(hub: Hub, client: Client) -> None:
    path = client("""
from huggingface_hub import hf_hub_download
result = hf_hub_download("team/big", "empty.txt")
""")
    assert Path(path).read_bytes() == b""


@pytest.mark.slow
def test_transformers_loads_model_and_tokenizer_by_branch_tag_commit_and_bare_name(
    hub: Hub, client: Client, stories_model: Path
) -> None:
    found = client(f"""
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(2)
def load(where, **arguments):
    tokenizer = AutoTokenizer.from_pretrained(where, **arguments)
    model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **arguments)
    tokens = tokenizer("Once upon a time", return_tensors="pt")
    return model(**tokens).logits
local = load({str(stories_model)!r})
result = []
for where, revision in [("{MODEL}", None), ("{MODEL}", "main"), ("{MODEL}", "feature/x"), ("{MODEL}", "v1"),
                        ("{MODEL}", "{hub.commits["v1"]}"), ("stories", "main")]:
    result.append(torch.equal(local, load(where, **(dict(revision=revision) if revision else dict()))))
""")
    assert found == [True] * 6
