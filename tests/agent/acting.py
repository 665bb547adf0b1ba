"""A node of its own for tests of the whole agent: a namespace, the agent as a process in it, and the real CNI plugin."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.agent.namespaces import namespaces
from tests.cluster import processes
from tests.cluster.deploy import ROOT, wait
from tests.cni.build import plugin

HEALTH_PORT = 9091
PYTHON = Path(sys.executable)


class Plane(Protocol):
    """Where an API server is."""

    @property
    def server(self) -> str: ...
    @property
    def kubeconfig(self) -> Path: ...


class Failed(Exception):
    """The plugin answered with an error."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer.get("msg"))
        self.code = answer.get("code")


@dataclass
class AgentNode:
    """One node; `pods` are namespaces for pods."""

    name: str
    plane: Plane
    folder: Path
    path: str
    pods: list[str]
    options: tuple[str, ...] = ()
    named: dict[int, str] = field(default_factory=dict)  # which namespace is a Pod's that the API server has
    namespace: str = "default"
    fault: str = ""  # where the agent dies (`tortie.agent.faults`)
    program: tuple[str, ...] = (str(PYTHON.parent / "tortie"),)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Start the agent and return when it serves."""
        self.launch()
        wait(f"the agent on {self.name} is ready\n{self.log.read_text()}", lambda: self.serves)

    def launch(self) -> None:
        """Start the agent."""
        port = self.plane.server.rpartition(":")[2]
        if not self.running:
            relay = [str(PYTHON), "-m", "tests.cluster.relay", self.path, port, "-", port]
            self.running.append(processes.start(["env", f"PYTHONPATH={ROOT}", *relay], self.folder / f"{self.name}-relay.log"))
        command = [*self.program, "agent", "--node", self.name, "--kubeconfig", str(self.plane.kubeconfig)]
        if "--policy-gate" not in self.options:
            command += ["--policy-gate", "Open"]  # there is no operator that would say what holds
        command += ["--health-port", str(HEALTH_PORT)]  # in its own namespace
        command = ["env", f"TORTIE_FAULT={self.fault}", f"PYTHONPATH={ROOT}", *command]
        command += ["--run", str(self.run), "--state", str(self.folder / "state"), *self.options]
        self.running.append(processes.start(["nsenter", f"--net={self.path}", *command], self.log))

    @property
    def serves(self) -> bool:
        """Whether the agent listens; STATUS says so for one that is away, too, once it was ready."""
        with socket.socket(socket.AF_UNIX) as asked:
            return asked.connect_ex(str(self.run / "agent.sock")) == 0

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}-agent.log"

    @property
    def agent(self) -> int:
        """The agent's process id."""
        return self.running[-1].pid

    def kill(self) -> None:
        """End the agent as a crash does."""
        agent = self.running.pop()
        agent.kill()
        agent.wait()

    def close(self) -> None:
        """End all that was started."""
        while self.running:
            self.kill()

    def cni(self, command: str, pod: int, container: str = "", *, ifname: str = "eth0", uid: str = "", **config: Any) -> Any:
        """Call the plugin as a runtime does; return its result, raise Failed."""
        body = {
            "cniVersion": "1.1.0", "name": "tortie", "type": "tortie", "socket": str(self.run / "agent.sock"),
            "deferred": str(self.folder / "state" / "deferred"), "wasReady": str(self.run / "was-ready"),
            "waitSeconds": 10, **config,
        }  # fmt: skip
        container = container or f"container-{pod}"
        named = f"K8S_POD_NAMESPACE={self.namespace};K8S_POD_NAME={self.named[pod]}" if pod in self.named else ""
        named += f";K8S_POD_UID={uid}" if uid else ""
        environment = {
            "CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_NETNS": self.pods[pod], "CNI_IFNAME": ifname,
            "CNI_PATH": "/", "CNI_ARGS": f"IgnoreUnknown=1;{named}",
        }  # fmt: skip
        done = subprocess.run(
            [plugin()], input=json.dumps(body), env=environment, capture_output=True, text=True, check=False, timeout=100
        )
        answer = json.loads(done.stdout) if done.stdout else None
        if done.returncode:
            raise Failed(answer or {"msg": done.stderr})
        return answer

    def add(self, pod: int, container: str = "", **config: Any) -> list[str]:
        """ADD; return the addresses."""
        return [ip["address"].partition("/")[0] for ip in self.cni("ADD", pod, container, **config)["ips"]]


@contextmanager
def agent_nodes(names: Iterable[str], plane: Plane, folder: Path, pods: int, *options: str) -> Iterator[list[AgentNode]]:
    """Give nodes with namespaces for so many pods each, their agents not started yet."""
    with ExitStack() as opened:
        agents = []
        for name in names:
            (folder / name).mkdir()
            path, *places = opened.enter_context(namespaces(1 + pods))
            agents.append(opened.enter_context(closing(AgentNode(name, plane, folder / name, path, places, options))))
        yield agents
