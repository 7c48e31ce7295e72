"""The `waybill` command."""

import sys

import typer

from cli import daemons, demo, explain, exports, letters, setup, tables
from cli.output import BAD_USAGE, FAILED, explain_failure
from config.settings import Misconfigured
from pipeline.errors import Rejected, Unavailable

app = typer.Typer(
    name="waybill",
    help="Get people's data out, whole, on time, and tell them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("consumer")(daemons.run_consumer)
app.command("notify")(daemons.run_notify)
app.command()(demo.demo)
for _name in ("migrate", "topics", "doctor", "config"):
    app.command(_name, rich_help_panel="Installation")(getattr(setup, _name))
for _name in ("create", "ring", "show", "watch", "cancel", "retry"):
    app.command(_name, rich_help_panel="Exports")(getattr(exports, _name))
app.command("list", rich_help_panel="Exports")(exports.list_)
for _command in (tables.tables, explain.explain):
    app.command(rich_help_panel="Exports")(_command)
app.add_typer(letters.app, name="dead-letters", rich_help_panel="Exports")


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
