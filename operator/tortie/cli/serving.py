"""What the processes that run for ever share: options of logs and metrics, and how they run until they are told to end."""

import asyncio
import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import click
from pythonjsonlogger.json import JsonFormatter

from tortie.health import endpoint

LOG_FORMAT = click.Choice(["text", "json"])
LOG_LEVEL = click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"])

_JSON = "{asctime}{levelname}{name}{message}"
_NAMES = {"asctime": "time", "levelname": "level", "name": "logger"}


def metrics_address(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """Return an option's value if it is HOST:PORT or empty; a callback for click."""
    try:
        endpoint(value or "")
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return value


@contextmanager
def without_traceback(foreseen: tuple[type[Exception], ...]) -> Iterator[None]:
    """Say in one line what went wrong, if it is one of these: raised by a process, or by one of its tasks."""
    try:
        yield
    except foreseen as error:
        raise click.ClickException(str(error)) from error
    except ExceptionGroup as group:
        known, others = group.split(foreseen)
        if known is None or others is not None:
            raise
        raise click.ClickException(str(known.exceptions[0])) from group


def serve(work: Coroutine[Any, Any, None], log_level: str, log_format: str) -> None:
    """Run a process until it is told to end."""
    handler = logging.StreamHandler()
    if log_format == "json":
        handler.setFormatter(JsonFormatter(_JSON, style="{", rename_fields=_NAMES))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=log_level, handlers=[handler])
    faulthandler.register(signal.SIGUSR1)
    if asyncio.run(_until_told(work)) == signal.SIGHUP:
        logging.getLogger(__name__).info("told to start anew")
        os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606 - ourselves, with the code that is there now


async def _until_told(work: Coroutine[Any, Any, None]) -> signal.Signals | None:
    """Run until the work ends or a signal ends it; return that signal."""
    task, told = asyncio.create_task(work), list[signal.Signals]()

    def end(by: signal.Signals) -> None:
        told.append(by)
        task.cancel()

    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(one, end, one)
    try:
        await task
    except asyncio.CancelledError:
        logging.getLogger(__name__).info("told to end; ended")
    return told[0] if told else None
