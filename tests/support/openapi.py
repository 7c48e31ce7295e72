"""Checks answers of the operators' API against docs/openapi.yaml."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

PATH = Path(__file__).parents[2] / "docs" / "openapi.yaml"
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


@cache
def document() -> Any:
    return yaml.safe_load(PATH.read_text())


def resolve(node: Any) -> Any:
    """Replace a reference by what it names."""
    if not isinstance(node, dict) or "$ref" not in node:
        return node
    found = document()
    for name in node["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return resolve(found)


def find_operation(method: str, path: str) -> Any:
    """The description of a request, or None if the document has none."""
    for template, operations in document()["paths"].items():
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path) and method.lower() in operations:
            return operations[method.lower()]
    return None


def check_answer(method: str, path: str, status: int, content_type: str | None, body: bytes) -> None:
    """AssertionError unless the document describes this answer."""
    operation = find_operation(method, path)
    assert operation is not None, f"{method} {path} is not described"
    described = resolve(operation["responses"].get(str(status)))
    assert described is not None, f"{status} of {method} {path} is not described"
    content = described.get("content")
    if content is None:
        assert body == b""
        return
    kind = (content_type or "").partition(";")[0]
    assert kind in content, f"{kind} of {method} {path} is not described"
    if "schema" in content[kind]:
        problems = find_problems(json.loads(body), content[kind]["schema"])
        assert problems == [], problems


def find_problems(value: Any, schema: Any, at: str = "") -> list[str]:
    """How a value differs from a schema; a field that is not described is a difference, too."""
    schema = resolve(schema)
    kinds = schema.get("type")
    if kinds is None:
        return []
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if not any(isinstance(value, TYPES[kind]) and (kind == "boolean" or value is not True) for kind in kinds):
        return [f"{at}: {value!r} is not {kinds}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{at}: {value!r} is not one of {schema['enum']}"]
    if isinstance(value, list):
        inside = (find_problems(item, schema["items"], f"{at}/{place}") for place, item in enumerate(value))
        return [problem for problems in inside for problem in problems]
    if not isinstance(value, dict) or "properties" not in schema:
        return []
    found = [f"{at}/{name} is missing" for name in schema.get("required", ()) if name not in value]
    found += [f"{at}/{name} is not described" for name in value if name not in schema["properties"]]
    for name, item in value.items():
        found += find_problems(item, schema["properties"].get(name, {}), f"{at}/{name}")
    return found
