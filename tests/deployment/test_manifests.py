"""Kubernetes manifests and systemd units, kept honest without either: the same commands, settings and probes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from jsonschema import Draft202012Validator

from app.core.device_memory import card_bytes
from app.dispatch.memory_classes import queues_of
from app.settings import Settings, load_settings
from tests.deployment.manifests import (
    DEPLOY,
    ENVIRONMENT,
    KUBERNETES,
    UNITS,
    container_of,
    directives,
    environment_of,
    of_kind,
    pod_of,
    seconds,
)
from tests.deployment.test_containers import COMPOSE, instruction
from tests.service_process import ServiceProcesses, wait_until

STREAMLINE = str(Path(sys.executable).with_name("streamline"))
DEPLOYMENTS = of_kind("Deployment")
API = DEPLOYMENTS["streamline-api"]
WORKERS = {name: each for name, each in DEPLOYMENTS.items() if "worker" in name}
MIGRATE = of_kind("Job")["streamline-migrate"]
STOP_SECONDS = Settings.model_fields["stop_grace_seconds"].default
API_STOP_SECONDS = 10  # what `streamline api` takes for answers under way and its threads
MIB = 1 << 20


def command_of(unit: str) -> list[str]:
    (line,) = directives(UNITS[unit])["ExecStart"]
    return line.split()


def test_everything_starts_what_the_images_start() -> None:
    assert container_of(API)["command"] == instruction("api", "CMD")
    assert all(container_of(each)["command"] == instruction("worker", "CMD") for each in WORKERS.values())
    assert container_of(MIGRATE)["command"] == COMPOSE["services"]["migrate"]["command"]
    for unit, expected in (
        ("streamline-migrate.service", ["migrate"]),
        ("streamline-worker@.service", ["worker"]),
        ("streamline-api.service", ["api", "--host", "127.0.0.1", "--port", "8000"]),
    ):
        assert command_of(unit) == ["/opt/streamline/bin/streamline", *expected]


@pytest.mark.parametrize("name", KUBERNETES)
def test_every_manifest_is_of_kubernetes_own_schema(name: str) -> None:
    schema = json.loads((DEPLOY / "schemas" / "kubernetes.json").read_text())
    assert [error.message for error in Draft202012Validator(schema).iter_errors(KUBERNETES[name])] == []
    broken = KUBERNETES[name] | {"spce": {}}
    assert list(Draft202012Validator(schema).iter_errors(broken)), "a field that there is not is found"


def settings_of(variables: Mapping[str, str]) -> Settings:
    """The settings of these variables, each of which has to be one."""
    fields = {f"STREAMLINE_{name.upper()}": name for name in Settings.model_fields}
    own = {name: value for name, value in variables.items() if not name.startswith(("AWS_", "CUDA_"))}
    assert set(own) <= set(fields), "a variable that is no setting would be ignored"
    return load_settings(**{fields[name]: value for name, value in own.items()})


@pytest.mark.parametrize("name", [*DEPLOYMENTS, "streamline-migrate"])
def test_every_variable_of_a_manifest_is_a_setting_that_the_service_takes(name: str) -> None:
    settings = settings_of(environment_of((DEPLOYMENTS | {"streamline-migrate": MIGRATE})[name]))
    (mount,) = [each for each in container_of(API)["volumeMounts"] if each["name"] == "data"]
    assert str(settings.data_dir) == mount["mountPath"]
    assert settings.database.startswith("postgresql+psycopg://")


def test_every_variable_of_the_units_and_of_compose_is_a_setting() -> None:
    for unit in UNITS.values():
        assert str(settings_of(ENVIRONMENT).data_dir) == f"/var/lib/{directives(unit)['StateDirectory'][0]}"
    for service in ("api", "worker", "worker-cpu", "migrate"):
        fields = {name.removeprefix("STREAMLINE_").lower() for name in COMPOSE["services"][service]["environment"]}
        assert {name for name in fields if not name.startswith("aws_")} <= set(Settings.model_fields)
        assert COMPOSE["services"][service]["env_file"] == [{"path": ".env", "required": False}], "all others"


def test_units_that_may_write_to_one_directory_say_where_to_name_another() -> None:
    assert all(directives(unit)["ProtectSystem"] == ["strict"] for unit in UNITS.values())
    for page in ("README.md", "systemd/environment.example"):
        assert "ReadWritePaths=" in (DEPLOY / page).read_text()


def test_everybody_is_given_the_time_to_stop_in_order() -> None:
    api, probe = pod_of(API), container_of(API)
    pause = int(probe["lifecycle"]["preStop"]["exec"]["command"][1])
    assert api["terminationGracePeriodSeconds"] >= pause + API_STOP_SECONDS
    graces = [pod_of(each)["terminationGracePeriodSeconds"] for each in WORKERS.values()]
    graces.append(int(COMPOSE["services"]["worker"]["stop_grace_period"].removesuffix("s")))
    graces.append(seconds(directives(UNITS["streamline-worker@.service"])["TimeoutStopSec"][0]))
    assert min(graces) >= 2 * STOP_SECONDS, "the engine leaves, and the job is given back"
    assert directives(UNITS["streamline-worker@.service"])["KillMode"] == ["mixed"], (
        "the engine is the worker's to stop"
    )


def test_a_wrong_setting_is_not_tried_again_for_ever() -> None:
    for unit in ("streamline-api.service", "streamline-worker@.service"):
        assert directives(UNITS[unit])["RestartPreventExitStatus"] == ["64"]


def test_workers_of_each_class_run_on_nodes_with_such_cards() -> None:
    classes = {}
    for name, manifest in WORKERS.items():
        stated = environment_of(manifest)["STREAMLINE_WORKER_MEMORY"]
        assert name.endswith(stated)
        assert container_of(manifest)["resources"]["limits"]["nvidia.com/gpu"] == 1
        terms = pod_of(manifest)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        ((above, below),) = [term["matchExpressions"] for term in terms["nodeSelectorTerms"]]
        bytes_ = settings_of({"STREAMLINE_WORKER_MEMORY": stated}).worker_memory
        assert isinstance(bytes_, int)
        assert int(above["values"][0]) * MIB >= bytes_, "such a node holds what the worker takes"
        classes[stated] = (bytes_, int(above["values"][0]), int(below["values"][0]))
    ranges = sorted(span[1:] for span in classes.values())
    assert all(first[1] <= second[0] for first, second in pairwise(ranges)), "no node is of two"
    largest = settings_of(environment_of(API)).largest_worker_memory
    assert largest == max(span[0] for span in classes.values())
    waiting_for = queues_of(largest)
    assert all(set(queues_of(span[0])) <= set(waiting_for) for span in classes.values())


def test_selectors_find_the_pods_that_they_are_for() -> None:
    for manifest in DEPLOYMENTS.values():
        labels = manifest["spec"]["template"]["metadata"]["labels"]
        assert manifest["spec"]["selector"]["matchLabels"] == labels
    labels = API["spec"]["template"]["metadata"]["labels"]
    service = of_kind("Service")["streamline-api"]
    assert service["spec"]["selector"] == labels
    assert of_kind("PodDisruptionBudget")["streamline-api"]["spec"]["selector"]["matchLabels"] == labels
    (rule,) = of_kind("Ingress")["streamline"]["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert (backend["name"], backend["port"]["name"]) == ("streamline-api", service["spec"]["ports"][0]["name"])
    assert f"https://{rule['host']}" == environment_of(API)["STREAMLINE_PUBLIC_URL"]


def test_the_proxy_neither_cuts_uploads_nor_holds_events_back() -> None:
    prefix = "nginx.ingress.kubernetes.io/proxy-"
    found = of_kind("Ingress")["streamline"]["metadata"]["annotations"]
    assert {name.removeprefix(prefix): value for name, value in found.items()} == {
        "body-size": "0", "request-buffering": "off", "buffering": "off", "read-timeout": "600", "send-timeout": "600"
    }  # fmt: skip


def test_the_units_are_what_systemd_takes(tmp_path: Path) -> None:
    """By systemd itself where it is there; sections and directives by name in any case."""
    known = {"Unit", "Service", "Install"}
    for name, text in UNITS.items():
        assert {line[1:-1] for line in text.splitlines() if line.startswith("[")} <= known
        assert directives(text)["EnvironmentFile"][0] == "/etc/streamline/environment"
        # Programs that this machine has: systemd looks whether they are there.
        (tmp_path / name).write_text(text.replace("/opt/streamline/bin/streamline", sys.executable))
    if verify := shutil.which("systemd-analyze"):
        units = [str(tmp_path / name.replace("@.", "@0.")) for name in UNITS]
        (tmp_path / "streamline-worker@0.service").write_text((tmp_path / "streamline-worker@.service").read_text())
        done = subprocess.run(
            [verify, "verify", "--man=no", *units],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        )
        complaints = [line for line in done.stderr.splitlines() if "streamline" in line]
        assert complaints == []


def probes() -> dict[str, str]:
    """The path of each probe of the API."""
    container = container_of(API)
    (port,) = container["ports"]
    assert (port["name"], str(port["containerPort"])) == ("http", container["command"][-1])
    named = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert {each["port"] for each in named.values()} == {"http"}
    return {kind: each["path"] for kind, each in named.items()}


@pytest.mark.postgres
@pytest.mark.redis
def test_the_commands_start_answer_the_probes_and_stop_in_time(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    """The unit's migration, the cluster's API, and a worker of each: the commands are the same, the settings not."""
    at, data = ServiceProcesses(tmp_path / "data", {}), tmp_path / "data"
    here = {
        "STREAMLINE_DATABASE_URL": postgres_url.replace("postgresql+psycopg://", "postgresql://"),
        "STREAMLINE_BROKER_URL": redis_url,
        "STREAMLINE_DATA_DIR": str(data),
        # This machine has neither the bucket nor a GPU.
        "STREAMLINE_STORE_URL": "",
        "STREAMLINE_DEVICE": "cpu",
        "STREAMLINE_WORKER_METRICS": "",
    }

    def started(command: list[str], stated: Mapping[str, str], *more: str) -> "subprocess.Popen[bytes]":
        environment = {"PATH": os.environ["PATH"]} | dict(stated) | here
        return subprocess.Popen([STREAMLINE, *command[1:], *more], env=environment, cwd=data, stdin=subprocess.DEVNULL)

    def ok(path: str) -> bool:
        try:
            return httpx.get(f"{at.url}{path}").is_success
        except httpx.TransportError:
            return False

    assert started(command_of("streamline-migrate.service"), ENVIRONMENT).wait(240) == 0
    # It listens for others, and so needs a key.
    assert started(["streamline", "keys", "create", "first", "--scope", "admin"], ENVIRONMENT).wait(240) == 0
    in_cluster = WORKERS["streamline-worker-24g"]
    api = started(container_of(API)["command"], environment_of(API), "--port", str(at.port))
    workers = [
        started(container_of(in_cluster)["command"], environment_of(in_cluster)),
        started(command_of("streamline-worker@.service"), ENVIRONMENT),
    ]
    try:
        for kind, path in probes().items():
            wait_until(lambda path=path: ok(path), what=f"the {kind} probe is answered")  # type: ignore[misc]
        wait_until(lambda: len(_workers(postgres_url)) == 2, what="the workers are there")
        # `auto` on a machine without a GPU: every job.
        assert _workers(postgres_url) == [None, card_bytes(24)]
    finally:
        for process in (api, *workers):
            process.send_signal(signal.SIGTERM)
        left = [process.wait(STOP_SECONDS + 10) for process in (api, *workers)]
    assert left[0] in {0, -signal.SIGTERM}
    assert left[1:] == [0, 0]
    assert _workers(postgres_url) == [], "they have said that they leave"


def _workers(url: str) -> list[int | None]:
    from app.db.session import connect, session_factory
    from app.jobs import workers

    engine = connect(url)
    with session_factory(engine, read_only=True)() as session:
        found = [each.memory_bytes for each in workers.there(session)]
    engine.dispose()
    return found
