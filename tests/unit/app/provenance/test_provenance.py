import base64
import hashlib
import json
import os
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from app.cli import exits
from app.cli.application import run
from app.hub.objects import TreeFile
from app.provenance.manifest import MANIFEST_FILE, SIGNATURE_FILE, Flaw, make_manifest, verify
from app.provenance.signing import KEY_FILE, Signer, load_signer, parse_public_key
from app.settings import Settings, SettingsError

CONTENTS = {"config.json": b"{}", "model.safetensors": b"weights" * 1000, "sub/x.txt": b""}


def tree_file(path: str, content: bytes) -> TreeFile:
    return TreeFile(path, len(content), hashlib.sha256(content).hexdigest(), "0" * 40)


def manifest(recipe: dict[str, object] | None = None, verdict: str = "pass") -> bytes:
    files = [tree_file(path, content) for path, content in CONTENTS.items()]
    base = {"repo": "team/m", "commit": "c" * 40}
    return make_manifest(files, base=base, recipe=recipe or {}, data={"ds": "d" * 64}, verdict=verdict)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return load_signer(Settings(data_dir=tmp_path / "data"))


@pytest.fixture
def model(tmp_path: Path, signer: Signer) -> Path:
    directory = tmp_path / "model"
    signed = manifest()
    for path, content in {**CONTENTS, MANIFEST_FILE: signed, SIGNATURE_FILE: signer.sign(signed)}.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
    return directory


def flaws(model: Path, signer: Signer) -> list[Flaw]:
    found = verify(model, parse_public_key(signer.public_pem.encode()))
    assert found.passed == (not found.flaws)
    return found.flaws


def test_an_untouched_directory_passes_with_what_the_client_left_in_it(model: Path, signer: Signer) -> None:
    (model / ".cache" / "huggingface").mkdir(parents=True)
    (model / ".cache" / "huggingface" / "CACHEDIR.TAG").write_text("x")
    found = verify(model, parse_public_key(signer.public_pem.encode()))
    assert (found.passed, found.files, found.base["repo"]) == (True, 3, "team/m")


def test_whatever_is_wrong_is_named(model: Path, signer: Signer) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(b"W" + weights.read_bytes()[1:])
    (model / "config.json").write_bytes(b"{ }")
    (model / "sub" / "x.txt").unlink()
    (model / "pytorch_model.bin").write_bytes(b"a pickle that a loader might prefer")
    assert flaws(model, signer) == [
        Flaw("config.json", "has 3 bytes instead of 2"),
        Flaw("model.safetensors", "has other bytes (its sha256 differs)"),
        Flaw("sub/x.txt", "is missing"),
        Flaw("pytorch_model.bin", "is not in the manifest"),
    ]


def test_files_behind_a_link_to_a_directory_and_directories_in_place_of_files_are_told(
    model: Path, signer: Signer, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "modeling.py").write_text("a loader might run this")
    (model / "code").symlink_to(tmp_path / "elsewhere")
    (model / "config.json").unlink()
    (model / "config.json").mkdir()
    (model / "sub" / "x.txt").unlink()
    (model / "sub").rmdir()
    (model / "sub").write_bytes(b"")
    assert flaws(model, signer) == [
        Flaw("config.json", "is missing"),
        Flaw("sub/x.txt", "is missing"),
        Flaw("code", "is not in the manifest"),
        Flaw("sub", "is not in the manifest"),
    ]


def test_another_key_and_a_changed_manifest_are_told(model: Path, signer: Signer) -> None:
    other = Signer(Ed25519PrivateKey.generate())
    (flaw,) = flaws(model, other)
    assert flaw.file == SIGNATURE_FILE
    assert "give that service's key with --key" in flaw.reason
    changed = json.loads((model / MANIFEST_FILE).read_text()) | {"data": {}}
    (model / MANIFEST_FILE).write_text(json.dumps(changed))
    assert [flaw.file for flaw in flaws(model, signer)] == [SIGNATURE_FILE]
    (model / SIGNATURE_FILE).unlink()
    assert flaws(model, signer) == [Flaw(SIGNATURE_FILE, "is missing")]
    (model / MANIFEST_FILE).unlink()
    assert [flaw.file for flaw in flaws(model, signer)] == [MANIFEST_FILE]


