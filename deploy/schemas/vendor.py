"""Write kubernetes.json beside this file: the schemas of the kinds that our manifests use, in one document.

    pip download --no-deps kubernetes-validate==1.37.0      # Apache-2.0; 22 MB, and of no use at run time
    python deploy/schemas/vendor.py kubernetes_validate-1.37.0-py3-none-any.whl 1.34

The package holds what Kubernetes' OpenAPI document is turned into as JSON Schema, strict: a field that there is not is
an error. Descriptions are left out here, and what nothing refers to.
"""

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

KINDS = (
    "io.k8s.api.apps.v1.Deployment",
    "io.k8s.api.batch.v1.Job",
    "io.k8s.api.core.v1.ConfigMap",
    "io.k8s.api.core.v1.Namespace",
    "io.k8s.api.core.v1.PersistentVolumeClaim",
    "io.k8s.api.core.v1.Secret",
    "io.k8s.api.core.v1.Service",
    "io.k8s.api.networking.v1.Ingress",
    "io.k8s.api.policy.v1.PodDisruptionBudget",
)
_REFERENCE = "#/$defs/"


def without_descriptions(node: Any, *, names: bool = False) -> Any:
    """Return a schema without what only people read; `names`: the keys of `node` are names of properties."""
    if isinstance(node, list):
        return [without_descriptions(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        key: without_descriptions(value, names=key == "properties" and not names)
        for key, value in node.items()
        if names or not (key == "description" or key.startswith("x-kubernetes"))
    }


def references(node: Any) -> set[str]:
    """Return the names of the definitions that a schema refers to."""
    if isinstance(node, list):
        return set().union(*map(references, node))
    if not isinstance(node, dict):
        return set()
    own = {node["$ref"].removeprefix(_REFERENCE)} if isinstance(node.get("$ref"), str) else set()
    return own.union(*map(references, node.values()))


def document(definitions: dict[str, Any], source: str) -> dict[str, Any]:
    """Return one schema for a resource of any of `KINDS`, with all that they refer to."""
    kept: dict[str, Any] = {}
    waiting = list(KINDS)
    while waiting:
        name = waiting.pop()
        if name not in kept:
            kept[name] = without_descriptions(definitions[name])
            waiting += references(kept[name])
    by_kind = [
        {
            "if": {"properties": {"kind": {"const": name.rpartition(".")[2]}}},
            "then": {"$ref": _REFERENCE + name, "required": ["apiVersion", "kind", "metadata"]},
        }
        for name in KINDS
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": f"{source}; Apache-2.0. Made by deploy/schemas/vendor.py.",
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": [name.rpartition(".")[2] for name in KINDS]}},
        "allOf": by_kind,
        "$defs": dict(sorted(kept.items())),
    }


def main() -> None:
    """Read the wheel that the command line names, for one minor version of Kubernetes."""
    wheel, version = Path(sys.argv[1]), sys.argv[2]
    inside = f"kubernetes_validate/kubernetes-json-schema/v{version}.0-local-strict/_definitions.json"
    with zipfile.ZipFile(wheel) as package:
        definitions = json.loads(package.read(inside))["$defs"]
    made = document(definitions, f"Kubernetes {version}, from {wheel.name}")
    target = Path(__file__).with_name("kubernetes.json")
    target.write_text(json.dumps(made, separators=(",", ":"), sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
