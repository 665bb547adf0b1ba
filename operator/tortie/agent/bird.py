"""BIRD, the BGP speaker, as a child of the agent: started, told of what changes, started again when it ends.

Belongs here: the process and its configuration file. Does not: what is in the file (`tortie.routing.bird`).

The routes that BIRD gave to the kernel stay when it ends, and the other side keeps those that it was told (graceful restart,
RFC 4724), so an end costs no packet: it is never asked to say good-bye. It dies with the agent, and what was last asked of it
is in the file, so that an agent that starts without an API server speaks as the one before it did.

Crash points: the file is written beside and renamed, so it is an old one or a new one, and it is checked before; a BIRD that
started with the old one is told of the new one. What BIRD refuses doesn't take the old one's place.
"""

import asyncio
import logging
import os
import re
import signal
from collections.abc import Callable
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
# Seconds for BIRD to end by itself, once it has nothing to do any more.
_END = 5.0


class Bird:
    """Keeps BIRD as it should be.

    Args:
        folder: Where its file and its socket are.
        recovers: Whether the kernel has routes of a BIRD before, which are to stay until the new one knows better.
    """

    def __init__(self, folder: Path, recovers: Callable[[], bool], program: str = "bird") -> None:
        self._file, self.socket = folder / "bird.conf", folder / "bird.ctl"
        self._recovers, self._program = recovers, program
        self._wanted: str | None = None
        self._ends = False  # whether BIRD ends once it has taken what is wanted
        self._changed = asyncio.Event()
        self._taken = ""
        self.problem = ""  # why BIRD isn't as it should be, for people

    @property
    def is_wanted(self) -> bool:
        """Whether there is, or should be, a BIRD."""
        return self._wanted is not None

    @property
    def is_current(self) -> bool:
        """Whether BIRD has taken what was wanted last."""
        return self._wanted in (None, self._taken) and not self.problem

    def want(self, text: str | None, *, ends: bool = False) -> None:
        """Have BIRD run with a configuration; None: with what it had. `ends`: only until it has taken that."""
        if text is not None and (text != self._wanted or ends != self._ends):
            self._wanted, self._ends = text, ends
            self._changed.set()

    async def tell_again(self) -> None:
        """Have BIRD take its configuration once more: a session whose port was another program's is disabled until then."""
        with suppress(BirdError):
            await control.ask(self.socket, "configure")

    async def sessions(self) -> list[SessionState]:
        """Return how its sessions are; raises BirdError."""
        return await control.sessions(self.socket) if self.is_wanted else []

    async def best_routes(self) -> dict[str, tuple[str, str]]:
        """Return by prefix where its best routes lead, and the session that told of each; raises BirdError."""
        return await control.best_routes(self.socket) if self.is_wanted else {}

    async def run(self) -> None:
        """Serve until cancelled."""
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._file.exists():
            self._taken = self._file.read_text()
            self._wanted = self._wanted or self._taken
        backoff = Backoff(BackoffSettings(first=0.1, longest=10.0))
        while True:
            while not self._taken:  # nothing is wanted, or nothing that BIRD would take
                await self._changed.wait()
                await self._take()
            try:
                if await self._live(backoff):
                    continue
            except OSError as error:
                self.problem = f"BIRD can't be started: {error}"
            _log.error("%s; it is started again, and the kernel's routes stay meanwhile", self.problem)
            await asyncio.sleep(backoff.next())

    async def _live(self, backoff: Backoff) -> bool:
        """Run BIRD until it ends; whether it was to."""
        self.socket.unlink(missing_ok=True)
        recovery = ["-R"] if await asyncio.to_thread(self._recovers) else []
        arguments = ["--pdeathsig=KILL", "--", self._program, "-f", "-c", str(self._file), "-s", str(self.socket), *recovery]
        process = await asyncio.create_subprocess_exec(
            "setpriv", *arguments, stderr=asyncio.subprocess.PIPE, env={**os.environ, "TZ": "UTC"}
        )
        assert process.stderr is not None
        log, ended = asyncio.create_task(_log_all(process.stderr)), asyncio.create_task(process.wait())
        try:
            _log.info("BIRD is started%s", ", and keeps the kernel's routes until it knows better" if recovery else "")
            self.problem = ""
            while await self._changes_before(ended):
                backoff.reset()
                if await self._take():
                    await self._tell()
                if self._ends and self.is_current:
                    await _end(process)
                    self._file.unlink(missing_ok=True)
                    self._wanted, self._taken, self._ends = None, "", False
                    return True
            self.problem = f"BIRD ended, by {_how(process.returncode or 0)}"
            return False
        finally:
            if not ended.done():
                process.kill()
            await ended
            log.cancel()

    async def _changes_before(self, ended: asyncio.Task[int]) -> bool:
        """Wait until something else is wanted, or BIRD ended; whether it lives."""
        changed = asyncio.create_task(self._changed.wait())
        await asyncio.wait({changed, ended}, return_when=asyncio.FIRST_COMPLETED)
        changed.cancel()
        return not ended.done()

    async def _take(self) -> bool:
        """Have the file be what is wanted, if BIRD would take it; else say why, and keep the old one. Whether it changed."""
        self._changed.clear()
        text, beside = self._wanted or "", self._file.with_suffix(".new")
        if text == self._taken:
            self.problem = ""
            return False
        await asyncio.to_thread(_write, beside, text)
        check = await asyncio.create_subprocess_exec(
            self._program, "-p", "-c", str(beside), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        _, said = await check.communicate()
        if check.returncode:
            why = said.decode(errors="replace").strip().removeprefix("bird: ").replace(f"{beside}:", "line ")
            self.problem = f"BIRD refuses its configuration, and goes on with the one before: {why}"
            _log.error("%s", self.problem)
            return False
        beside.rename(self._file)
        self._taken, self.problem = text, ""
        return True

    async def _tell(self) -> None:
        try:
            await control.ask(self.socket, "configure")
        except BirdError as error:
            self.problem = f"BIRD doesn't take its configuration: {error}"
            _log.error("%s", self.problem)


def _write(path: Path, text: str) -> None:
    """Write a file that is root's alone: passwords are in it."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"itself with exit code {code}"


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a BIRD that has nothing to do any more."""
    process.terminate()
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), _END)


async def _log_all(stream: asyncio.StreamReader) -> None:
    """Pass on what BIRD says, each line in its severity."""
    while line := (await stream.readline()).decode(errors="replace").rstrip():
        said = _SAID.match(line)
        kind, text = said.groups() if said else ("INFO", line)
        _log.log(_SEVERITY.get(kind, logging.INFO), "BIRD: %s", text)
