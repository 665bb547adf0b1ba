"""Official release downloads, pinned by checksum in releases.json.

An archive is taken only when the publisher's own checksum is in that table; where it says null, the download isn't tried.
"""

import hashlib
import json
import platform
import queue
import tarfile
import tempfile
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError

TABLE = Path(__file__).parent / "releases.json"
FIRST_BYTE_SECONDS = 3.0  # name, connection, TLS, redirects and first byte together: where it can't be reached, a build waits
_STALL_SECONDS = 30.0  # once bytes flow
_CHUNK = 1 << 20
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class NotDownloaded(Exception):
    """There is no download, or it failed; the message says which and why."""


@dataclass(frozen=True)
class Release:
    """One file to download: a tar archive by its members, or with the member "" the command itself."""

    url: str
    version: str
    members: dict[str, str]
    checksum: str | None

    @property
    def host(self) -> str:
        """The server's name."""
        return urllib.parse.urlsplit(self.url).netloc


def of(name: str, version: str, table: Path | None = None) -> Release:
    """Return the release that holds a command for this machine; raises NotDownloaded when none is pinned."""
    for row in json.loads((table or TABLE).read_text())["releases"]:
        if name in row["members"] and row["version"] == version:
            return _for_this_machine(row)
    raise NotDownloaded(f"{TABLE.name} has no release with {name} {version}")


def download(release: Release, put: Callable[[str, IO[bytes]], None]) -> None:
    """Fetch a release, check it, and only then give `put` the name and content of each of its commands.

    Raises NotDownloaded: no checksum pinned, not reached within 3 s, broken off, or not what was pinned.
    """
    if release.checksum is None:
        raise NotDownloaded(f"{TABLE.name} pins no checksum for {release.url}, so it is not tried")
    with tempfile.TemporaryFile() as file:
        try:
            _fetch(release, file)
        except (OSError, HTTPException) as error:
            raise NotDownloaded(f"{release.url}: {error}") from error
        for name, content in _contents(release, file):
            put(name, content)


def _for_this_machine(row: dict[str, object]) -> Release:
    words = {"version": row["version"], "os": platform.system().lower(), "arch": _architecture()}

    def filled(text: str) -> str:
        return text.format(**words)

    url, version, members, checksums = (row[key] for key in ("url", "version", "members", "checksums"))
    assert isinstance(members, dict)
    assert isinstance(checksums, dict)
    paths = {name: filled(path) for name, path in members.items()}
    return Release(filled(str(url)), str(version), paths, checksums.get(filled("{os}-{arch}")))


def _architecture() -> str:
    return _MACHINES.get(platform.machine(), platform.machine())


def _fetch(release: Release, file: IO[bytes]) -> None:
    algorithm, _, wanted = (release.checksum or "").partition(":")
    digest = hashlib.new(algorithm)
    response, chunk = _open(release.url)
    with response:
        while chunk:
            digest.update(chunk)
            file.write(chunk)
            chunk = response.read(_CHUNK)
    if digest.hexdigest() != wanted:
        found = f"{algorithm}:{digest.hexdigest()}"
        raise NotDownloaded(f"{release.url} is refused: its checksum is {found}, {TABLE.name} wants {release.checksum}")


def _open(url: str) -> tuple[HTTPResponse, bytes]:
    """Return the response and its first bytes; in a thread, because nothing else bounds the name's look-up and the whole."""
    answers: queue.SimpleQueue[tuple[HTTPResponse, bytes] | Exception] = queue.SimpleQueue()
    given_up = threading.Event()
    threading.Thread(target=_ask, args=(url, answers, given_up), daemon=True).start()
    try:
        answer = answers.get(timeout=FIRST_BYTE_SECONDS)
    except queue.Empty:
        given_up.set()
        raise NotDownloaded(f"{url}: no answer within {FIRST_BYTE_SECONDS:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _ask(url: str, answers: "queue.SimpleQueue[tuple[HTTPResponse, bytes] | Exception]", given_up: threading.Event) -> None:
    try:
        response: HTTPResponse = urllib.request.urlopen(url, timeout=_STALL_SECONDS)
        answer = response, response.read(1)
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()  # it is the response too
        answers.put(error)
    else:
        answers.put(answer)
        if given_up.is_set():
            response.close()


def _contents(release: Release, file: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield each command with its content."""
    file.seek(0)
    if list(release.members.values()) == [""]:
        yield from ((name, file) for name in release.members)
        return
    with tarfile.open(fileobj=file) as archive:
        for name, path in release.members.items():
            yield name, _member(archive, path, release.url)


def _member(archive: tarfile.TarFile, path: str, url: str) -> IO[bytes]:
    try:
        content = archive.extractfile(path)
    except KeyError:
        content = None
    if content is None:
        raise NotDownloaded(f"{url} holds no file {path}: mend its `members` in {TABLE.name}")
    return content
