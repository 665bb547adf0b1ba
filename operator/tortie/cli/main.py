"""`tortie`: each command's module is imported when it is asked for, so that an agent doesn't carry the operator's libraries."""

import asyncio
import faulthandler
import importlib
import logging
import signal
from collections.abc import Coroutine
from typing import Any

import click

LOG_LEVEL = click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"])


class _Commands(click.Group):
    """The modules beside this one."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return ["agent", "operator"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"tortie.cli.{cmd_name}").command
        return command


@click.command(cls=_Commands)
def main() -> None:
    """Tortie: addresses and policy for every pod."""


def serve(work: Coroutine[Any, Any, None], log_level: str) -> None:
    """Run a process until it is told to end."""
    logging.basicConfig(level=log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    faulthandler.register(signal.SIGUSR1)
    asyncio.run(_until_terminated(work))


async def _until_terminated(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        logging.getLogger(__name__).info("told to end; ended")
