"""What the Kubernetes manifests and the systemd units say, for tests that do the same without a cluster and an init."""

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
Manifest = dict[str, Any]

KUBERNETES: dict[str, Manifest] = {
    path.name: yaml.safe_load(path.read_text())
    for path in sorted([*(DEPLOY / "kubernetes").glob("*.yaml"), DEPLOY / "kubernetes" / "secret.yaml.template"])
}
"""The one resource of each file, by the file's name."""

UNITS: dict[str, str] = {path.name: path.read_text() for path in sorted((DEPLOY / "systemd").glob("*.service"))}


def of_kind(kind: str) -> dict[str, Manifest]:
    """The resources of a kind, by their names."""
    return {each["metadata"]["name"]: each for each in KUBERNETES.values() if each["kind"] == kind}


def pod_of(manifest: Manifest) -> Manifest:
    """The pod that a Deployment or Job makes."""
    found: Manifest = manifest["spec"]["template"]["spec"]
    return found


def container_of(manifest: Manifest) -> Manifest:
    """The one container of a Deployment or Job."""
    (found,) = pod_of(manifest)["containers"]
    return dict(found)


def environment_of(manifest: Manifest) -> dict[str, str]:
    """The variables that a container gets, from the ConfigMap and the Secret too."""
    container, found = container_of(manifest), dict[str, str]()
    for source in container["envFrom"]:
        ((kind, reference),) = source.items()
        holder = of_kind({"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind])[reference["name"]]
        found |= holder.get("data") or holder["stringData"]
    return found | {each["name"]: each["value"] for each in container.get("env", ())}


def directives(unit: str) -> dict[str, list[str]]:
    """Every directive of a unit, in order, without its section; a line that ends in a backslash goes on."""
    found: dict[str, list[str]] = {}
    for line in unit.replace("\\\n", " ").splitlines():
        if re.match(r"[A-Za-z]", line):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def variables(text: str) -> dict[str, str]:
    """The variables of a file for systemd's `EnvironmentFile=`."""
    pairs = [line.partition("=") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: shlex.split(value)[0] if value else "" for name, _, value in pairs}


def seconds(span: str) -> int:
    """A time span of systemd, in seconds; only the units that our files have."""
    number, unit = re.fullmatch(r"(\d+)(s|min)?", span).groups()  # type: ignore[union-attr]
    return int(number) * (60 if unit == "min" else 1)


ENVIRONMENT = variables((DEPLOY / "systemd" / "environment.example").read_text())
DOCKERFILE = Path(REPOSITORY / "Dockerfile").read_text()
