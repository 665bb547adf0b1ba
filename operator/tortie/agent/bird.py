"""BIRD, the BGP speaker, as a child of the agent: started, told of what changes, started again when it ends.

Belongs here: the process and its configuration file. Does not: what is in the file (`tortie.routing.bird`).

The routes that BIRD gave to the kernel stay when it ends, and are copied before the next one starts (`tortie.agent.copies`);
the other side keeps those that it was told (graceful restart, RFC 4724). So an end costs no packet: it is never asked to say
good-bye. It dies with the agent, and what was last asked of it is in the file, so that an agent that starts without an API
server speaks as the one before it did.

Crash points: the file is written beside and renamed, so it is an old one or a new one, and it is checked before; a BIRD that
started with the old one is told of the new one. What BIRD refuses doesn't take the old one's place.
"""

import asyncio
import logging
import os
import re
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from tortie.agent import control
from tortie.agent.control import BirdError, SessionState
from tortie.kube.backoff import Backoff, BackoffSettings

_log = logging.getLogger(__name__)

_SEVERITY = {
    "DBG": logging.DEBUG, "TRACE": logging.DEBUG, "INFO": logging.INFO, "RMT": logging.INFO, "WARN": logging.WARNING,
    "ERR": logging.ERROR, "AUTH": logging.ERROR, "FATAL": logging.ERROR, "BUG": logging.ERROR,
}  # fmt: skip
_SAID = re.compile(r"\S+ \S+ <(\w+)> (.*)")
_RECOVERS = "Graceful restart recovery in progress"
# Seconds for BIRD to end by itself, once it has nothing to do any more; until what failed is tried again; and after which a
# BIRD that ends did so for another reason than the one before.
_END, RETRY, PROVEN = 5.0, 2.0, 60.0


