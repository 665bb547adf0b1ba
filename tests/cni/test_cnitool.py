"""The plugin and its installed configuration, driven through libcni by the CNI project's cnitool."""

import asyncio
import json
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.cni.build import cnitool, plugin
from tests.cni.fake_agent import FakeAgent, says, serves
from tortie.agent.install import CONFLIST, Plugin, install

# libcni keeps results under /var/lib/cni; a mount namespace of the call's own keeps the machine's folder out of it.
_IN_NAMESPACE = 'mount --bind "$1" /var/lib && shift && exec "$@"'

Tool = Callable[..., Coroutine[Any, Any, tuple[int, str]]]


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node's folders, with the plugin and its configuration as the agent installs them."""
    for name in ("bin", "net.d", "var-lib"):
        (tmp_path / name).mkdir()
    install(
        plugin(), tmp_path / "bin", tmp_path / "net.d", Plugin(socket=tmp_path / "agent.sock", deferred=tmp_path / "deferred")
    )
    return tmp_path


@pytest.fixture
def tool(node: Path) -> Tool:
    """Run cnitool with a command and more variables, and return its exit status and all that it printed."""
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    wrapped = [*unshare, "sh", "-c", _IN_NAMESPACE, "sh", str(node / "var-lib"), str(cnitool())]
    environment = {
        "PATH": os.environ["PATH"],
        "CNI_ARGS": "K8S_POD_NAME=web-0",
        "CNI_PATH": str(node / "bin"),
        "NETCONFPATH": str(node / "net.d"),
    }

    async def run(command: str, **more: str) -> tuple[int, str]:
        pipe, both = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
        process = await asyncio.create_subprocess_exec(
            *wrapped, command, "tortie", "/run/netns/a", env={**environment, **more}, stdout=pipe, stderr=both
        )
        printed, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, printed.decode()

    return run


def as_older_runtime(node: Path, version: str) -> None:
    """Leave in the configuration what a runtime of before CNI 1.1 reads, with this version."""
    path = node / "net.d" / CONFLIST
    conflist = json.loads(path.read_text())
    del conflist["cniVersions"]
    path.write_text(json.dumps({**conflist, "cniVersion": version}))


async def test_a_pods_whole_life(node: Path, tool: Tool) -> None:
    async with FakeAgent(node / "agent.sock", serves) as agent:
        for command in ("status", "add", "check", "del", "gc"):
            assert (await tool(command))[0] == 0, command
    assert [request["command"] for request in agent.requests] == ["STATUS", "ADD", "CHECK", "DEL", "GC"]
    status, add, check, delete, gc = agent.requests
    assert {request["config"]["cniVersion"] for request in agent.requests} == {"1.1.0"}  # the highest of cniVersions
    assert add["args"] == "K8S_POD_NAME=web-0"
    assert add["ifname"] == "eth0"
    assert "prevResult" not in add["config"]
    assert check["config"]["prevResult"]["ips"] == delete["config"]["prevResult"]["ips"] != []
    assert (status["containerID"], gc["containerID"]) == ("", "")


async def test_gc_deletes_what_libcni_remembers(node: Path, tool: Tool) -> None:
    async with FakeAgent(node / "agent.sock", serves) as agent:
        assert (await tool("add"))[0] == 0
        assert len(list((node / "var-lib/cni/results").iterdir())) == 1  # and none in the machine's own folder
        assert (await tool("gc"))[0] == 0
    assert [request["command"] for request in agent.requests] == ["ADD", "DEL", "GC"]
    assert agent.requests[0]["containerID"] == agent.requests[1]["containerID"]


@pytest.mark.parametrize(
    ("version", "heard"),
    [("0.3.1", ["ADD", "DEL"]), ("0.4.0", ["ADD", "CHECK", "DEL"]), ("1.0.0", ["ADD", "CHECK", "DEL"])],
)
async def test_an_older_runtime(node: Path, tool: Tool, version: str, heard: list[str]) -> None:
    as_older_runtime(node, version)
    async with FakeAgent(node / "agent.sock", serves) as agent:
        status, printed = await tool("add")
        assert status == 0
        assert json.loads(printed)["cniVersion"] == version
        for command in ("status", "check", "del", "gc"):
            await tool(command)
    assert [request["command"] for request in agent.requests] == heard


async def test_an_error_reaches_who_called(node: Path, tool: Tool) -> None:
    async with FakeAgent(node / "agent.sock", says({"error": {"code": 11, "msg": "no block yet", "details": "pool a"}})):
        status, printed = await tool("add")
    assert status == 1
    assert "no block yet" in printed


async def test_del_while_the_agent_is_away(node: Path, tool: Tool) -> None:
    assert (await tool("del"))[0] == 0
    assert len(list((node / "deferred").iterdir())) == 1
