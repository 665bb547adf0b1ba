"""How answers are shown: tables for people, JSON and YAML for programs, whose keys are stable."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import yaml
from tabulate import tabulate

Row = dict[str, Any]
# The exit status of a command that did its work and found that something isn't as it should be; 2 is click's, for a wrong line.
FOUND = 3


class Column(NamedTuple):
    """One column of a table: the row's key, what stands above, and whether only `-o wide` shows it."""

    key: str
    title: str
    wide: bool = False


OUTPUT = click.option(
    "-o", "--output", default="table", show_default=True, type=click.Choice(["table", "wide", "json", "yaml"]),
    help="How the answer is shown.",
)  # fmt: skip


def show(rows: Iterable[Row], columns: Sequence[Column], output: str, *, empty: str = "nothing found") -> None:
    """Print rows: as a table of the columns, or whole. `empty` is said to people where there is no row."""
    rows = list(rows)
    if output in ("json", "yaml"):
        dump(rows, output)
    elif not rows:
        click.echo(empty, err=True)
    else:
        shown = [column for column in columns if output == "wide" or not column.wide]
        cells = [[_cell(row[column.key]) for column in shown] for row in rows]
        click.echo(tabulate(cells, [column.title for column in shown], tablefmt="plain", disable_numparse=True))


def dump(answer: Any, output: str) -> None:
    """Print anything as JSON or YAML."""
    if output == "json":
        click.echo(json.dumps(answer, indent=2))
    else:
        click.echo(yaml.safe_dump(answer, sort_keys=False, allow_unicode=True), nl=False)


def writable(path: Path) -> Path:
    """Return a path if a file can be written there, and leave none; raises BadParameter with the way out."""
    is_new = not path.exists()
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise click.BadParameter(f"{path} can't be written: {error.strerror}; name a file in a folder that is there") from error
    if is_new:
        path.unlink()
    return path


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else value
