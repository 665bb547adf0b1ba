"""Processes in the background: those that end with us, and those that go on and are found again.

One that goes on is recorded by its id and start time, so that it is never taken for another that got its id later.
"""

import ctypes
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

RECORDS = "processes"  # a file in the folder of what goes on running: one line a process, its id and start
_PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None)


class Recorded(NamedTuple):
    """A process: its id, and when it started, in clock ticks since boot (proc_pid_stat(5), field 22)."""

    pid: int
    started: str

    @property
    def runs(self) -> bool:
        """Whether that process, and not another with its id, still runs."""
        return bool(self.started) and _started(self.pid) == self.started


def start(command: Sequence[str], log: Path, *, detached: bool = False) -> subprocess.Popen[bytes]:
    """Start a command in its log's folder, as the leader of a session, so that Ctrl-C reaches us alone.

    The kernel kills it when we die, however that is; unless it is `detached`: then `end_recorded(log.parent)` ends it.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            start_new_session=True,
            preexec_fn=None if detached else die_with_parent,  # noqa: PLW1509 - two system calls, no lock
        )
    if detached:
        with (log.parent / RECORDS).open("a") as file:
            file.write("{} {}\n".format(*record(process.pid)))
    return process


def record(pid: int) -> Recorded:
    """Return the record of a process that runs."""
    return Recorded(pid, _started(pid))


def recorded(folder: Path) -> list[Recorded]:
    """Return the processes that were started in a folder to go on, in that order."""
    file = folder / RECORDS
    lines = file.read_text().splitlines() if file.exists() else []
    return [Recorded(int(pid), started) for pid, started in (line.split(" ") for line in lines)]


def end_recorded(folder: Path) -> None:
    """Kill those processes, last first, and return when they are gone. None there is fine."""
    for process in reversed(recorded(folder)):
        with suppress(ProcessLookupError):
            _kill(process)


def _kill(process: Recorded) -> None:
    handle = os.pidfd_open(process.pid)  # from here on nobody else gets its id
    try:
        if process.runs:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [])
    finally:
        os.close(handle)


def _started(pid: int) -> str:
    """Return when a process started, "" where it doesn't run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]
