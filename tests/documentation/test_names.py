"""What pages name is there: settings, commands and their options, targets, metrics, files; and nothing is left out."""

import importlib
import pkgutil
import re
from typing import Any

import pytest
from typer.main import get_command

from app import errors
from app.cli.application import application
from app.errors import ServiceError
from app.jobs.spec.request import JobRequest
from app.settings import Settings
from documentation.job_fields import split_default
from documentation.prometheus import measures
from tests.conftest import REPOSITORY
from tests.documentation.blocks import inline_code, texts

OF_CLIENTS = {"STREAMLINE_URL", "STREAMLINE_API_KEY"}


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return texts()


def commands(command: Any, name: str = "streamline") -> dict[str, Any]:
    """Every command by its words."""
    found = {name: command}
    for word, inner in getattr(command, "commands", {}).items():
        found |= commands(inner, f"{name} {word}")
    return found


COMMANDS = commands(get_command(application))


def test_every_setting_that_a_page_names_exists(pages: dict[str, str]) -> None:
    recipes = "".join(path.read_text() for path in (REPOSITORY / "recipes").rglob("*") if path.is_file())
    known = {f"STREAMLINE_{name.upper()}" for name in Settings.model_fields} | OF_CLIENTS
    known |= set(re.findall(r"STREAMLINE_[A-Z_]+", recipes))
    for page, text in pages.items():
        assert set(re.findall(r"STREAMLINE_[A-Z0-9_]*[A-Z0-9]", text)) <= known, page


def test_every_command_and_option_in_a_sentence_exists(pages: dict[str, str]) -> None:
    for page, text in pages.items():
        for code in (part for found in inline_code(text) for part in found.split(" && ")):
            if not code.startswith("streamline "):
                continue
            words = re.findall(r"^streamline(?: [a-z]+)*", code)[0].split()
            while len(words) > 1 and " ".join(words) not in COMMANDS:
                words.pop()
            command = COMMANDS[" ".join(words)]
            assert len(words) > 1 or "COMMAND" in code, f"{page}: {code}"
            known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            assert set(re.findall(r"--[a-z][a-z-]*", code)) <= known, f"{page}: {code}"


def test_every_target_of_make_in_a_sentence_exists(pages: dict[str, str]) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    for page, text in pages.items():
        for code in inline_code(text):
            if found := re.match(r"make ([a-z]+)\b", code):
                assert found[1] in targets, f"{page}: {code}"


def test_every_metric_that_a_page_names_exists(pages: dict[str, str]) -> None:
    known = {series for part in ("app", "worker") for each in measures(part) for series in each.series}
    for page, text in pages.items():
        assert set(re.findall(r"\bstreamline_(?!login)[a-z_]+", text)) <= known, page


def test_every_file_of_the_repository_that_a_page_names_exists(pages: dict[str, str]) -> None:
    for page, text in pages.items():
        named = [
            code
            for code in inline_code(text)
            if re.fullmatch(r"(app|worker|benchmarks|recipes|docs|tests)/[\w./-]+", code)
        ]
        named += re.findall(r"\]\(([\w./-]+)[)#]", text) if page == "README.md" else []
        for name in named:
            assert (REPOSITORY / name).exists(), f"{page}: {name}"


def _kinds_of_errors() -> list[type[ServiceError]]:
    """Every class of every module there, which is more to ask than what the page is made from."""
    modules = [importlib.import_module(f"app.errors.{each.name}") for each in pkgutil.iter_modules(errors.__path__)]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    return [kind for kind in found if issubclass(kind, ServiceError)]


def test_the_reference_leaves_nothing_out(pages: dict[str, str]) -> None:
    settings, fields = pages["docs/reference/settings.md"], pages["docs/reference/job.md"]
    for name in Settings.model_fields:
        assert f"`STREAMLINE_{name.upper()}`" in settings
    schema = JobRequest.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        for name in part["properties"]:
            assert f"`{name}`" in fields or f"## {name}" in fields, name
    for kind in _kinds_of_errors():
        assert f"`{kind.code}`" in pages["docs/reference/errors.md"]
    for name, command in COMMANDS.items():
        if not hasattr(command, "commands"):
            assert f"## {name}\n" in pages["docs/reference/cli.md"]
    for path in ("app/api/metrics.py", "worker/metrics.py", "app/jobs/reconciler.py"):
        for name in re.findall(r'"(streamline_\w+)"', (REPOSITORY / path).read_text()):
            assert name in pages["docs/reference/prometheus.md"], name


def test_a_default_is_told_apart_from_the_meaning() -> None:
    assert split_default("Passes over the tokens. Default 4 (measured: here).") == (
        "Passes over the tokens.",
        "4 (measured: here)",
    )
    assert split_default("Default: none.") == ("", "none")
    assert split_default("Which one. Default `a.b`. `c` is another.") == ("Which one. `c` is another.", "`a.b`")
    assert split_default("Its peak. Default 0.3 of the first step's.") == ("Its peak.", "0.3 of the first step's")
    assert split_default("Parameters of the result.") == ("Parameters of the result.", "")
