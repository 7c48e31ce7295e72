"""Makes the schemas that kubeconform reads: those of Kubernetes made local, those of custom resources made strict."""

import json
from pathlib import Path
from typing import Any

import yaml

RESOURCES = (
    "gateway.networking.k8s.io_httproutes",
    "keda.sh_scaledobjects",
    "keda.sh_triggerauthentications",
    "monitoring.coreos.com_podmonitors",
    "monitoring.coreos.com_prometheusrules",
    "monitoring.coreos.com_servicemonitors",
)


def write_kubernetes(published: Path, folder: Path, version: str) -> None:
    """Write the schemas of one version of Kubernetes, as published for the web, to refer to each other as files."""
    target = folder / f"v{version}"
    target.mkdir(parents=True)
    for path in (published / f"v{version}-local-strict").glob("*.json"):
        if path.name == "_definitions.json" or _is_object(path):
            schema = json.loads(path.read_text().replace('"/api/_definitions.json', '"_definitions.json'))
            schema.pop("$id", None)
            (target / path.name).write_text(json.dumps(schema))


def _is_object(path: Path) -> bool:
    return '"x-kubernetes-group-version-kind"' in path.read_text()


def write_custom(definitions: Path, folder: Path) -> None:
    """Write one `<group>/<kind>_<version>.json` under `folder` for each version of each of `RESOURCES`."""
    for name in RESOURCES:
        definition = yaml.load((definitions / f"{name}.yaml").read_text(), Loader=yaml.CSafeLoader)
        spec = definition["spec"]
        for version in spec["versions"]:
            schema = _strict(version["schema"]["openAPIV3Schema"])
            target = folder / spec["group"] / f"{spec['names']['kind'].lower()}_{version['name']}.json"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(schema))


def _strict(schema: Any) -> Any:
    """Refuse fields that the schema does not name, where it names any and does not keep the others."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    stricter = {name: _strict(each) for name, each in schema.items()}
    named = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if named and "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        # The object's own fields are named; what every object has besides is not.
        stricter["additionalProperties"] = False
    if schema.get("nullable") and isinstance(schema.get("type"), str):
        stricter["type"] = [schema["type"], "null"]
    return stricter
