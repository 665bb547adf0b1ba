"""commands.md: every command and its options, walked from click's own tree, so that a new command is there by itself."""

from collections.abc import Iterator

import click

from tests.docs.reference.markdown import GENERATED, code, prose, table
from tortie.cli.ctl.main import main as tortiectl
from tortie.cli.main import main as tortie

PROGRAMS: dict[str, click.Command] = {"tortiectl": tortiectl, "tortie": tortie}

_INTRODUCTION = """\
# Commands

`tortiectl` is for people; `kubectl tortie` is the same program when `kubectl-tortie` is on the PATH. `tortie` is what the
containers run; the chart gives it its options.

An option can be given as an environment variable too; what stands on the command line comes first.

"""


def page() -> str:
    """Return the page."""
    sections = [_section(context) for name, command in PROGRAMS.items() for context in contexts(name, command)]
    return GENERATED + _INTRODUCTION + "\n".join(sections)


def contexts(name: str, command: click.Command, parent: click.Context | None = None) -> Iterator[click.Context]:
    """Yield the context of a command and of all below it, in the order in which they list themselves."""
    context = click.Context(command, info_name=name, parent=parent, **command.context_settings)
    yield context
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None, f"{context.command_path} lists {below}, and hasn't it"
            if not found.hidden:
                yield from contexts(below, found, context)


def _section(context: click.Context) -> str:
    command = context.command
    title = "##" if context.parent is None else "###"
    usage = " ".join((context.command_path, *command.collect_usage_pieces(context)))
    lines = [f"{title} {context.command_path}", *_paragraphs(command.help or ""), f"```text\n{usage}\n```"]
    rows = [_row(one, context) for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if rows:
        lines.append(table(("Option", "Value", "Default", "Meaning", "Environment"), rows))
    return "\n\n".join(lines).rstrip("\n") + "\n"


def _paragraphs(text: str) -> list[str]:
    """Return a help text's paragraphs; one that must keep its lines (click's mark for that) is shown as it is."""
    found = []
    for paragraph in text.replace("\f", "").split("\n\n"):
        kept = paragraph.strip("\n").startswith("\b")
        found.append(f"```text\n{paragraph.strip().lstrip(chr(8)).strip()}\n```" if kept else prose(paragraph))
    return [one for one in found if one]


def _row(option: click.Option, context: click.Context) -> tuple[str, ...]:
    names = ", ".join(map(code, (*option.opts, *option.secondary_opts)))
    prefix = context.auto_envvar_prefix
    variable = option.envvar if isinstance(option.envvar, str) else f"{prefix}_{option.name}".upper() if prefix else ""
    return names, _value(option), _default(option), prose(option.help or ""), code(variable) if variable else ""


def _value(option: click.Option) -> str:
    if option.is_flag:
        return "none"
    if isinstance(option.type, click.Choice):
        said = ", ".join(code(str(one)) for one in option.type.choices)
    else:
        described = option.type.to_info_dict().get("name", "text")
        bounds = option.type._describe_range() if isinstance(option.type, click.IntRange | click.FloatRange) else ""
        said = prose(f"{described}, {bounds}" if bounds else described)
    return said + (", repeatable" if option.multiple else "")


def _default(option: click.Option) -> str:
    if option.required:
        return "required"
    plain = not option.is_flag and isinstance(option.default, str | int | float)
    return code(str(option.default)) if plain else ""
