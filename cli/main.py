"""The `waybill` command."""

import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from cli.output import BAD_USAGE, FAILED, explain_failure
from config.errors import Rejected, Unavailable
from config.settings import Misconfigured

_INSTALLATION, _EXPORTS = "Installation", "Exports"
_COMMANDS = {
    "consumer": ("cli.run_consumer:run_consumer", None),
    "notify": ("cli.run_notify:run_notify", None),
    "demo": ("cli.demo:demo", None),
    "migrate": ("cli.admin:migrate", _INSTALLATION),
    "topics": ("cli.admin:topics", _INSTALLATION),
    "doctor": ("cli.admin:doctor", _INSTALLATION),
    "config": ("cli.admin:config", _INSTALLATION),
    "create": ("cli.exports:create", _EXPORTS),
    "ring": ("cli.exports:ring", _EXPORTS),
    "show": ("cli.exports:show", _EXPORTS),
    "watch": ("cli.exports:watch", _EXPORTS),
    "cancel": ("cli.exports:cancel", _EXPORTS),
    "retry": ("cli.exports:retry", _EXPORTS),
    "list": ("cli.exports:list_", _EXPORTS),
    "tables": ("cli.tables:tables", _EXPORTS),
    "explain": ("cli.explain:explain", _EXPORTS),
    "dead-letters": ("cli.dead_letters:app", _EXPORTS),
}
"""Where each command is, and the panel of the help that shows it."""


class Commands(TyperGroup):
    """Imports a command's module when the command is asked for: a notifier has no use for an exporter's libraries."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 (as its parent has it)
        """Name all commands, as the help shows them."""
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 (as its parent has it)
        """Give a command by its name; asked for another, import all, for similar ones are then suggested."""
        for name in {cmd_name} if cmd_name in _COMMANDS else _COMMANDS:
            self.commands.setdefault(name, _loaded(name))
        return self.commands.get(cmd_name)


def _loaded(name: str) -> Any:
    place, panel = _COMMANDS[name]
    module, _, member = place.partition(":")
    found, alone = getattr(import_module(module), member), typer.Typer()
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name, rich_help_panel=panel)
    else:
        alone.command(name, rich_help_panel=panel)(found)
    return get_group(alone).commands[name]


app = typer.Typer(
    name="waybill",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def waybill() -> None:
    """Get people's data out, whole, on time, and tell them."""


def main() -> None:
    """Run the command line; settings that are wrong are all named, and end it with status 2."""
    try:
        app()
    except Misconfigured as error:
        for problem in error.problems:
            explain_failure(problem)
        sys.exit(BAD_USAGE)
    except (Rejected, Unavailable) as error:
        explain_failure(str(error))
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