class Bird:
    """Keeps BIRD as it should be.

    Args:
        folder: Where its file and its socket are.
        keep: Copies the routes that the kernel has of a BIRD before; whether there are any.
    """

    def __init__(self, folder: Path, keep: Callable[[], Awaitable[bool]], program: str = "bird") -> None:
        self._file, self.socket = folder / "bird.conf", folder / "bird.ctl"
        self._keep, self._program = keep, program
        self._wanted = ""  # the configuration; "": no BIRD
        self._filed = ""  # what is in the file
        self._told = ""  # what the BIRD that runs has read of it
        self._refused = ""  # what BIRD wouldn't take: the same again would be refused again
        self._ends = False  # whether BIRD ends once it has taken what is wanted
        self._changed = asyncio.Event()
        self.problem = ""  # why BIRD isn't as it should be, for people

    @property
    def is_wanted(self) -> bool:
        """Whether there is, or should be, a BIRD."""
        return bool(self._wanted)

    @property
    def is_current(self) -> bool:
        """Whether BIRD has taken what was wanted last."""
        return self._wanted == self._told and not self.problem

    def want(self, text: str, *, ends: bool = False) -> None:
        """Have BIRD run with a configuration; `ends`: only until it has taken that."""
        if (text, ends) != (self._wanted, self._ends):
            self._wanted, self._ends = text, ends
            self._changed.set()

    async def tell_again(self) -> None:
        """Have BIRD take its configuration once more: a session whose port was another program's is disabled until then."""
        with suppress(BirdError):
            await control.ask(self.socket, "configure")

    async def is_recovering(self) -> bool:
        """Whether it hasn't heard its peers since it started; also where it doesn't say."""
        try:
            return any(_RECOVERS in line for line in await control.ask(self.socket, "show status"))
        except BirdError:
            return True

    async def sessions(self) -> list[SessionState]:
        """Return how its sessions are; raises BirdError."""
        return await control.sessions(self.socket) if self.is_wanted else []

    async def best_routes(self) -> dict[str, tuple[str, str]]:
        """Return by prefix where its best routes lead, and the session that told of each; raises BirdError."""
        return await control.best_routes(self.socket) if self.is_wanted else {}

    async def run(self) -> None:
        """Serve until cancelled."""
        with suppress(OSError):
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._filed = self._file.read_text()
            self._wanted = self._wanted or self._filed
        backoff = Backoff(BackoffSettings(first=0.1, longest=10.0))
        while True:
            while not self._filed:  # nothing is wanted, or nothing that BIRD would take
                await self._wait(self._wanted != self._filed)
                await self._take()
            began = time.monotonic()
            try:
                if await self._live():
                    continue
            except OSError as error:
                self.problem = f"BIRD can't be started: {error}"
            _log.error("%s; it is started again, and the kernel's routes stay meanwhile", self.problem)
            if time.monotonic() - began > PROVEN:
                backoff.reset()
            await asyncio.sleep(backoff.next())

    async def _live(self) -> bool:
        """Run BIRD until it ends; whether it was to. Raises OSError."""
        self.socket.unlink(missing_ok=True)
        if shutil.which(self._program) is None:  # else setpriv would end, without a word why
            raise FileNotFoundError(f"there is no program {self._program}")
        recovery = ["-R"] if await self._keep() else []
        arguments = ["--pdeathsig=KILL", "--", self._program, "-f", "-c", str(self._file), "-s", str(self.socket), *recovery]
        process = await asyncio.create_subprocess_exec(
            "setpriv", *arguments, stderr=asyncio.subprocess.PIPE, env={**os.environ, "TZ": "UTC"}
        )
        assert process.stderr is not None
        log, ended = asyncio.create_task(_log_all(process.stderr)), asyncio.create_task(process.wait())
        self._told = self._filed
        try:
            _log.info("BIRD is started%s", ", and keeps the kernel's routes until it knows better" if recovery else "")
            while not ended.done():
                await self._wait(self._ends or self._wanted != self._told or bool(self.problem), ended)
                if not ended.done() and await self._is_done(process):
                    return True
            self.problem = f"BIRD ended, by {_how(process.returncode or 0)}"
            return False
        finally:
            self._told = ""
            if not ended.done():
                process.kill()
            await ended
            log.cancel()

    async def _wait(self, again: bool, ended: asyncio.Task[int] | None = None) -> None:
        """Wait until something else is wanted, or BIRD ended; `again`: at most for RETRY, as something is still to be done."""
        changed = asyncio.create_task(self._changed.wait())
        others = {ended} if ended else set[asyncio.Task[int]]()
        await asyncio.wait({changed, *others}, timeout=RETRY if again else None, return_when=asyncio.FIRST_COMPLETED)
        changed.cancel()
        self._changed.clear()

    async def _is_done(self, process: asyncio.subprocess.Process) -> bool:
        """Tell BIRD what is wanted, and end it if it has nothing to do any more; whether it ended."""
        await self._take()
        await self._tell()
        if not self._ends or self._told != self._wanted:
            return False
        process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(_END):
                await process.wait()
        self._file.unlink(missing_ok=True)
        self._filed = ""
        if self._ends:  # else somebody changed their mind meanwhile
            self._wanted, self._ends = "", False
        return True

    async def _take(self) -> None:
        """Have the file be what is wanted, if BIRD would take it; else say why, and keep the old one."""
        text, beside = self._wanted, self._file.with_suffix(".new")
        if text in ("", self._filed, self._refused):
            return
        try:
            await asyncio.to_thread(_write, beside, text)
            check = await asyncio.create_subprocess_exec(
                self._program, "-p", "-c", str(beside), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
            )
            _, said = await check.communicate()
            if check.returncode == 0:
                beside.rename(self._file)
                self._filed = text
                return
        except OSError as error:
            problem = f"BIRD's configuration can't be written and checked: {error}; it goes on with the one before"
        else:
            self._refused = text
            why = said.decode(errors="replace").strip().removeprefix("bird: ").replace(f"{beside}:", "line ")
            problem = f"BIRD refuses its configuration, and goes on with the one before: {why}"
        if problem != self.problem:
            _log.error("%s", problem)
        self.problem = problem

    async def _tell(self) -> None:
        """Have the BIRD that runs read the file, if it hasn't; else ask it whether it is there."""
        text = self._filed
        try:
            await control.ask(self.socket, "show status" if self._told == text else "configure")
        except BirdError as error:
            problem = f"BIRD doesn't take its configuration: {error}"
            if problem != self.problem:
                _log.error("%s; trying again", problem)
            self.problem = problem
        else:
            self._told = text
            if text == self._wanted:
                self.problem = ""


def _write(path: Path, text: str) -> None:
    """Write a file that is root's alone: passwords are in it."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"itself with exit code {code}"


async def _log_all(stream: asyncio.StreamReader) -> None:
    """Pass on what BIRD says, each line in its severity."""
    while data := await stream.readline():
        line = data.decode(errors="replace").rstrip()
        said = _SAID.match(line)
        kind, text = said.groups() if said else ("INFO", line)
        severity = logging.INFO if text == "Shutdown completed" else _SEVERITY.get(kind, logging.INFO)  # <FATAL>
        _log.log(severity, "BIRD: %s", text)
