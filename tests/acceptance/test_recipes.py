"""The recipes for pipelines, their shell steps run as the build server would, against a service at work."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import pytest
import yaml
from huggingface_hub import HfApi

from tests.service_process import QUICK_JOB, REPOSITORY, ServiceProcesses, running_service, wait_until

RECIPES = REPOSITORY / "recipes"
REQUEST = QUICK_JOB | {"replacement": {"kind": "none", "tokens": 2048}, "labels": {}}
MISSED = REQUEST | {"gates": {"max_parameters": 1, "max_perplexity_ratio": 100}}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcesses]:
    with running_service(tmp_path_factory.mktemp("service") / "data", {}) as processes:
        yield processes


class Pipeline:
    """A checkout in which one job of a pipeline runs; `run` is repeated when the pipeline is."""

    def __init__(self, checkout: Path, service: ServiceProcesses, request: dict[str, Any]) -> None:
        self.checkout = checkout
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(checkout),
            "STREAMLINE_URL": service.url,
        }
        (checkout / "request.json").write_text(json.dumps(request))

    def bash(self, script: str, **environment: str) -> int:
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=self.checkout,
            env=self.environment | environment,
            check=False,
            timeout=600,
        ).returncode

    def run(self) -> int:
        """What the step's exit code is."""
        raise NotImplementedError

    def build_cancelled(self, job: str, **environment: str) -> None:
        """The build server cancels the build while it waits for `job`."""
        raise NotImplementedError

    def junit(self) -> ElementTree.Element | None:
        file = self.checkout / "streamline-junit.xml"
        return ElementTree.parse(file).getroot() if file.exists() else None


class Shell(Pipeline):
    def run(self) -> int:
        return self.bash(f"{RECIPES}/shell/streamline.sh request.json", STREAMLINE_RUN="run-7")


class GitLab(Pipeline):
    def run(self) -> int:
        job = yaml.safe_load((RECIPES / "gitlab/streamline.gitlab-ci.yml").read_text())[".streamline"]
        variables = job["variables"] | {"STREAMLINE_SPEC": "request.json"}
        predefined = {"CI_PROJECT_ID": "3", "CI_PIPELINE_ID": "7", "CI_JOB_NAME": "compress"}
        return self.bash("\n".join(job["script"]), **variables, **predefined)

    def build_cancelled(self, job: str, **environment: str) -> None:
        (self.checkout / "streamline-job.json").write_text(json.dumps({"id": job}))
        recipe = yaml.safe_load((RECIPES / "gitlab/streamline.gitlab-ci.yml").read_text())[".streamline"]
        variables = recipe["variables"] | {"CI_JOB_STATUS": "canceled"} | environment
        assert self.bash("\n".join(recipe["after_script"]), **variables) == 0


class GitHub(Pipeline):
    """The composite action: expressions evaluated, outputs handed on, and a failed step ends it."""

    def run(self) -> int:
        action = yaml.safe_load((RECIPES / "github/action.yml").read_text())
        values = {f"inputs.{name}": given.get("default", "") for name, given in action["inputs"].items()}
        values |= {"inputs.url": self.environment["STREAMLINE_URL"], "inputs.spec": "request.json"}

        def evaluate(text: str) -> str:
            return re.sub(r"\$\{\{ ([\w.-]+)[^}]*\}\}", lambda found: values.get(found[1], ""), text)

        for step in action["runs"]["steps"]:
            if "run" not in step or "cancelled()" in step.get("if", ""):
                continue
            outputs = self.checkout / "outputs"
            outputs.write_text("")
            code = self.bash(
                step["run"],
                **{name: evaluate(value) for name, value in step.get("env", {}).items()},
                **{"GITHUB_REPOSITORY": "team/app", "GITHUB_RUN_ID": "7", "GITHUB_JOB": "compress"},
                GITHUB_OUTPUT=str(outputs),
                GITHUB_STEP_SUMMARY=str(self.checkout / "streamline-summary.md"),
            )
            for line in outputs.read_text().splitlines():
                name, _, value = line.partition("=")
                values[f"steps.{step['id']}.outputs.{name}"] = value
            if code:
                return code
        return 0

    def build_cancelled(self, job: str, **environment: str) -> None:
        action = yaml.safe_load((RECIPES / "github/action.yml").read_text())
        (step,) = (step for step in action["runs"]["steps"] if "cancelled()" in step.get("if", ""))
        assert self.bash(step["run"], JOB=job, **environment) == 0


