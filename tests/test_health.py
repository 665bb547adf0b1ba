"""What a process serves, and where: the probes on 127.0.0.1 alone, the metrics where they are asked for."""

import socket
from collections.abc import Iterator

import aiohttp
import pytest
from aiohttp import web
from click.testing import CliRunner

from tests.kube.watching import eventually
from tortie import health
from tortie.cli.main import main

PATHS = ("/healthz", "/readyz", "/metrics")


@pytest.fixture
def ports() -> list[int]:
    """Ports that were free a moment ago."""
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in (one, other)]


def counted() -> bytes:
    return b"counted 1\n"


async def statuses(address: str) -> list[int]:
    async with aiohttp.ClientSession() as session:
        found = []
        for path in PATHS:
            async with session.get(f"http://{address}{path}") as answer:
                found.append(answer.status)
        return found


@pytest.mark.parametrize("host", ["127.0.0.2", "[127.0.0.2]", "[::1]"])
async def test_elsewhere_there_are_metrics_and_no_probes(ports: list[int], host: str) -> None:
    probes, elsewhere = ports
    async with health.serve(probes, counted, f"{host}:{elsewhere}"):
        reached = f"{host if ':' in host else host.strip('[]')}:{elsewhere}"
        await eventually(lambda: listens(reached))
        assert await statuses(f"127.0.0.1:{probes}") == [200, 200, 200]
        assert await statuses(reached) == [404, 404, 200]
    assert not listens(reached)


async def test_nothing_is_served_where_nothing_was_asked_for(ports: list[int]) -> None:
    async with health.serve(0, counted):
        assert not any(listens(f"127.0.0.1:{port}") for port in ports)


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as held:
        yield held


async def test_the_port_of_the_probes_must_be_had(taken: socket.socket) -> None:
    port = taken.getsockname()[1]
    with pytest.raises(health.NotServed, match=rf"127\.0\.0\.1:{port} can't be listened on: .*choose another --health-port"):
        async with health.serve(port, counted):
            pass


async def test_metrics_wait_for_their_address_and_stop_nothing(
    taken: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(health, "AGAIN", 0.01)
    tries, listen = list[int](), health._listen

    async def counting(runner: web.AppRunner, host: str, port: int) -> None:
        tries.append(port)
        await listen(runner, host, port)

    monkeypatch.setattr(health, "_listen", counting)
    port = taken.getsockname()[1]
    async with health.serve(0, counted, f"127.0.0.1:{port}"):
        await eventually(lambda: len(tries) == 3)
        assert "metrics can't be served on 127.0.0.1 port" in caplog.text
        taken.close()
        await eventually(lambda: "metrics are served on 127.0.0.1" in caplog.text)
        assert await statuses(f"127.0.0.1:{port}") == [404, 404, 200]
    assert caplog.text.count("can't be served") == 1


GOOD = {
    "": None,
    "192.0.2.1:9095": ("192.0.2.1", 9095),
    "[192.0.2.1]:9095": ("192.0.2.1", 9095),
    "[::1]:1": ("::1", 1),
    "[2001:db8::1]:65535": ("2001:db8::1", 65535),
}
BAD = (
    "9095",
    ":9095",
    "::1:9095",
    "192.0.2.1",
    "192.0.2.1:",
    "192.0.2.1:0",
    "192.0.2.1:65536",
    "192.0.2.1:http",
    "[::1]",
    "a:1",
)


@pytest.mark.parametrize("address", GOOD)
def test_addresses(address: str) -> None:
    assert health.endpoint(address) == GOOD[address]


@pytest.mark.parametrize("command", ["operator", "agent"])
@pytest.mark.parametrize("address", BAD)
def test_what_is_no_address_is_refused_in_a_sentence(command: str, address: str) -> None:
    done = CliRunner().invoke(main, [command, "--metrics-address", address, *(["--node", "a"] if command == "agent" else [])])
    assert done.exit_code == 2
    assert f"{address!r} must be an IP address and a port, as 192.0.2.1:9095 or [2001:db8::1]:9095; empty" in done.output
    assert "Traceback" not in done.output
