"""The commands' tree; each command's module is imported when it is asked for."""

import importlib
from collections.abc import Sequence

import click
from click.shell_completion import get_completion_class

from tortie.cli.ctl.cluster import Cluster

_COMMANDS = ("completion", "connectivity", "diagnose", "ipam", "migrate", "node", "policy", "status", "version")
_PROGRAM = "tortiectl"
# kubectl takes these anywhere on the line, so people write them anywhere.
_ANYWHERE = ("--kubeconfig", "--context", "--namespace", "-n")


class _Commands(click.Group):
    """The modules beside this one, and what stands here."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.commands or cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        command: click.Command = importlib.import_module(f"tortie.cli.ctl.{cmd_name}").command
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, in_front(args))


def in_front(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with those that may stand anywhere first; what comes behind `--` is left alone."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    front, rest, position = list[str](), list[str](), 0
    while position < end:
        word = arguments[position]
        name, value = _split(word)
        width = 2 if word in _ANYWHERE else 1
        if name in _ANYWHERE and position + width <= end:  # one without a value stays, and is click's to refuse
            front += [name, arguments[position + 1] if width == 2 else value]
        else:
            rest.extend(arguments[position : min(position + width, end)])
        position += width
    return [*front, *rest, *arguments[end:]]


def _split(word: str) -> tuple[str, str]:
    """Return an option's name and value where they are one word: --namespace=x, and as kubectl takes it, -n=x and -nx."""
    name, _, value = word.partition("=")
    return (name, value) if word.startswith("--") or name == "-n" else (word[:2], word[2:])


@click.group(cls=_Commands, context_settings={"auto_envvar_prefix": "TORTIECTL", "help_option_names": ["-h", "--help"]})
@click.option("--kubeconfig", help="Path of a kubeconfig. Default: as kubectl's.")
@click.option("--context", "context_name", help="The context in it. Default: the current one.")
@click.option("-n", "--namespace", default="tortie-system", show_default=True, help="Where Tortie is installed.")
@click.pass_context
def main(context: click.Context, kubeconfig: str | None, context_name: str | None, namespace: str) -> None:
    """Tortie's addresses, nodes and parts, as they are now."""
    context.obj = Cluster(kubeconfig, context_name, namespace)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion of a shell: source <(tortiectl completion bash)."""
    kind = get_completion_class(shell)
    assert kind is not None, "the choices above are click's own"
    click.echo(kind(main, {}, _PROGRAM, f"_{_PROGRAM.upper()}_COMPLETE").source())