recipes = pytest.mark.parametrize("recipe", [Shell, GitLab, GitHub])
Make = Callable[[Path, ServiceProcesses, dict[str, Any]], Pipeline]


def in_background(pipeline: Pipeline) -> tuple[threading.Thread, list[int]]:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(pipeline.run()))
    thread.start()
    return thread, codes


@recipes
def test_a_cancelled_job_ends_the_step_with_2_and_its_repetition_goes_on_over_a_restart_of_the_service(
    recipe: Make, service: ServiceProcesses, tmp_path: Path
) -> None:
    pipeline = recipe(tmp_path, service, REQUEST | {"labels": {"recipe": recipe.__name__}})
    with service.client() as client:
        mine = f"recipe={recipe.__name__}"
        first, codes = in_background(pipeline)
        job = wait_until(lambda: client.jobs(label=mine)["items"], what="the recipe has submitted")[0]["id"]
        wait_until(lambda: client.job(job)["progress"] > 0.01, what="the job runs")
        client.cancel(job)
        first.join()
        assert codes == [2]
        again, codes = in_background(pipeline)
        wait_until(lambda: client.job(job)["state"] == "running", what="the repetition has queued the job again")
        assert service.api is not None
        service.api.kill()
        service.api.wait()
        service.start_api()
        again.join()
        assert codes == [0]
        assert len(client.jobs(label=mine)["items"]) == 1, "the repetition attached to the job"
    assert "<html" in (tmp_path / "streamline-report.html").read_text()
    if recipe is not Shell:
        junit = pipeline.junit()
        assert junit is not None
        assert (junit.get("errors"), junit.get("failures")) == ("0", "0")
        summary = (tmp_path / "streamline-summary.md").read_text()
        assert (": **cancelled**" in summary) == (recipe is GitHub), (
            "the server's page keeps both runs, a file the last"
        )
        assert "| parameters |" in summary