@given(content=st.one_of(st.binary(max_size=40), st.sampled_from([b"[]", b'{"files": {"../x": {}}}', b"[" * 9999])))
def test_a_manifest_of_any_bytes_is_refused_and_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    directory = tmp_path_factory.mktemp("model")
    (directory / MANIFEST_FILE).write_bytes(content)
    (directory / SIGNATURE_FILE).write_bytes(content)
    key = Ed25519PrivateKey.generate().public_key()
    assert not verify(directory, key).passed


def test_the_manifest_depends_on_the_work_alone(signer: Signer) -> None:
    assert manifest({"seed": 0}) == manifest({"seed": 0}) != manifest({"seed": 1})
    assert signer.sign(b"x") == signer.sign(b"x")


@pytest.mark.parametrize(
    ("verdict", "said", "refused"),
    [
        ("pass", "has passed", ""),
        ("fail", "MISSED its gates", "it missed its gates"),
        (None, "as it was published", "its manifest does not say"),
    ],
)
def test_the_command_says_whether_the_gates_were_passed_where_the_manifest_knows_and_fails_where_that_is_required(
    verdict: str | None,
    said: str,
    refused: str,
    model: Path,
    signer: Signer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    signed = manifest(verdict=verdict or "")
    if verdict is None:  # as releases before this one wrote it
        signed = json.dumps({name: value for name, value in json.loads(signed).items() if name != "verdict"}).encode()
    (model / MANIFEST_FILE).write_bytes(signed)
    (model / SIGNATURE_FILE).write_bytes(signer.sign(signed))
    (tmp_path / "key.pem").write_text(signer.public_pem)
    arguments = ["verify", str(model), "--key", str(tmp_path / "key.pem")]
    assert run(arguments) == exits.PASSED
    told = capsys.readouterr().out
    assert said in told
    assert ("gate" in told) == (verdict is not None)
    code = exits.FAILED_OR_GATE_MISSED if refused else exits.PASSED
    for option in ([], ["--json"]):
        assert run([*arguments, "--require-passed", *option]) == code
        required = capsys.readouterr().err
        assert refused in required if refused else not required


def test_openssl_agrees_about_the_signature(model: Path, signer: Signer, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(signer.public_pem)
    (tmp_path / "raw").write_bytes(base64.b64decode((model / SIGNATURE_FILE).read_bytes()))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(tmp_path / "key.pem"), "-rawin"]
    files = ["-in", str(model / MANIFEST_FILE), "-sigfile", str(tmp_path / "raw")]
    assert subprocess.run([*command, *files], check=False, capture_output=True).returncode == 0


def test_many_who_start_at_once_share_one_key_that_only_the_service_may_read(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    with ThreadPoolExecutor(8) as threads:
        keys = {signer.public_pem for signer in threads.map(lambda _: load_signer(settings), range(16))}
    assert len(keys) == 1
    (file,) = (tmp_path / "data").iterdir()
    assert (file.name, stat.S_IMODE(file.stat().st_mode)) == (KEY_FILE, 0o600)


def test_a_key_in_the_settings_wins_and_a_wrong_one_is_refused_without_being_quoted(tmp_path: Path) -> None:
    made = load_signer(Settings(data_dir=tmp_path))
    pem = (tmp_path / KEY_FILE).read_text()
    spelled = SecretStr(pem.replace("\n", "\\n"))
    assert load_signer(Settings(data_dir=tmp_path / "other", signing_key=spelled)).public_pem == made.public_pem
    with pytest.raises(SettingsError, match="openssl") as caught:
        load_signer(Settings(data_dir=tmp_path, signing_key=SecretStr("not-a-key")))
    assert "not-a-key" not in str(caught.value)


def test_the_command_needs_no_network_and_tells_by_its_exit_code(
    model: Path, signer: Signer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("STREAMLINE_")]:
        monkeypatch.delenv(name)
    (tmp_path / "key.pem").write_text(signer.public_pem)
    arguments = ["verify", str(model), "--key", str(tmp_path / "key.pem"), "--json"]
    assert run(arguments) == exits.PASSED
    assert json.loads(capsys.readouterr().out)["passed"] is True
    (model / "config.json").write_bytes(b"[]")
    assert run(arguments) == exits.FAILED_OR_GATE_MISSED
    assert json.loads(capsys.readouterr().out)["flaws"][0]["file"] == "config.json"
    assert run(arguments[:-1]) == exits.FAILED_OR_GATE_MISSED
    assert "NOT as it was published (1 difference)." in capsys.readouterr().out
    assert run(["verify", str(tmp_path / "nowhere")]) == exits.BAD_USAGE
    assert run(["verify", str(model), "--key", str(model / "config.json")]) == exits.BAD_USAGE
