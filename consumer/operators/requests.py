"""Reads the request to create an export: its body, and the key that makes it safe to repeat."""

import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from config.events import Id
from consumer.models import NewExport
from consumer.new_exports import make_id
from consumer.operators.problems import Problem

_KEY = re.compile(r'[\x21\x23-\x7e]{1,255}|"[\x20\x21\x23-\x7e]{1,255}"')
Text = Annotated[str, Field(max_length=512, strict=True, pattern=r"^[^\x00]*$")]


class ExportBody(BaseModel):
    """The body of a request to create an export; `query` is that of the row, as Langfuse stores it."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)

    project_id: Id
    user_id: Text = ""
    name: Text = ""
    format: Annotated[str, Field(strict=True, max_length=20)] = "CSV"
    query: dict[str, Any]


def read_new_export(body: bytes, key: str | None) -> NewExport:
    """Read what to create from the body and the header `Idempotency-Key`; raises Problem.

    The id of the export is made of the project and the key, so that a repeated request finds the export that it
    created.
    """
    key = _read_key(key)
    try:
        parsed = ExportBody.model_validate(_load(body))
    except ValidationError as error:
        errors = [
            {"pointer": "/".join(("#", *map(_escape, each["loc"]))), "detail": each["msg"]}
            for each in error.errors(include_url=False, include_input=False)
        ]
        raise Problem(422, "The body is not valid", "See `errors`.", errors=errors) from error
    format_ = parsed.format.upper()
    return NewExport(
        id=make_id(parsed.project_id, key),
        project_id=parsed.project_id,
        user_id=parsed.user_id,
        name=parsed.name or f"{parsed.query.get('tableName')} as {format_}",
        query=parsed.query,
        format=format_,
    )


def _read_key(text: str | None) -> str:
    if text is None or not _KEY.fullmatch(text.strip()):
        raise Problem(
            400,
            "An Idempotency-Key is required",
            "Send the header `Idempotency-Key` with a new value for each export, such as a UUID: "
            "1 to 255 visible ASCII characters.",
        )
    return text.strip().strip('"')


def _load(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "The body is not JSON", f"The body can't be read as JSON: {error}.") from error


def _reject_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _escape(part: str | int) -> str:
    """Escape one part of a JSON pointer (RFC 6901)."""
    return str(part).replace("~", "~0").replace("/", "~1")
