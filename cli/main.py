"""The `waybill` command."""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from cli.imports import collecting_nothing

_INSTALLATION, _EXPORTS = "Installation", "Exports"


@dataclass(frozen=True)
class Command:
    """A command before it is loaded: the module and member that implement it, and its line in the help."""

    path: str
    summary: str
    panel: str | None = None

    def load(self, name: str) -> Any:
        """Import the module and return the command."""
        module, _, member = self.path.partition(":")
        with collecting_nothing():
            found, parent = getattr(import_module(module), member), typer.Typer()
        if isinstance(found, typer.Typer):
            parent.add_typer(found, name=name)
        else:
            parent.command(name)(found)
        return get_group(parent).commands[name]


_COMMANDS = {
    "consumer": Command("cli.daemons:run_consumer", "Run the export worker until SIGTERM."),
    "notify": Command("cli.daemons:run_notify", "Run the notifier until SIGTERM."),
    "demo": Command("cli.demo:demo", "Export sample data on embedded services and show the result."),
    "migrate": Command("cli.admin:migrate", "Create or upgrade Waybill's own tables.", _INSTALLATION),
    "topics": Command("cli.admin:topics", "Create missing Kafka topics.", _INSTALLATION),
    "doctor": Command(
        "cli.doctor:doctor", "Try everything that Waybill needs and name what is missing.", _INSTALLATION
    ),
    "config": Command("cli.admin:config", "Show the effective settings, with secrets masked.", _INSTALLATION),
    "create": Command("cli.create:create", "Create an export and publish its request.", _EXPORTS),
    "ring": Command("cli.exports:ring", "Publish the request for an export again.", _EXPORTS),
    "show": Command("cli.exports:show", "Show an export and its attempts.", _EXPORTS),
    "watch": Command("cli.exports:watch", "Show the progress of an export until it ends.", _EXPORTS),
    "cancel": Command("cli.exports:cancel", "Cancel an export.", _EXPORTS),
    "retry": Command("cli.exports:retry", "Queue a failed or cancelled export again.", _EXPORTS),
    "list": Command("cli.exports:list_", "List exports, newest first.", _EXPORTS),
    "tables": Command("cli.tables:tables", "List tables, or the columns and filters of one table.", _EXPORTS),
    "explain": Command("cli.explain:explain", "Show the statements that an export sends to the databases.", _EXPORTS),
    "dead-letters": Command("cli.dead_letters:app", "List, show and replay dead letters.", _EXPORTS),
}


class Commands(TyperGroup):
    """Imports the module of a command when the command runs: the help needs none, and a notifier needs no exporter."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command to run, and load it."""
        name = args[0] if args else ""
        if name in _COMMANDS:
            self.commands[name] = _COMMANDS[name].load(name)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="waybill",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"waybill {version('waybill')}")
        raise typer.Exit


@app.callback()
def waybill(
    version_: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Stream the rows of data exports into files in object storage, and email their links."""
    del version_


def _not_loaded() -> None:
    """Stand for a command in the help until it is resolved."""


for _name, _command in _COMMANDS.items():
    app.command(_name, short_help=_command.summary, rich_help_panel=_command.panel)(_not_loaded)


def main() -> None:
    """Run the command line; report wrong settings all together, with exit status 2."""
    _prepare_streams()
    if (argument := _find_undecodable(sys.argv)) is not None:
        from cli.output import BAD_USAGE, print_error

        print_error(f"The argument {argument!r} is not valid UTF-8.")
        sys.exit(BAD_USAGE)
    try:
        app()
    except Exception as error:  # noqa: BLE001 (an error that is not expected is raised again)
        sys.exit(_explain(error))


def _prepare_streams() -> None:
    """Let a command run where stdout or stderr is closed, or where the encoding of stdout lacks a character."""
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (open until the process ends)
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _find_undecodable(arguments: Iterable[str]) -> str | None:
    """Return the first argument that is not valid UTF-8; no database and no Kafka accepts it."""
    return next((each for each in arguments if any("\ud800" <= one <= "\udfff" for one in each)), None)


def _explain(error: Exception) -> int:
    """Print an expected error and return the exit status; raise any other error again."""
    # The settings take a second of CPU to import, and the help needs none of them.
    from sqlalchemy.exc import OperationalError, ProgrammingError

    from cli.output import BAD_USAGE, FAILED, print_error
    from config.errors import Rejected, Unavailable
    from config.settings import Misconfigured

    match error:
        case Misconfigured():
            for problem in error.problems:
                print_error(problem)
            return BAD_USAGE
        case Rejected() | Unavailable():
            print_error(str(error))
            return FAILED
        case OperationalError() | ProgrammingError():  # a missing table, column or right
            reason = str(error.orig).partition("\n")[0]
            print_error(f"the database refused a statement: {reason}. `waybill doctor` says what is missing.")
            return FAILED
        case _:
            raise error


if __name__ == "__main__":
    main()
