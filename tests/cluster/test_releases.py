"""Releases from a server of our own: what is pinned is taken, and nothing else."""

import hashlib
import io
import platform
import re
import socket
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

import pytest

from tests.cluster import releases
from tests.cluster.releases import NotDownloaded, Release

CONTENT = b"#!/bin/sh\n" * 1000
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's word
        """Say nothing."""


class Got(dict[str, bytes]):
    """What was put, by name."""

    def put(self, name: str, content: IO[bytes]) -> None:
        self[name] = content.read()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The URL of a server of the files in `tmp_path`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def archive(path: Path, *members: str) -> str:
    """Write an archive of commands and return its checksum."""
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            entry = tarfile.TarInfo(member)
            entry.size = len(CONTENT)
            tar.addfile(entry, io.BytesIO(CONTENT))
    return "sha512:" + hashlib.sha512(path.read_bytes()).hexdigest()


def test_an_archive_gives_each_of_its_commands(server: str, tmp_path: Path) -> None:
    checksum, got = archive(tmp_path / "release.tar.gz", "bin/one", "bin/two", "bin/other"), Got()
    releases.download(Release(f"{server}/release.tar.gz", "1", {"one": "bin/one", "two": "bin/two"}, checksum), got.put)
    assert got == {"one": CONTENT, "two": CONTENT}


def test_a_plain_file_is_the_command(server: str, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(CONTENT)
    got = Got()
    releases.download(Release(f"{server}/one", "1", {"one": ""}, SHA256), got.put)
    assert got == {"one": CONTENT}


@pytest.mark.parametrize(
    ("pinned", "says"),
    [
        pytest.param(("one", "", "sha256:" + "0" * 64), f"is refused: its checksum is {SHA256}", id="another checksum"),
        pytest.param(("one", "", None), "pins no checksum for http.*so it is not tried", id="no checksum pinned"),
        pytest.param(("two", "", SHA256), "HTTP Error 404", id="not on the server"),
        pytest.param(("a.tar.gz", "bin/1", ""), "holds no file bin/1: mend its `members`", id="a missing member"),
    ],
)
def test_what_is_not_as_pinned_is_not_put(server: str, tmp_path: Path, pinned: tuple[str, str, str | None], says: str) -> None:
    file, member, checksum = pinned
    (tmp_path / "one").write_bytes(CONTENT)
    right = archive(tmp_path / "a.tar.gz", "bin/one")
    release, got = Release(f"{server}/{file}", "1", {"one": member}, right if checksum == "" else checksum), Got()
    with pytest.raises(NotDownloaded, match=says):
        releases.download(release, got.put)
    assert not got


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "FIRST_BYTE_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/one"
        with pytest.raises(NotDownloaded, match=re.escape(f"{url}: no answer within 0.1 s")):
            releases.download(Release(url, "1", {"one": ""}, SHA256), Got().put)


@pytest.mark.parametrize(("machine", "architecture"), [("x86_64", "amd64"), ("aarch64", "arm64")])
def test_the_row_is_filled_for_this_machine(monkeypatch: pytest.MonkeyPatch, machine: str, architecture: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    release = releases.of("kubectl", "1.34.4")
    assert release.url == f"https://dl.k8s.io/v1.34.4/kubernetes-client-linux-{architecture}.tar.gz"
    assert release.members == {"kubectl": "kubernetes/client/bin/kubectl"}
    assert re.fullmatch("sha512:[0-9a-f]{128}", release.checksum or "")