@recipes
def test_a_missed_gate_fails_the_step_and_is_named_in_what_it_leaves(
    recipe: Make, service: ServiceProcesses, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pipeline = recipe(tmp_path, service, MISSED)
    assert pipeline.run() == 1
    assert "gate parameters: MISSED" in capfd.readouterr().out
    assert "<html" in (tmp_path / "streamline-report.html").read_text()
    if recipe is not Shell:
        junit = pipeline.junit()
        assert junit is not None
        assert (junit.get("tests"), junit.get("failures")) == ("2", "1")
        assert "| parameters | 1 |" in (tmp_path / "streamline-summary.md").read_text()


@pytest.mark.parametrize("recipe", [GitLab, GitHub])
def test_a_cancelled_build_cancels_its_compression(recipe: Make, service: ServiceProcesses, tmp_path: Path) -> None:
    pipeline = recipe(tmp_path, service, REQUEST)
    with service.client() as client:
        job = client.submit(REQUEST)["id"]
        if recipe is GitLab:
            for spared in ({"CI_JOB_STATUS": "failed"}, {"STREAMLINE_CANCEL_WITH_BUILD": "false"}):
                pipeline.build_cancelled(job, **spared)
            assert client.job(job)["state"] != "cancelled"
        pipeline.build_cancelled(job)
        wait_until(lambda: client.job(job)["state"] == "cancelled", what="the job is cancelled")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [("", "usage"), ("absent.json", "absent"), ("request.json 6h", "6h"), ("/tmp", "is a directory")],
)
def test_what_the_script_cannot_use_ends_it_before_anything_is_sent(
    service: ServiceProcesses, tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    pipeline = Shell(tmp_path, service, REQUEST)
    assert pipeline.bash(f"{RECIPES}/shell/streamline.sh {arguments}") == 64
    assert said in capfd.readouterr().err


def test_the_script_explains_itself_and_says_when_no_service_answers(
    service: ServiceProcesses, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pipeline = Shell(tmp_path, service, REQUEST)
    assert pipeline.bash(f"{RECIPES}/shell/streamline.sh --help") == 0
    assert "Exit codes: 0 passed" in capfd.readouterr().out
    (tmp_path / "streamline-report.html").write_text("of an earlier run")
    script = f"{RECIPES}/shell/streamline.sh request.json 5"
    assert pipeline.bash(script, STREAMLINE_URL="http://127.0.0.1:9/") == 64
    said = capfd.readouterr().err
    assert "No service answers at http://127.0.0.1:9." in said
    assert len(re.findall("asking again for [1-5] s", said)) == 1, "no longer than it may take"
    assert not (tmp_path / "streamline-report.html").exists()


class _Out(BaseHTTPRequestHandler):
    """A service that is of no use at present: behind its database until it has a job, then busy for good.

    Or, for who asks so, one whose answers about the job break off.
    """

    requests: ClassVar[list[str]] = []

    def _answer(self, status: int, body: dict[str, Any], missing: int = 0) -> None:
        self.requests.append(self.command)
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text) + missing))
        self.end_headers()
        self.wfile.write(text)

    def do_POST(self) -> None:
        if self.headers.get("Authorization"):
            self._answer(202, {"id": "j1", "state": "queued", "progress": 0})
        else:
            self._answer(503, {"code": "database_behind", "detail": "Run `streamline migrate`."})

    def do_GET(self) -> None:
        if "BreaksOff" in self.headers.get("Authorization", ""):
            self._answer(200, {"id": "j1"}, missing=100)
        else:
            self._answer(503, {"code": "database_behind", "detail": "Run `streamline migrate`."})

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def out() -> Iterator[str]:
    """Address of a service whose database is behind."""
    _Out.requests.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Out) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_database_that_is_behind_ends_the_script_at_once(
    service: ServiceProcesses, out: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pipeline = Shell(tmp_path, service, REQUEST)
    assert pipeline.bash(f"{RECIPES}/shell/streamline.sh request.json", STREAMLINE_URL=out) == 64
    assert capfd.readouterr().err == "Run `streamline migrate`.\n"
    assert _Out.requests == ["POST"], "it takes a person: asking again is of no use"


@pytest.mark.parametrize("what", ["Busy", "BreaksOff"])
def test_a_job_that_is_there_is_asked_for_until_the_time_is_up_and_its_end_is_left_open(
    service: ServiceProcesses, out: str, tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pipeline = Shell(tmp_path, service, REQUEST)
    script = f"{RECIPES}/shell/streamline.sh request.json 3"
    assert pipeline.bash(script, STREAMLINE_URL=out, STREAMLINE_API_KEY=what) == 3
    said = capfd.readouterr().err
    assert said.count("asking again for") == 1
    assert f"Not finished after 3 s; the job goes on: {out}/jobs/j1" in said


@pytest.mark.parametrize("ending", ["/", "//", "/v1", "/v1/"])
def test_the_script_takes_an_address_with_an_ending_that_people_copy(
    service: ServiceProcesses, tmp_path: Path, capfd: pytest.CaptureFixture[str], ending: str
) -> None:
    pipeline = Shell(tmp_path, service, REQUEST)
    script = f"{RECIPES}/shell/streamline.sh request.json 0"
    assert pipeline.bash(script, STREAMLINE_URL=f"{service.url}{ending}") == 3
    page = re.search(f"^job ([^ :]+): {service.url}/jobs/\\1$", capfd.readouterr().out, flags=re.MULTILINE)
    assert page is not None
    with service.client() as client:
        client.cancel(page[1])


def test_a_request_that_is_refused_ends_the_script_with_the_reason(
    service: ServiceProcesses, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pipeline = Shell(tmp_path, service, REQUEST | {"target": {"sparsity": 7}})
    assert pipeline.run() == 64
    assert "/target/sparsity" in capfd.readouterr().err


def test_the_nightly_step_makes_a_new_job_only_once_the_model_has_moved(
    service: ServiceProcesses, tmp_path: Path
) -> None:
    bundled = REPOSITORY / "app/bundled/stories-24l"
    pipeline = Shell(tmp_path, service, REQUEST | {"model": {"repo": "team/base"}})
    submit = "streamline submit request.json --when-moved --json > job.json"

    def submitted() -> str:
        assert pipeline.bash(submit) == 0
        job: dict[str, str] = json.loads((tmp_path / "job.json").read_text())
        return job["id"]

    with service.client() as client:
        hub = HfApi(endpoint=service.url)
        hub.create_repo("team/base")
        hub.upload_folder(repo_id="team/base", folder_path=bundled, ignore_patterns="README.md")
        first = submitted()
        assert submitted() == first
        hub.upload_file(repo_id="team/base", path_or_fileobj=b"Moved.", path_in_repo="notes.txt")
        second = submitted()
        assert second != first
        for job in (first, second):
            client.cancel(job)
