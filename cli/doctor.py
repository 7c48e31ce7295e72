"""The command `doctor`, which tries everything that Waybill needs and names what is missing."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import typer

from cli import build
from cli.admin import JsonFlag
from cli.checks import channels, database, kafka, mail, storage
from cli.output import console, print_json, print_sentence
from config.errors import Unavailable
from config.settings import Misconfigured, Settings, list_unknown, load_valid
from config.urls import mask_password

Check = Callable[[Settings], list[str]]
EXPECTED = (Unavailable, ConnectionError, LookupError, ValueError)
"""Errors whose text has been written for people."""
DISABLED = "LANGFUSE_S3_BATCH_EXPORT_ENABLED is not true: no export starts, and requests go to the dead-letter topic"


class Doubtful(Exception):
    """Everything works, but something else is probably wrong; each argument is a sentence that says what."""


class Mark(StrEnum):
    """The result of a check."""

    OK = "ok"
    OFF = "off"
    WARNING = "warning"
    FAILED = "failed"


COLOURS = {Mark.OK: "green", Mark.OFF: "yellow", Mark.WARNING: "yellow", Mark.FAILED: "bold red"}


@dataclass(frozen=True)
class Finding:
    """The result of a check, and the reasons if it is not ok: one sentence each."""

    mark: Mark
    reasons: tuple[str, ...] = ()


def doctor(as_json: JsonFlag = False) -> None:
    """Try everything that Waybill needs, and name what is missing with its remedy; nothing is left behind."""
    logging.disable(logging.CRITICAL)  # what the libraries log is also in their exceptions
    findings = diagnose()
    if as_json:
        print_json({name: "; ".join(each.reasons) or each.mark for name, each in findings.items()})
    else:
        _print(findings)
    if any(each.mark is Mark.FAILED for each in findings.values()):
        raise typer.Exit(1)


def diagnose() -> dict[str, Finding]:
    """Run all checks; those of other dependencies go on when a setting is missing or wrong."""
    settings, problems = load_valid()
    findings = {"settings": _judge_settings(settings, problems)}
    checks: Mapping[str, Check] = {
        "database": _check_database,
        "clickhouse": _check_clickhouse,
        "storage": _check_storage,
        "kafka": kafka.find_problems,
        "mail": _check_mail,
        "channels": channels.find_problems,
    }
    return findings | {name: _run(check, settings) for name, check in checks.items()}


def _judge_settings(settings: Settings, problems: list[str]) -> Finding:
    try:
        _ = settings.link_lifetime
    except Misconfigured as error:
        problems = [*problems, *error.problems]
    doubts = [each for each in list_unknown() if each not in problems]
    if settings.enabled != "true":
        doubts.append(DISABLED)
    mark = Mark.FAILED if problems else Mark.WARNING if doubts else Mark.OK
    return Finding(mark, (*problems, *doubts))


def _check_database(settings: Settings) -> list[str]:
    engine = build.engine(settings)
    try:
        problems = database.find_problems(engine)
        if not problems and (doubt := database.find_future_exports(engine)) is not None:
            raise Doubtful(doubt)
    finally:
        engine.dispose()
    return problems


def _check_clickhouse(settings: Settings) -> list[str]:
    from pipeline.read.check import find_effects, find_problems

    found = (build.clickhouse(settings), build.clickhouse_of_events(settings))
    sources = [source for source in found if source is not None]
    problems = list(dict.fromkeys(problem for source in sources for problem in find_problems(source)))
    if not problems and (effects := [effect for source in sources for effect in find_effects(source)]):
        raise Doubtful(*dict.fromkeys(effects))
    return problems


def _check_storage(settings: Settings) -> list[str]:
    report = storage.examine(build.storage(settings), settings.prefix, ".waybill-doctor")
    if report.weaknesses and not report.problems:
        raise Doubtful(*report.weaknesses)
    return list(report.problems)


def _check_mail(settings: Settings) -> list[str]:
    report = mail.examine(settings)
    if report.doubts and not report.problems:
        raise Doubtful(*report.doubts)
    return list(report.problems)


def _run(check: Check, settings: Settings) -> Finding:
    try:
        problems = check(settings)
    except Doubtful as doubt:
        return Finding(Mark.WARNING, tuple(map(str, doubt.args)))
    except (mail.Unused, channels.Unused) as why:
        return Finding(Mark.OFF, (str(why),))
    except Misconfigured as error:
        problems = error.problems
    except EXPECTED as error:
        problems = [str(error)]
    except Exception as error:  # noqa: BLE001 (one check must not hide the others)
        problems = [f"the check failed with an unexpected {type(error).__name__}: {mask_password(str(error)[:200])}"]
    return Finding(Mark.FAILED, tuple(problems)) if problems else Finding(Mark.OK)


def _print(findings: Mapping[str, Finding]) -> None:
    for name, each in findings.items():
        console().print(f"{name:<12} [{COLOURS[each.mark]}]{each.mark}[/]")
        for reason in each.reasons:
            print_sentence(f"             {reason}")
