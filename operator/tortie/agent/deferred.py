"""DELs that the CNI plugin queued on disk while the agent was away: the side that reads.

Belongs here: the folder, one file a DEL, named and written by the plugin (`cni/deferred.go`). Does not: doing a DEL.
"""

import hashlib
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

_log = logging.getLogger(__name__)

# Seconds. The plugin renames a temporary within milliseconds of making it; an older one was left by a crash. One that is
# taken away too early makes that DEL fail, and the runtime tries it again.
_TEMPORARY_IS_LEFT = 60.0


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A DEL as the plugin sends it: the CNI_ variables as they were, and the network configuration."""

    command: Literal["DEL"]
    container_id: str = msgspec.field(name="containerID")
    ifname: str
    netns: str = ""
    args: str = ""
    config: dict[str, Any] = {}


class Deferred(NamedTuple):
    """A request, and the file that it is removed with."""

    path: Path
    request: Request


class Queue:
    """The folder of deferred DELs; one that isn't there is empty."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __len__(self) -> int:
        """Return how many files wait, whether or not they can be read."""
        return len(list(self._folder.glob("*.json")))

    def waiting(self) -> list[Deferred]:
        """Return the requests, oldest file first; what is none is put aside as `*.broken` and logged."""
        found = [Deferred(path, request) for path in self._files() if (request := self._read(path)) is not None]
        self._sync()
        return found

    def forget(self, container: str, ifname: str) -> None:
        """Remove the DEL of a link that is added again: played later, it would take the new one."""
        digest = hashlib.sha256(f"{container}/{ifname}".encode()).digest()[:16]
        (self._folder / f"{digest.hex()}.json").unlink(missing_ok=True)  # named by the plugin

    def done(self, deferred: Iterable[Deferred]) -> None:
        """Remove requests that are done, durably; one that was removed already is fine.

        A crash in between leaves some to be done again, which is harmless: a DEL of what is gone succeeds.
        """
        for each in deferred:
            each.path.unlink(missing_ok=True)
        self._sync()

    def clean(self, now: float) -> None:
        """Remove temporaries that a crash left; `now` is the wall clock in seconds, as in the files' times."""
        for path in self._folder.glob(".*.tmp"):
            with suppress(FileNotFoundError):
                if now - path.stat().st_mtime >= _TEMPORARY_IS_LEFT:
                    path.unlink()

    def _files(self) -> list[Path]:
        timed = []
        for path in self._folder.glob("*.json"):
            with suppress(FileNotFoundError):  # the plugin removes its file when the agent answers after all
                timed.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(timed)]

    def _read(self, path: Path) -> Request | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Request)
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.error("deferred DEL %s can't be read: %s; left for the next time, look at the node's disk", path, error)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._put_aside(path, error)
        return None

    def _put_aside(self, path: Path, error: Exception) -> None:
        broken = path.with_suffix(".broken")
        with suppress(OSError):  # then it is found, and said, again
            path.replace(broken)
        _log.error(
            "deferred DEL %s is no request: %s; put aside as %s. Its pod's address stays taken until it is judged a leak:"
            " mend the file and name it .json again, or delete it",
            path, error, broken.name,
        )  # fmt: skip

    def _sync(self) -> None:
        """Make removals and renames durable."""
        with suppress(FileNotFoundError):
            handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
