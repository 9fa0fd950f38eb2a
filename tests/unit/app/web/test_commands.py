"""What is copied from a page and pasted into a shell sends exactly the request, whatever it holds."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from app.web.commands import as_cli, as_curl

REQUEST: dict[str, Any] = {
    "model": {"repo": "team/it's"},
    "labels": {"a": "$(touch x) `id` \"quoted\" \\n 'END'\nEND\nümlaut"},
    "target": {"sparsity": 0.25},
}


@pytest.mark.parametrize("command", [as_curl, as_cli])
@pytest.mark.parametrize("keyed", [False, True])
def test_a_shell_passes_the_request_on_as_it_is(command: Callable[..., str], keyed: bool) -> None:
    text = command("http://127.0.0.1:8000", REQUEST, keyed=keyed)
    reading = "curl() { cat; }\nstreamline() { cat /dev/stdin; }\n"
    run = subprocess.run(["bash", "-euc", reading + text], capture_output=True, text=True, check=True, env={
        "PATH": "/usr/bin:/bin", "STREAMLINE_API_KEY": "hf_x", "LC_ALL": "C.UTF-8",
    })  # fmt: skip
    assert json.loads(run.stdout) == REQUEST
    assert ("STREAMLINE_API_KEY" in text) is keyed
