"""Commands for dead letters: list, show, replay."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from cli import build
from cli.output import console, fail, print_fields, print_json, print_table
from config.errors import Rejected, Unavailable
from config.settings import Settings, load
from runtime.dead_letters import DeadLetter, read_all
from runtime.dead_letters import replay as replay_dead_letter

app = typer.Typer(
    help="List, show and replay dead letters: requests and completion events that could not be processed.",
    no_args_is_help=True,
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Position = Annotated[str, typer.Argument(help="PARTITION:OFFSET, as shown by `list`.", show_default=False)]
COLUMNS = ("position", "time", "reason", "key", "bytes")


@app.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """List the messages of the dead-letter topic, oldest first."""
    letters = [_fields(letter) for letter in _read(_settings())]
    if as_json:
        print_json(letters)
    else:
        rows = [[fields[name] for name in COLUMNS] for fields in letters]
        print_table(COLUMNS, rows, empty="There are no dead letters.")


@app.command()
def show(position: Position, as_json: JsonFlag = False) -> None:
    """Show one dead letter with its value."""
    letter = _find(_settings(), position)
    fields = {**_fields(letter), "value": (letter.value or b"").decode(errors="backslashreplace")}
    if as_json:
        print_json(fields)
    else:
        print_fields(fields)


@app.command()
def replay(
    position: Annotated[
        str | None, typer.Argument(help="PARTITION:OFFSET of one dead letter.", show_default=False)
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Replay all dead letters.")] = False,
) -> None:
    """Publish dead letters to their topic again, even if replayed before; what has already ended is skipped."""
    if (position is None) != all_:
        fail("give either PARTITION:OFFSET or --all", status=2)
    settings = _settings()
    publisher = build.publisher(settings)
    letters = _read(settings) if position is None else iter([_find(settings, position)])
    count, refused = 0, []
    for letter in letters:
        completion = letter.why.get("topic") == settings.completions_topic
        try:
            replay_dead_letter(publisher, letter, settings.completions_topic if completion else settings.requests_topic)
        except Unavailable as error:
            fail(f"{letter.partition}:{letter.offset}: {error}")
        except Rejected as error:
            refused.append(f"{letter.partition}:{letter.offset}: {error}")
        else:
            count += 1
    console().print(f"Replayed {count} dead {'letter' if count == 1 else 'letters'}.")
    if refused:
        fail("\n".join(refused))


def _settings() -> Settings:
    return load(needs=["KAFKA_BOOTSTRAP_SERVERS"])


def _read(settings: Settings) -> Iterator[DeadLetter]:
    try:
        yield from read_all(settings)
    except Unavailable as error:
        fail(str(error))


def _find(settings: Settings, position: str) -> DeadLetter:
    for letter in _read(settings):
        if f"{letter.partition}:{letter.offset}" == position:
            return letter
    fail(f"There is no dead letter at {position}. To list them: waybill dead-letters list", status=1)


def _fields(letter: DeadLetter) -> dict[str, Any]:
    return {
        "position": f"{letter.partition}:{letter.offset}",
        "key": None if letter.key is None else letter.key.decode(errors="backslashreplace"),
        "bytes": len(letter.value or b""),
        **letter.why,
    }
