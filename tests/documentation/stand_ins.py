"""Programs that no test machine has, or that would never end: what can be checked of their command lines is.

A block of the documentation runs with a directory of these in front of its PATH (`write_stand_ins`). Each is this file
as a script: it ends with 0 where the command would have had what it names, and says what is missing where not.
"""

import ast
import hashlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
BIN = Path(sys.executable).parent
_START_SECONDS = 240


def write_stand_ins(directory: Path) -> None:
    """Make the directory that stands first in a reader's PATH."""
    directory.mkdir()
    for name in ("docker", "lm_eval", "make", "pip", "python", "vllm"):
        _write(directory / name, f'exec {PYTHON} {__file__} {name} "$@"')
    # What runs until it is stopped is started and stopped; everything else is the command itself.
    _write(
        directory / "streamline",
        f'case "$1" in\n  up | api | worker) exec {PYTHON} {__file__} streamline "$@" ;;\n'
        f'  *) exec {PYTHON} -I -S {Path(__file__).with_name("prefork.py")} "$STAND_INS_COMMAND" "$@" ;;\nesac',
    )


def _write(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def option(arguments: list[str], name: str, default: str = "") -> str:
    """The value of an option, given as `--name value` or `--name=value`."""
    for index, argument in enumerate(arguments):
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
        if argument == name:
            return arguments[index + 1]
    return default


def docker(arguments: list[str]) -> str | None:
    """`docker compose`: the file's profiles and services are there."""
    import yaml

    if arguments[:1] != ["compose"]:
        return f"docker {arguments[0]} is nothing that the documentation can be checked for"
    compose: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    for variable in re.findall(r"\$\{(\w+):\?", (REPOSITORY / "docker-compose.yml").read_text()):
        if not os.environ.get(variable):
            return f"docker-compose.yml asks for {variable}"
    profile = option(arguments, "--profile")
    known = {name for service in compose["services"].values() for name in service.get("profiles", ())}
    if profile and profile not in known:
        return f"docker-compose.yml has no profile {profile}, but {sorted(known)}"
    action = next(word for word in arguments[1:] if word in {"up", "down", "run", "exec", "build", "logs"})
    words = [word for word in arguments[arguments.index(action) + 1 :] if not word.startswith("-")]
    if action in {"run", "exec", "logs"} and words[0] not in compose["services"]:
        return f"docker-compose.yml has no service {words[0]}"
    if action in {"run", "exec"} and words[1] == "streamline":
        start = arguments.index("streamline")
        subprocess.run([BIN / "streamline", *arguments[start + 1 : start + 3], "--help"], check=True)
    return None


def lm_eval(arguments: list[str]) -> str | None:
    """The definitions of its tasks are where it is told to look."""
    directory = Path(option(arguments, "--include_path"))
    for task in option(arguments, "--tasks").split(","):
        found = [path for path in directory.rglob("*.yaml") if path.stem == task]
        if not found:
            return f"{directory} defines no task {task}"
    return None


def make(arguments: list[str]) -> str | None:
    """The target is there; a service could start with the settings of the environment."""
    subprocess.run(["/usr/bin/make", "--dry-run", *arguments], check=True, stdout=subprocess.DEVNULL)
    if "up" in arguments:
        subprocess.run([PYTHON, "-c", "from app.settings import load_settings; load_settings()"], check=True)
    return None


def pip(arguments: list[str]) -> str | None:
    """What is installed is this project, with extras that it has."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    constraint = option(arguments, "--constraint")
    if constraint and not Path(constraint).is_file():
        return f"there is no file {constraint}"
    wanted = re.fullmatch(r"\.(?:\[([\w,]+)\])?", arguments[-1])
    if wanted is None:
        return f"{arguments[-1]} is not this project"
    missing = set((wanted[1] or "").split(",")) - {"", *project["optional-dependencies"]}
    return f"pyproject.toml has no extra {missing}" if missing else None


def python(arguments: list[str]) -> str | None:
    """Python itself, but for what would compute for minutes: there the options are checked."""
    if arguments[:2] == ["-m", "worker.engine"]:
        check = "import sys; from worker.engine import __main__ as m, request as r, request_checks as c; "
        check += "options = m.make_parser().parse_args(sys.argv[1:]); "
        check += "recipe = r.recipe_from(options); c.check(recipe); c.check_texts(recipe)"
        os.execv(PYTHON, [PYTHON, "-c", check, *arguments[2:]])
    if arguments[0] == "-m" and arguments[1].startswith("benchmarks."):
        return _benchmark(arguments[1].partition(".")[2], arguments[2:])
    return os.execv(PYTHON, [PYTHON, *arguments])


def _benchmark(name: str, arguments: list[str]) -> str | None:
    if not (REPOSITORY / f"benchmarks/{name}.py").is_file():
        return f"there is no benchmark {name}"
    named = {argument for argument in arguments if argument.startswith("--")}
    tree = ast.parse((REPOSITORY / f"benchmarks/{name}.py").read_text())
    known = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return f"benchmarks.{name} has no option {named - known}" if named - known else None


def streamline(arguments: list[str]) -> str | None:
    """Start the process, see that it serves, and stop it; the same command line once only."""
    told = hashlib.sha256(json.dumps(arguments).encode()).hexdigest()
    seen = Path(os.environ["STAND_INS_STARTED"]) / told
    if seen.exists():
        return None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    more = ["--port", str(port)] if arguments[0] == "api" else []
    environment = os.environ | ({} if more else {"STREAMLINE_WORKER_METRICS": f"127.0.0.1:{port}"})
    process = subprocess.Popen([BIN / "streamline", *arguments, *more], env=environment)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(f"http://127.0.0.1:{port}/{'healthz' if more else 'metrics'}"):
            if process.poll() is not None or time.monotonic() > deadline:
                return f"streamline {shlex.join(arguments)} does not start"
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    seen.touch()
    return None


def vllm(arguments: list[str]) -> str | None:
    """The model that it would serve is in the hub that HF_ENDPOINT names."""
    url = f"{os.environ['HF_ENDPOINT']}/api/models/{arguments[1]}"
    return None if arguments[0] == "serve" and _answers(url) else f"nothing to serve at {url}"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


STAND_INS = {each.__name__: each for each in (docker, lm_eval, make, pip, python, streamline, vllm)}

if __name__ == "__main__":
    complaint = STAND_INS[sys.argv[1]](sys.argv[2:])
    if complaint:
        sys.exit(f"{sys.argv[1]}: {complaint}")
