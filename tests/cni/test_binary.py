"""The plugin as a process, against an agent that answers, dies, comes late or isn't there."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.cni.build import plugin
from tests.cni.fake_agent import RESULT, FakeAgent, Manner, hangs_up, hangs_up_at_once, says, serves
from tests.cni.running import Runtime, end
from tortie.agent.deferred import Queue

VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
LARGEST_BINARY = 5 << 20  # bytes


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(tmp_path)


def test_size() -> None:
    assert plugin().stat().st_size < LARGEST_BINARY


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_result_is_converted_to_the_version_that_was_asked(runtime: Runtime, version: str) -> None:
    async with FakeAgent(runtime.socket, says({"result": RESULT})):
        outcome = await runtime.run("ADD", runtime.config(version))
    ips = RESULT["ips"]
    if version < "1":
        ips = [{**ip, "version": family} for ip, family in zip(ips, "46", strict=True)]
    printed = {key: value for key, value in outcome.printed.items() if key != "dns"}  # 0.x prints an empty one
    assert (outcome.status, outcome.said) == (0, "")
    assert printed == {**RESULT, "cniVersion": version, "ips": ips}


@pytest.mark.parametrize(
    ("command", "versions"),
    [("ADD", VERSIONS), ("DEL", VERSIONS), ("CHECK", VERSIONS[1:]), ("GC", VERSIONS[3:]), ("STATUS", VERSIONS[3:])],
)
async def test_each_command_goes_in_the_versions_that_have_it(
    runtime: Runtime, command: str, versions: tuple[str, ...]
) -> None:
    async with FakeAgent(runtime.socket, serves) as agent:
        for version in VERSIONS:
            outcome = await runtime.run(command, runtime.config(version))
            if version in versions:
                assert (outcome.status, outcome.said) == (0, "")
                assert (outcome.printed is None) == (command != "ADD")
                assert agent.requests.pop()["command"] == command
            else:
                code, text = outcome.error
                assert code == 1
                assert f'cniVersion "{version}"' in text
    assert agent.requests == []


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
async def test_a_request_is_carried_as_it_is(runtime: Runtime, command: str) -> None:
    attachments = [{"containerID": "c1", "ifname": "eth0"}]
    previous = {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.7/32"}]}
    config = runtime.config("1.1.0", prevResult=previous, **{"cni.dev/valid-attachments": attachments, "é": [1.5, None]})
    async with FakeAgent(runtime.socket, serves) as agent:
        assert (await runtime.run(command, config)).status == 0
    [request] = agent.requests
    assert request.pop("timeout") > 0
    assert request == {
        "command": command,
        "containerID": "c1",
        "netns": "/run/netns/a",
        "ifname": "eth0",
        "args": runtime.environment["CNI_ARGS"],
        "path": "/opt/cni/bin",
        "config": config,
    }


@pytest.mark.parametrize(
    ("command", "version"), [("ADD", "0.3.1"), ("DEL", "0.4.0"), ("CHECK", "1.0.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")]
)
async def test_the_agents_error_is_printed_as_it_is(runtime: Runtime, command: str, version: str) -> None:
    for code in (1, 4, 6, 7, 107):  # some are also the plugin's own, which say what to look at
        error = {"code": code, "msg": "no address is left", "details": "pool a: 64 of 64"}
        async with FakeAgent(runtime.socket, says({"error": error})):
            outcome = await runtime.run(command, runtime.config(version))
        assert (outcome.status, outcome.printed, outcome.said) == (1, {"cniVersion": version, **error}, "")
    assert not runtime.deferred.exists()


@pytest.mark.parametrize(
    ("command", "fields", "seconds"),
    [
        pytest.param("ADD", {}, 60, id="ADD"),
        pytest.param("ADD", {"waitSeconds": 300}, 300, id="ADD that waits for long"),
        pytest.param("ADD", {"waitSeconds": 0}, 5, id="an agent that is there has time to answer"),
        pytest.param("CHECK", {"waitSeconds": 300}, 5, id="CHECK"),
        pytest.param("DEL", {}, 30, id="DEL"),
        pytest.param("GC", {}, 30, id="GC"),
        pytest.param("STATUS", {}, 5, id="STATUS"),
    ],
)
async def test_the_agent_knows_how_long_it_has(
    runtime: Runtime, command: str, fields: dict[str, object], seconds: float
) -> None:
    async with FakeAgent(runtime.socket, serves) as agent:
        assert (await runtime.run(command, runtime.config("1.1.0", **fields))).status == 0
    assert seconds / 2 < agent.requests[0]["timeout"] <= seconds


@pytest.mark.parametrize("command", ["DEL", "CHECK"])
async def test_an_agent_of_another_version_is_named_as_a_cause(runtime: Runtime, command: str) -> None:
    async with FakeAgent(runtime.socket, says("220 ready")):
        code, text = (await runtime.run(command)).error
    assert code == 110
    assert '"220 ready"' in text
    assert "of one version" in text


async def test_a_pods_network_namespace_may_be_gone_at_del(runtime: Runtime) -> None:
    async with FakeAgent(runtime.socket, serves) as agent:
        for netns in ("", None, "/proc/self/ns/net"):
            assert (await runtime.run("DEL", CNI_NETNS=netns)).status == 0
    assert [request["netns"] for request in agent.requests] == ["", "", "/proc/self/ns/net"]


async def test_the_hosts_namespace_is_refused_before_the_agent_is_asked(runtime: Runtime) -> None:
    async with FakeAgent(runtime.socket, serves) as agent:
        code, text = (await runtime.run("ADD", CNI_NETNS="/proc/self/ns/net")).error
        assert (code, agent.connections) == (8, 0)
        assert 'CNI_NETNS="/proc/self/ns/net"' in text
        assert (await runtime.run("ADD", CNI_NETNS="/proc/self/ns/net", CNI_NETNS_OVERRIDE="1")).status == 0


async def test_many_at_once_each_get_their_own_answer(runtime: Runtime) -> None:
    async with FakeAgent(runtime.socket, serves):
        outcomes = await asyncio.gather(*(runtime.run("ADD", CNI_CONTAINERID=f"c{number}") for number in range(40)))
    assert [outcome.printed["interfaces"][1]["sandbox"] for outcome in outcomes] == [f"c{number}" for number in range(40)]


@pytest.mark.parametrize("command", ["ADD", "CHECK"])
@pytest.mark.parametrize(
    "dies", [pytest.param(hangs_up, id="before the answer"), pytest.param(hangs_up_at_once, id="in the request")]
)
async def test_an_agent_that_died_and_comes_again_is_waited_for(runtime: Runtime, command: str, dies: Manner) -> None:
    config = runtime.config(padding="x" * (1 << 20))  # more than a socket holds, so that the request is really cut
    async with FakeAgent(runtime.socket, dies) as first:
        call = asyncio.create_task(runtime.run(command, config))
        await first.was_connected.wait()
    async with FakeAgent(runtime.socket, dies, dies, serves) as second:
        outcome = await call
    assert (outcome.status, outcome.said) == (0, "")
    assert second.requests[-1]["command"] == command


async def test_a_socket_that_nobody_listens_on_is_waited_for_too(runtime: Runtime) -> None:
    async with FakeAgent(runtime.socket, hangs_up) as first:
        call = asyncio.create_task(runtime.run("ADD"))
        await first.was_connected.wait()
        first.socket.rename(runtime.folder / "kept")
    (runtime.folder / "kept").rename(runtime.socket)  # what an agent that was killed leaves
    (runtime.folder / "new").symlink_to("new.sock")
    async with FakeAgent(runtime.folder / "new.sock", serves):
        (runtime.folder / "new").replace(runtime.socket)
        assert (await call).status == 0


@pytest.mark.parametrize(
    ("command", "fields", "code"),
    [
        pytest.param("ADD", {"waitSeconds": 0}, 11, id="ADD that doesn't wait"),
        pytest.param("ADD", {"waitSeconds": 0.25}, 11, id="ADD that waits a little"),
        pytest.param("GC", {}, 11, id="GC"),
        pytest.param("STATUS", {}, 50, id="STATUS"),
    ],
)
@pytest.mark.parametrize("there", [True, False], ids=["hangs up", "no socket"])
async def test_an_agent_that_stays_away(runtime: Runtime, command: str, fields: dict[str, Any], code: int, there: bool) -> None:
    agent = FakeAgent(runtime.socket if there else runtime.folder / "another", hangs_up)
    async with agent:
        found, text = (await runtime.run(command, runtime.config("1.1.0", **fields))).error
    assert found == code
    assert str(runtime.socket) in text
    assert "kubectl get pods" in text
    if there:
        assert 1 <= agent.connections <= (3 if fields.get("waitSeconds") else 1)  # one each 100 ms at most


async def test_status_is_fine_while_an_agent_that_was_ready_is_away(runtime: Runtime) -> None:
    (runtime.folder / "was-ready").touch()
    assert (await runtime.run("STATUS", runtime.config("1.1.0"))).status == 0


async def test_status_is_what_a_ready_agent_says(runtime: Runtime) -> None:
    (runtime.folder / "was-ready").touch()
    async with FakeAgent(runtime.socket, says({"error": {"code": 50, "msg": "the ledger's disk is full"}})):
        assert (await runtime.run("STATUS", runtime.config("1.1.0"))).error[0] == 50


@pytest.mark.parametrize("manner", [None, hangs_up, hangs_up_at_once], ids=["no socket", "hangs up", "cuts the request"])
async def test_del_is_queued_while_the_agent_is_away(runtime: Runtime, manner: Manner | None) -> None:
    agent = FakeAgent(runtime.socket if manner else runtime.folder / "another", manner or serves)
    async with agent:
        for interface in ("eth0", "eth1", "eth0"):
            outcome = await runtime.run("DEL", runtime.config(padding="x" * (1 << 20)), CNI_IFNAME=interface)
            assert outcome == (0, None, "")
    queued = {deferred.request.ifname: deferred.request for deferred in Queue(runtime.deferred).waiting()}
    assert sorted(queued) == ["eth0", "eth1"]
    assert (queued["eth0"].container_id, queued["eth0"].netns) == ("c1", "/run/netns/a")
    assert queued["eth0"].args == runtime.environment["CNI_ARGS"]
    assert len(list(runtime.deferred.iterdir())) == 2


@pytest.mark.parametrize(
    ("says_then", "status"),
    [pytest.param(serves, 0, id="done"), pytest.param(says({"error": {"code": 107, "msg": "no"}}), 1, id="refused")],
)
async def test_an_agent_that_comes_while_del_is_queued_has_the_last_word(
    runtime: Runtime, says_then: Manner, status: int
) -> None:
    queued = []
    agent = FakeAgent(runtime.socket, hangs_up, says_then)
    agent.on_request = lambda: queued.append(len(Queue(runtime.deferred).waiting()))
    async with agent:
        assert (await runtime.run("DEL")).status == status
    assert queued == [0, 1]  # it was on disk before the agent was tried again
    assert list(runtime.deferred.iterdir()) == []


async def test_del_fails_when_it_cannot_be_queued(runtime: Runtime) -> None:
    runtime.deferred.parent.write_text("a file in the way")
    code, text = (await runtime.run("DEL")).error
    assert code == 5
    assert "not a directory" in text
    assert f"or {runtime.deferred} not writable?" in text


GARBAGE = os.urandom(1 << 20)


@pytest.mark.parametrize(
    ("stdin", "code", "text"),
    [
        pytest.param(b"", 6, 'unexpected end of JSON input; stdin is ""', id="empty"),
        pytest.param(b"\0" + GARBAGE, 6, "(1048577 bytes)", id="1 MB of garbage"),
        pytest.param(b"[" * (1 << 20), 6, "exceeded max depth", id="deep"),
        pytest.param(b'{"cniVersion": "1.1.0", "name": "tor', 6, "unexpected end of JSON input", id="half"),
        pytest.param(b'["cniVersion"]', 6, "cannot unmarshal array", id="no object"),
        pytest.param(b"null", 7, "missing network name", id="null"),
        pytest.param(b'{"cniVersion": "1.1.0", "name": "a/b"}', 7, "invalid characters found in network name; a/b", id="name"),
        pytest.param(b'{"cniVersion": "1.1.0", "name": "\xff"}', 7, "network name", id="name of no text"),
        pytest.param(b'{"cniVersion": "1.1.0", "name": "a", "x": "\xff"}', 6, "isn't UTF-8", id="no text"),
        pytest.param(b'{"cniVersion": "9.9.9", "name": "a"}', 1, 'cniVersion "9.9.9"', id="unknown version"),
        pytest.param(b'{"cniVersion": "0.2.0", "name": "a"}', 1, 'cniVersion "0.2.0"', id="old version"),
        pytest.param(b'{"cniVersion": "x", "name": "a"}', 1, 'cniVersion "x"', id="no version"),
        pytest.param(b'{"cniVersion": "1.0.0.0", "name": "a"}', 1, 'cniVersion "1.0.0.0"', id="version of four parts"),
        pytest.param(b'{"name": "a"}', 1, "cniVersion (missing)", id="version missing"),
        pytest.param(b'{"cniVersion": 1, "name": "a"}', 6, "cannot unmarshal number", id="version a number"),
        pytest.param(b'{"cniVersion": "1.1.0", "name": "a", "waitSeconds": -1}', 7, "is -1; it must be from 0", id="wait"),
        pytest.param(b'{"cniVersion": "1.1.0", "name": "a", "socket": "x"}', 7, 'socket in the network configuration is "x"',
                     id="socket"),
        pytest.param(b'{"name": "a", "cniVersion": "1.1.0", "x": "' + b"x" * (4 << 20) + b'"}', 7, "4 MiB", id="over 4 MiB"),
    ],
)  # fmt: skip
async def test_bad_configurations_get_the_specifications_error(runtime: Runtime, stdin: bytes, code: int, text: str) -> None:
    for command in ("ADD", "DEL", "CHECK", "GC", "STATUS"):
        found, said = (await runtime.run(command, stdin)).error
        assert (found, text in said) == (code, True), said
        assert "10-tortie.conflist" in said
    assert list(runtime.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "changed", "text"),
    [
        pytest.param(None, {}, "[CNI_COMMAND] missing", id="no command"),
        pytest.param("", {}, "[CNI_COMMAND] missing", id="empty command"),
        pytest.param("EAT", {}, 'unknown CNI_COMMAND: EAT', id="unknown command"),
        pytest.param("ADD", {"CNI_CONTAINERID": None}, "[CNI_CONTAINERID] missing", id="no container"),
        pytest.param("ADD", {"CNI_NETNS": None, "CNI_IFNAME": ""}, "[CNI_NETNS,CNI_IFNAME] missing", id="two missing"),
        pytest.param("DEL", {"CNI_IFNAME": None}, "[CNI_IFNAME] missing", id="no interface"),
        pytest.param("CHECK", {"CNI_PATH": None}, "[CNI_PATH] missing", id="no path"),
        pytest.param("ADD", {"CNI_CONTAINERID": "../etc"}, 'CNI_CONTAINERID="../etc"', id="bad container"),
        pytest.param("ADD", {"CNI_IFNAME": "a" * 16}, f'CNI_IFNAME="{"a" * 16}"', id="long interface"),
        pytest.param("DEL", {"CNI_IFNAME": "a/b"}, 'CNI_IFNAME="a/b"', id="bad interface"),
        pytest.param("ADD", {"CNI_IFNAME": "x" * 100_000}, "(100000 bytes)", id="100 KB of interface"),
    ],
)  # fmt: skip
async def test_bad_variables_get_the_specifications_error(
    runtime: Runtime, command: str | None, changed: dict[str, str | None], text: str
) -> None:
    code, said = (await runtime.run(command, **changed)).error
    assert code == 4
    assert text in said
    assert "the container runtime sets these" in said


async def test_version_needs_neither_agent_nor_configuration(runtime: Runtime) -> None:
    process = await runtime.start("VERSION", CNI_CONTAINERID=None, CNI_NETNS=None, CNI_IFNAME=None, CNI_PATH=None)
    assert process.stdout is not None
    printed = json.loads(await process.stdout.read())  # while its standard input is still open
    assert printed == {"cniVersion": "1.1.0", "supportedVersions": list(VERSIONS)}
    assert (await end(process, b"")).status == 0


async def test_a_standard_input_without_end_is_refused(runtime: Runtime) -> None:
    process = await runtime.start("ADD")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b" " * ((4 << 20) + 1))
    assert json.loads(await process.stdout.read())["code"] == 7  # while more may come
    await end(process, b"")


UNINSTALLED = {
    "ADD": (11, "Tortie was uninstalled"),
    "STATUS": (50, "Tortie was uninstalled"),
    "GC": None,
}


@pytest.mark.parametrize("command", UNINSTALLED)
async def test_uninstalled(runtime: Runtime, command: str) -> None:
    """DEL is shown on a real cluster, where there are links to remove (tests/cluster/test_install.py)."""
    expected = UNINSTALLED[command]
    outcome = await runtime.run(command, runtime.config("1.1.0", uninstalled=True, remove=[]))
    if expected is None:
        assert outcome.status == 0
    else:
        assert outcome.error[0] == expected[0]
        assert expected[1] in outcome.error[1]
