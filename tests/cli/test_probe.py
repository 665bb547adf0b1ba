"""`tortie probe`: the two ends of a connectivity test, against sockets of this machine."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cluster.deploy import wait
from tortie.cli import probe


@pytest.fixture
def port() -> Iterator[int]:
    """A port that somebody holds, and on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def test_a_path_that_opens_a_moment_later_is_open(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = list[float]()
    opened = socket.socket()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        opened.bind(("127.0.0.2", port))
        opened.listen()

    monkeypatch.setattr(asyncio, "sleep", pause)
    with opened:
        assert isinstance(await probe._reach_soon(f"127.0.0.2|{port}"), float)
    assert pauses == [1.0]


async def test_a_path_that_stays_closed_is_tried_twice(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_PAUSE", 0)
    tries = list[str]()
    connect = asyncio.open_connection

    async def counted(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        tries.append(host)
        return await connect(host, port)

    monkeypatch.setattr(asyncio, "open_connection", counted)
    assert "refused" in str(await probe._reach_soon(f"127.0.0.1|{port}"))
    assert len(tries) == 2


def test_a_port_that_is_served_makes_the_file(tmp_path: Path) -> None:
    file = tmp_path / "ready"
    tortie = Path(sys.executable).parent / "tortie"
    with subprocess.Popen([tortie, "probe", "serve", "--port", "0", "--ready-file", file]) as serving:
        wait("it serves", file.exists)
        serving.terminate()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        serve = ["serve", "--port", str(port), "--ready-file", str(tmp_path / "ready")]
        result = CliRunner().invoke(probe.command, serve)
    assert not list(tmp_path.iterdir())
    assert result.exit_code == 1
    assert f"TCP port {port} can't be served: " in result.output
    assert "in use" in result.output
