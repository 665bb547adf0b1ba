"""`tortie`: each command's module is imported when it is asked for, so that it carries no other's libraries.

`ask` and `probe` are run in pods by tortiectl, node by node, and are over at once: most of their time would be imports.
"""

import importlib

import click

from tortie import __version__


class _Commands(click.Group):
    """The modules beside this one."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return ["agent", "ask", "hollow", "operator", "probe"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"tortie.cli.{cmd_name}").command
        return command


@click.command(cls=_Commands)
@click.version_option(__version__, prog_name="tortie")
def main() -> None:
    """Tortie: addresses and policy for every pod."""
