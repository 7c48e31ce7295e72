"""docs/openapi.yaml agrees with the code; tests/support/operators.py checks every answer of the tests against it."""

import re
from importlib.metadata import version
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import Engine, create_engine

from cli.build import DEAD_LETTERS
from consumer.operators.requests import ExportBody
from consumer.operators.statements import ENDED, ENDINGS_LIMIT, NOTICES_LIMIT, QUEUE_LIMIT, RUNNING_LIMIT
from tests.support.openapi import document, find_problems
from tests.support.operators import OperatorServer

BODY = {"projectId": "p", "query": {}}


def served() -> set[tuple[str, str]]:
    """Method and path of every route of the API."""
    engine: Engine = create_engine("sqlite://")
    routes = OperatorServer(engine).routes()
    return {
        (each.method.lower(), each.path) for each in routes if each.path.startswith("/api/") and "*" not in each.path
    }


def test_the_document_has_the_routes_of_the_api() -> None:
    described = {
        (method, path)
        for path, operations in document()["paths"].items()
        for method in operations
        if method != "parameters"
    }

    assert described == served()


def test_the_version_equals_that_of_the_package() -> None:
    assert document()["info"]["version"] == version("waybill")


def test_operations_that_change_something_need_the_token_and_reads_do_not() -> None:
    secured = {
        (method, path)
        for path, operations in document()["paths"].items()
        for method, operation in operations.items()
        if method != "parameters" and operation.get("security")
    }

    assert secured == {(method, path) for method, path in served() if method == "post"} | {("get", "/api/v1/access")}


def test_every_reference_leads_somewhere_and_everything_is_referred_to() -> None:
    named = set(re.findall(r"'\$ref': '#/components/(\w+/\w+)'", str(document())))

    defined = {f"{kind}/{name}" for kind in ("responses", "schemas") for name in document()["components"][kind]}
    assert named == defined


@pytest.mark.parametrize(
    ("schema", "field", "number"),
    [
        ("queue", "exports", QUEUE_LIMIT),
        ("running", "exports", RUNNING_LIMIT),
        ("notices", "notices", NOTICES_LIMIT),
        ("deadLetters", "messages", DEAD_LETTERS),
    ],
)
def test_the_limits_of_lists_are_those_of_the_statements(schema: str, field: str, number: int) -> None:
    described = document()["components"]["schemas"]["Overview"]["properties"][schema]["properties"][field]

    assert re.findall(r"\d+", described["description"]) == [str(number)]


def test_the_limit_and_the_outcomes_of_endings_are_those_of_the_statement() -> None:
    schemas = document()["components"]["schemas"]

    assert str(ENDINGS_LIMIT) in schemas["Overview"]["properties"]["endings"]["description"]
    assert set(schemas["Ending"]["properties"]["outcome"]["enum"]) == set(ENDED)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"userId": "u", "name": "n", "format": "JSON"},
        {"projectId": ""},
        {"projectId": 1},
        {"projectId": "p" * 513},
        {"name": "n" * 513},
        {"query": []},
        {"query": None},
        {"unknown": 1},
        {"project_id": "p"},
    ],
)
def test_the_body_is_valid_where_its_schema_says_so(change: dict[str, Any]) -> None:
    body = BODY | change
    schema = document()["components"]["schemas"]["NewExport"]
    lengths = [
        name
        for name, value in body.items()
        if isinstance(value, str) and not fits(value, schema["properties"].get(name, {}))
    ]

    try:
        ExportBody.model_validate(body)
        valid = True
    except ValidationError:
        valid = False

    assert valid == (find_problems(body, schema) == [] and lengths == [])


def fits(value: str, schema: dict[str, Any]) -> bool:
    return bool(schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)))


def test_the_example_of_a_new_export_is_valid() -> None:
    body = document()["paths"]["/api/v1/exports"]["post"]["requestBody"]["content"]["application/json"]["example"]

    assert ExportBody.model_validate(body).project_id == "my-project"
