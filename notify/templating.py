"""Renders the templates of emails: the built-in ones, or those of a folder in their place."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from traceback import extract_tb
from typing import Any

from jinja2 import (
    BaseLoader,
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PackageLoader,
    StrictUndefined,
    TemplateNotFound,
    TemplateSyntaxError,
    pass_context,
    select_autoescape,
)
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup, escape

from config.events import Status
from notify.language import ENGLISH, Language, fill

logger = logging.getLogger(__name__)

EMAILS = {Status.COMPLETED: "export_ready", Status.FAILED: "export_failed"}
LAYOUT, MACROS = "layout.html", "parts.html"
PARTS = ("subject.txt", "body.txt", "body.html")
NAMES = frozenset({LAYOUT, MACROS, *(f"{email}/{part}" for email in EMAILS.values() for part in PARTS)})
"""The templates that a folder may have; each replaces the built-in one of its name."""

Variables = Mapping[str, object]


@dataclass(frozen=True)
class Rendered:
    """The parts of one email; the subject may have several lines."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True)
class Templates:
    """The templates in a language; those in `folder`, if there is one, replace the built-in ones of the same name.

    Templates are sandboxed: they can't change objects, and they read nothing but their variables. Values are escaped in
    those that end in `.html`.
    """

    language: Language = ENGLISH
    folder: Path | None = None

    @cached_property
    def _built_in(self) -> Environment:
        return _make_environment(PackageLoader("notify"), self.language)

    @cached_property
    def _chosen(self) -> Environment:
        if self.folder is None:
            return self._built_in
        loaders = [FileSystemLoader(self.folder), PackageLoader("notify")]
        return _make_environment(ChoiceLoader(loaders), self.language)

    def render(self, status: Status, variables: Variables) -> Rendered:
        """Render an email; if a template of the folder fails, the built-in ones are used, so that no email is lost."""
        try:
            return _render(self._chosen, status, variables)
        except Exception as error:
            if self.folder is None:
                raise
            problem = self._describe(error)
            logger.exception("%s; the built-in templates are used", problem)
            return _render(self._built_in, status, variables)

    def find_problems(self, status: Status, variables: Variables) -> Iterator[str]:
        """Yield one sentence if the templates of an email can't be rendered with these variables."""
        try:
            _render(self._chosen, status, variables)
        except Exception as error:  # noqa: BLE001 (a template may raise any)
            yield self._describe(error)

    def _describe(self, error: Exception) -> str:
        if isinstance(error, TemplateNotFound):
            return f"a template in WAYBILL_EMAIL_TEMPLATES includes {error.name!r}, which does not exist"
        name, line = self._find_place(error)
        place = f"{name}, line {line}," if line else name
        return f"{place} in WAYBILL_EMAIL_TEMPLATES can't be rendered: {str(error) or type(error).__name__}"

    def _find_place(self, error: Exception) -> tuple[str, int | None]:
        if isinstance(error, TemplateSyntaxError):
            return error.name or "", error.lineno
        folder = f"{self.folder}/"
        frames = [frame for frame in extract_tb(error.__traceback__) if frame.filename.startswith(folder)]
        return (frames[-1].filename.removeprefix(folder), frames[-1].lineno) if frames else ("a template", None)


def _render(environment: Environment, status: Status, variables: Variables) -> Rendered:
    parts = [environment.get_template(f"{EMAILS[status]}/{part}").render(variables) for part in PARTS]
    if not parts[0].strip():
        raise ValueError("the subject is empty")
    return Rendered(*parts)


def _make_environment(loader: BaseLoader, language: Language) -> Environment:
    environment = ImmutableSandboxedEnvironment(
        loader=loader,
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

    @pass_context
    def translate(context: Context, text: str, **values: object) -> str:
        """Return a text in the language; `{name}` stands for the value, or else the variable, of that name."""
        escaped = context.eval_ctx.autoescape
        found = language.texts.get(text, text)
        shown = _Values(context, values, escaped=escaped)
        return Markup(fill(str(escape(found)), shown)) if escaped else fill(found, shown)  # noqa: S704 (both are escaped)

    environment.globals["_"] = translate
    environment.globals["language"] = language.code
    return environment


class _Values(Mapping[str, str]):
    """The values of placeholders, escaped where the template escapes."""

    def __init__(self, context: Context, values: Mapping[str, object], *, escaped: bool) -> None:
        self._context, self._values, self._escaped = context, values, escaped

    def __getitem__(self, name: str) -> str:
        value: Any = self._values[name] if name in self._values else self._context.resolve(name)
        return str(escape(value)) if self._escaped else str(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
