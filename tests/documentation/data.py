"""Data that pages show, held against whatever reads such data."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any, Final

import yaml

from app.datasets.inspection import inspect
from app.jobs.spec.request import JobRequest
from app.webhooks.views import JobEnded
from documentation.error_codes import kinds
from documentation.prometheus import measures
from tests.conftest import REPOSITORY
from tests.documentation.blocks import Block
from tests.ports import unused_port

GITHUB = yaml.safe_load((REPOSITORY / "recipes/github/action.yml").read_text())
GITLAB_FILE = "recipes/gitlab/streamline.gitlab-ci.yml"
GITLAB = yaml.safe_load((REPOSITORY / GITLAB_FILE).read_text())


def check(block: Block, directory: Path) -> None:
    """Fails where nothing is known that reads the block, or where it would not be taken."""
    assert block.language in LANGUAGES, f"{block.place}: nobody knows what reads {block.language}"
    LANGUAGES[block.language](block, directory)


def _json(block: Block, directory: Path) -> None:
    value = json.loads(block.text)
    match value:
        case {"model": _, "target": _}:
            JobRequest.model_validate_json(block.text)
        case {"code": code, "title": title, "status": status, "type": kind}:
            (found,) = [each for each in kinds() if each.code == code]
            assert (title, status, kind) == (found.title, found.status, f"urn:streamline:problem:{code}")
        case {"type": _, "data": _}:
            JobEnded.model_validate_json(block.text)
        case {"text": str()}:
            (directory / "texts.jsonl").write_text(block.text)
            assert inspect(directory / "texts.jsonl", "texts.jsonl").columns == ("text",)
        case _:
            raise AssertionError(f"{block.place}: nobody knows what this is")


def _toml(block: Block, directory: Path) -> None:
    JobRequest.model_validate_json(json.dumps(tomllib.loads(block.text)))


def _yaml(block: Block, directory: Path) -> None:
    value: dict[str, Any] = yaml.safe_load(block.text)
    match value:
        case {"jobs": jobs}:
            steps = [step for job in jobs.values() for step in job["steps"] if "/recipes/github@" in step["uses"]]
            assert steps
            for step in steps:
                assert set(step["with"]) <= set(GITHUB["inputs"])
        case {"include": [{"file": file}]}:
            assert file == GITLAB_FILE
            for job in (job for name, job in value.items() if name != "include"):
                variables = set(job["variables"])
                assert variables <= {*GITLAB[job["extends"]]["variables"], "STREAMLINE_URL", "STREAMLINE_API_KEY"}
        case {"scrape_configs": configs}:
            assert all(config["job_name"] and config["static_configs"][0]["targets"] for config in configs)
        case {"groups": groups}:
            known = {series for part in ("app", "worker") for each in measures(part) for series in each.series}
            for rule in (rule for group in groups for rule in group["rules"]):
                named = set(re.findall(r"streamline_\w+", rule["expr"]))
                assert named, rule
                assert named <= known, f"{block.place}: there are no series {named - known}"
        case _:
            raise AssertionError(f"{block.place}: nobody knows what this is")


def _nginx(block: Block, directory: Path) -> None:
    bare = [line.strip() for line in block.text.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert all(line.endswith(("{", "}", ";")) for line in bare), "a directive is not closed"
    assert block.text.count("{") == block.text.count("}")
    if shutil.which("nginx") is None:  # the rest is nginx's own to say, where there is one
        return
    certificate = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x"]
    files = ["-keyout", str(directory / "streamline.key"), "-out", str(directory / "streamline.crt")]
    subprocess.run(["openssl", *certificate, *files], check=True, capture_output=True)
    text = block.text.replace("/etc/ssl/", f"{directory}/").replace("listen 443", f"listen {unused_port()}")
    config = directory / "nginx.conf"
    config.write_text(f"pid {directory}/nginx.pid;\nevents {{}}\nhttp {{\naccess_log off;\n{text}}}\n")
    done = subprocess.run(
        ["nginx", "-t", "-p", str(directory), "-e", "stderr", "-c", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


LANGUAGES: Final[dict[str, Any]] = {"json": _json, "toml": _toml, "yaml": _yaml, "nginx": _nginx}
