"""The Xet bridge over the wire: what it refuses. What it takes from stock clients is in test_client_matrix.py."""

import hashlib
import os
from uuid import uuid4

import httpx
import pytest

from tests.integration.hub.keyed import PRIVATE, PUBLIC, Keyed
from tests.integration.hub.test_uploads import stored
from tests.unit.app.hub.xet_objects import GROUPED_LZ4, shard, xorb

NAME = "0123456789abcdef" * 4


class Bridge:
    """A client of the bridge, for one repository."""

    def __init__(self, keyed: Keyed, who: str, repo: str) -> None:
        answer = keyed.ask(who, f"/api/models/{repo}/xet-write-token/main").json()
        self.token, self.address = answer["accessToken"], answer["casUrl"]

    def ask(self, method: str, path: str, content: bytes = b"", *, token: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        return httpx.request(method, f"{self.address}/v1/{path}", content=content, headers=headers, timeout=30)

    def xorb(self, content: bytes, name: str = NAME, *, token: str | None = None) -> httpx.Response:
        return self.ask("POST", f"xorbs/default/{name}", content, token=token)

    def shard(self, content: bytes) -> httpx.Response:
        return self.ask("POST", "shards", content)


@pytest.fixture
def repo(keyed: Keyed) -> str:
    name = f"own/{uuid4().hex[:12]}"
    keyed.make("owner", name, visibility="private")
    return name


def test_a_file_is_put_together_from_chunks_of_several_xorbs(keyed: Keyed, repo: str) -> None:
    a, b, c = (os.urandom(1000 + index) for index in range(3))
    other = NAME[::-1]
    bridge = Bridge(keyed, "owner", repo)
    assert bridge.ask("GET", f"chunks/default/{NAME}").status_code == 404
    assert bridge.xorb(xorb(a, b, scheme=GROUPED_LZ4)).json() == {"was_inserted": True}
    assert bridge.xorb(xorb(c), other).status_code == 200
    content = b + c + a + b
    described = shard((content, [(NAME, 1001, 1, 2), (other, 1002, 0, 1), (NAME, 2001, 0, 2)]))
    for _ in range(2):
        assert bridge.shard(described).json() == {"result": 1}
    assert keyed.commit("owner", repo, stored("model.safetensors", content)).status_code == 200
    assert keyed.ask("owner", f"/{repo}/resolve/main/model.safetensors").content == content


def test_a_file_whose_sha256_is_another_is_not_kept(keyed: Keyed, repo: str) -> None:
    bridge = Bridge(keyed, "owner", repo)
    bridge.xorb(xorb(b"one"))
    claimed = hashlib.sha256(b"two").digest()
    refused = bridge.shard(shard((b"one", [(NAME, 3, 0, 1)]), sha256=claimed))
    assert refused.status_code == 422
    assert claimed.hex() in refused.json()["error"]
    assert keyed.commit("owner", repo, stored("a.bin", b"two")).status_code == 422


@pytest.mark.parametrize(
    "segments",
    [[("f" * 64, 3, 0, 1)], [(NAME, 4, 0, 1)], [(NAME, 3, 0, 2)], [(NAME, 3, 1, 1)], [("f" * 63 + "e", 3, 0, 1)]],
)
def test_a_shard_that_names_what_is_not_there_is_refused(
    keyed: Keyed, repo: str, segments: list[tuple[str, int, int, int]]
) -> None:
    bridge = Bridge(keyed, "owner", repo)
    bridge.xorb(xorb(b"one"))
    assert bridge.shard(shard((b"one", segments))).status_code == 400


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(100)), xorb(b"abc")[:-1]])
def test_what_is_no_xorb_or_shard_is_refused(keyed: Keyed, repo: str, content: bytes) -> None:
    bridge = Bridge(keyed, "owner", repo)
    assert bridge.xorb(content).status_code == 400
    assert bridge.shard(content).status_code == 400
    assert bridge.xorb(xorb(b"abc"), "..%2f..%2fx").status_code in {400, 404}
    assert bridge.xorb(xorb(b"abc"), "A" * 64).status_code == 400


def test_another_keys_xorbs_make_nobody_elses_files(keyed: Keyed, repo: str) -> None:
    secret = uuid4().bytes
    Bridge(keyed, "owner", repo).xorb(xorb(secret))
    mine = f"other/{uuid4().hex[:12]}"
    keyed.make("other", mine)
    refused = Bridge(keyed, "other", mine).shard(shard((secret, [(NAME, 16, 0, 1)])))
    assert refused.status_code == 400
    assert "not here" in refused.json()["error"]


def test_the_bridge_is_for_writers(keyed: Keyed, repo: str) -> None:
    assert keyed.ask("reader", f"/api/models/{PUBLIC}/xet-write-token/main").status_code == 403
    assert keyed.ask("other", f"/api/models/{PRIVATE}/xet-write-token/main").status_code == 404
    bridge = Bridge(keyed, "owner", repo)
    for token in ("x", "x.y", keyed.keys["owner"]):
        assert bridge.xorb(xorb(b"x"), token=token).status_code == 403
