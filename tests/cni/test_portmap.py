"""hostPorts: the plugin calls portmap as a runtime would if it were chained behind it, for pods that have some and no other.

The portmap here writes down what it is asked and answers as it is told; the real one serves a port in tests/cluster.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cni.fake_agent import RESULT, FakeAgent, serves
from tests.cni.running import Runtime
from tests.cni.test_cnitool import Tool, as_older_runtime, node, tool
from tortie.agent.install import CONFLIST

__all__ = ["node", "tool"]

PORTS = [{"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}]
PORTMAP = """#!{python}
import json, os, pathlib, sys
folder = pathlib.Path({folder!r})
config = json.load(sys.stdin)
variables = {{name: value for name, value in os.environ.items() if name.startswith("CNI_")}}
with (folder / "asked").open("a") as file:
    print(json.dumps([variables, config]), file=file)
answer = folder / os.environ["CNI_COMMAND"]
if answer.exists():
    print(answer.read_text())
    sys.exit(1)
if os.environ["CNI_COMMAND"] == "ADD":
    print(json.dumps(config["prevResult"]))
"""


def portmap(path: Path) -> None:
    """Put a portmap there; what it is asked goes to `asked` beside it, its error to a command is the file of that name."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(PORTMAP.format(python=sys.executable, folder=str(path.parent)))
    path.chmod(0o755)


def asked(folder: Path) -> list[tuple[dict[str, str], dict[str, Any]]]:
    """Return the variables and the configuration of each call, and forget them."""
    file = folder / "asked"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return [(variables, config) for variables, config in map(json.loads, lines)]


def commands(folder: Path) -> list[str]:
    return [variables["CNI_COMMAND"] for variables, _ in asked(folder)]


def listed(node: Path, *plugins: str) -> None:
    """Let the runtime itself call these, portmap with the ports, as all of them once were."""
    path = node / "net.d" / CONFLIST
    conflist = json.loads(path.read_text())
    (ours,) = conflist["plugins"]
    each = {"portmap": {"type": "portmap", "capabilities": ours.pop("capabilities")}, "tortie": ours}
    path.write_text(json.dumps(conflist | {"plugins": [each[name] for name in plugins]}))


@pytest.mark.parametrize(
    ("version", "life", "plugins"),
    [
        ("0.4.0", ["add", "check", "del"], ["tortie", "portmap"]),
        ("1.0.0", ["add", "check", "del"], ["tortie", "portmap"]),
        ("1.1.0", ["gc", "status"], ["portmap"]),
    ],
)
async def test_it_is_called_as_in_a_list(node: Path, tool: Tool, version: str, life: list[str], plugins: list[str]) -> None:
    portmap(node / "bin" / "portmap")
    as_older_runtime(node, version)
    heard = []
    async with FakeAgent(node / "agent.sock", serves):
        for by_the_runtime in (False, True):
            if by_the_runtime:
                listed(node, *plugins)
            for command in life:
                assert (await tool(command, CAP_ARGS=json.dumps({"portMappings": PORTS})))[0] == 0
            heard.append(asked(node / "bin"))
    ours, theirs = heard
    for _, config in theirs:
        config.pop("capabilities", None)  # of the list, and not portmap's to read
    assert ours == theirs
    assert [variables["CNI_COMMAND"].lower() for variables, _ in ours] == life


async def test_a_pod_without_ports_has_none_started(node: Path, tool: Tool) -> None:
    portmap(node / "bin" / "portmap")
    async with FakeAgent(node / "agent.sock", serves):
        for command in ("add", "check", "del"):
            assert (await tool(command))[0] == 0
    assert asked(node / "bin") == []


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime whose second folder of plugins has a portmap."""
    portmap(tmp_path / "bin" / "portmap")
    made = Runtime(tmp_path)
    made.environment["CNI_PATH"] = f"/nowhere:{tmp_path}/bin"
    return made


def of_a_pod(runtime: Runtime, version: str = "1.1.0", **fields: object) -> dict[str, object]:
    return runtime.config(version, runtimeConfig={"portMappings": PORTS}, **fields)


async def test_the_latest_version_is_not_asked_of_it(runtime: Runtime) -> None:
    """Debian 12's portmap knows 1.0.0 at most."""
    async with FakeAgent(runtime.socket, serves):
        given = (await runtime.run("ADD", of_a_pod(runtime))).printed
        for command in ("CHECK", "DEL"):
            assert (await runtime.run(command, of_a_pod(runtime, prevResult=given))).status == 0
    assert given["cniVersion"] == "1.1.0"
    for _, config in asked(runtime.folder / "bin"):
        assert config["cniVersion"] == config["prevResult"]["cniVersion"] == "1.0.0"
        assert config["prevResult"]["ips"] == RESULT["ips"]


@pytest.mark.parametrize("left", ["", "0644"], ids=["absent", "can't be executed"])
async def test_without_portmap_a_pod_runs_without_its_ports(runtime: Runtime, left: str) -> None:
    path = runtime.folder / "bin" / "portmap"
    path.chmod(int(left, 8)) if left else path.unlink()
    async with FakeAgent(runtime.socket, serves):
        for command in ("ADD", "DEL"):
            outcome = await runtime.run(command, of_a_pod(runtime))
            assert outcome.status == 0
            assert f"{command} of " in outcome.said
            assert "K8S_POD_NAME=web-0" in outcome.said
            assert "its hostPorts are left as they are: no plugin portmap that can be executed is in " in outcome.said
        for command in ("GC", "STATUS"):
            assert await runtime.run(command, runtime.config("1.1.0")) == (0, None, "")


@pytest.mark.parametrize(
    ("command", "fields", "agent_hears"),
    [
        ("ADD", {}, ["ADD"]),
        ("CHECK", {}, ["CHECK"]),
        pytest.param("DEL", {}, [], id="DEL: the address isn't free while a port leads to it"),
        pytest.param("DEL", {"uninstalled": True, "remove": []}, [], id="DEL after Tortie was uninstalled"),
        ("GC", {}, ["GC"]),
        ("STATUS", {}, ["STATUS"]),
    ],
)
async def test_its_error_is_the_plugin_s(
    runtime: Runtime, command: str, fields: dict[str, Any], agent_hears: list[str]
) -> None:
    (runtime.folder / "bin" / command).write_text(json.dumps({"code": 107, "msg": "no iptables", "details": "look"}))
    async with FakeAgent(runtime.socket, serves) as agent:
        error = (await runtime.run(command, of_a_pod(runtime, **fields))).error
    assert error == (107, "portmap, which serves hostPorts: no iptables; look")
    assert [request["command"] for request in agent.requests] == agent_hears


async def test_one_that_crashes_fails_the_add(runtime: Runtime) -> None:
    (runtime.folder / "bin" / "ADD").write_text("panic")
    async with FakeAgent(runtime.socket, serves):
        code, text = (await runtime.run("ADD", of_a_pod(runtime))).error
    assert code == 999
    assert 'portmap, which serves hostPorts, failed: exit status 1; it said "panic' in text


@pytest.mark.parametrize("code", [pytest.param(1, id="of an older version"), pytest.param(4, id="of no such command")])
@pytest.mark.parametrize("command", ["GC", "STATUS"])
async def test_one_that_is_too_old_to_be_asked_is_no_error(runtime: Runtime, command: str, code: int) -> None:
    (runtime.folder / "bin" / command).write_text(json.dumps({"code": code, "msg": "what?"}))
    async with FakeAgent(runtime.socket, serves):
        assert await runtime.run(command, runtime.config("1.1.0")) == (0, None, "")
    assert commands(runtime.folder / "bin") == [command]


async def test_ports_are_gone_also_while_the_agent_is_away(runtime: Runtime) -> None:
    assert (await runtime.run("DEL", of_a_pod(runtime))).status == 0
    assert commands(runtime.folder / "bin") == ["DEL"]
    assert len(list(runtime.deferred.iterdir())) == 1
