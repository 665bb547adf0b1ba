"""A real cluster on one machine: a control plane and nodes, each in a network namespace, with no way out of them."""

import os
import shutil
import signal
import subprocess
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster import kubeconfig, processes, store
from tests.cluster.assets import find
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import ROOT, helm, wait
from tests.cluster.kubectl import Kubectl
from tests.cluster.network import Network, why_no_namespaces
from tests.cluster.node import PLUGINS, Node, answers
from tests.cluster.terminal import Foreseen

DEBIAN = {
    "containerd": "containerd", "ctr": "containerd", "runc": "runc", "nft": "nftables", "ip": "iproute2",
    "conntrack": "conntrack", "busybox": "busybox-static", "buildah": "buildah", "mmdebstrap": "mmdebstrap",
    "iptables": "iptables",
}  # fmt: skip
_CGROUPS = Path("/sys/fs/cgroup")
_NETWORK = "network"  # the file that keeps the network's id


def why_not() -> str:
    """Return what this machine lacks for a cluster, "" where it lacks nothing."""
    if why := why_no_namespaces():
        return why
    missing = {package for command, package in DEBIAN.items() if shutil.which(command) is None}
    missing |= set() if (PLUGINS / "loopback").exists() else {"containernetworking-plugins"}
    return f"missing: apt-get install {' '.join(sorted(missing))}" if missing else ""


class Cluster:
    """So many nodes, in so many subnets. Leaving the `with` removes every trace, unless it is `detached`.

    `Cluster.end(folder)` does so later.
    """

    def __init__(self, nodes: int = 3, *, subnets: int = 1, folder: Path | None = None, detached: bool = False) -> None:
        if why := why_not():
            raise Foreseen(why)
        self.id = f"tortie-{uuid.uuid4().hex[:6]}"
        self.network = Network(self.id, nodes, subnets)
        self.plane = ControlPlane(controllers=True, folder=folder, detached=detached, place=self.network.hub)
        self.folder = self.plane.folder
        self.nodes = [
            Node(f"node-{number + 1}", _short(self.id) / f"node-{number + 1}", self.folder / "pki", place)
            for number, place in enumerate(self.network.nodes)
        ]
        self.kubectl = Kubectl(self.plane.kubeconfig)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if kind or not self.plane.detached:
            self.stop()

    def start(self) -> Self:
        """Start everything and return when every node has registered."""
        (self.folder / _NETWORK).write_text(self.id)
        _short(self.id).symlink_to(self.folder)
        self.network.make()
        self.plane.start_all()
        self._scheduler()
        commands = {name: str(find(name)) for name in ("kubelet", "kube-proxy")} | {"containerd": "containerd"}
        for node in self.nodes:
            node.prepare()
        store.copy([node.folder / "lib" for node in self.nodes])
        for node in self.nodes:
            self._credentials(node)
            for part, command in node.commands(commands).items():
                self.start_part(f"{node.name}-{part}", command)
                if part == "containerd":
                    wait(f"containerd of {node.name}", lambda node=node: answers(node.socket))  # type: ignore[misc]
        wait("every node has registered", lambda: len(self.kubectl.get("nodes")["items"]) == len(self.nodes), 60)
        return self

    def start_part(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        """Start one more process of the cluster; it ends with it."""
        process = processes.start(command, self.folder / f"{name}.log", detached=self.plane.detached)
        self.plane.processes[name] = process
        return process

    def install(self, *values: str, pools: Path = ROOT / "docs" / "samples" / "ippool.yaml") -> Self:
        """Install the chart with values set, apply pools; return when the nodes are Ready."""
        helm(self.kubectl, "image.pullPolicy=Never", *values)
        self.kubectl.run("apply", "-f", str(pools))
        wait("every node is Ready", self.is_ready, 120)
        return self

    def is_ready(self) -> bool:
        """Whether every node is Ready."""
        nodes = self.kubectl.get("nodes")["items"]
        conditions = [{c["type"]: c["status"] for c in node["status"].get("conditions", ())} for node in nodes]
        return len(conditions) == len(self.nodes) and all(one.get("Ready") == "True" for one in conditions)

    def stop(self) -> None:
        """Remove every trace."""
        for part in reversed(list(self.plane.processes)):
            self.plane.kill(part)
        self._sweep(self.folder)
        self.plane.stop_all()

    @staticmethod
    def end(folder: Path) -> None:
        """Remove every trace of the cluster or control plane in a folder, however that ended. One that isn't there is fine."""
        if (folder / _NETWORK).exists():
            processes.end_recorded(folder)
            Cluster._sweep(folder)
            shutil.rmtree(folder, ignore_errors=True)
        ControlPlane.end(folder)

    @staticmethod
    def _sweep(folder: Path) -> None:
        """Remove what outlives its starter: shims and containers, mounts, cgroups, namespaces."""
        network = folder / _NETWORK
        known = network.read_text() if network.exists() else "none"
        containers = [task.name for task in folder.glob("node-*/run/io.containerd.runtime.v2.task/k8s.io/*")]
        for pid in _shims(known) + [pid for name in containers for pid in _inside(name)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait("no container runs", lambda: not _shims(known) and not any(_inside(name) for name in containers))
        for target in _mounts(folder):
            subprocess.run(["umount", "--lazy", target], check=False, capture_output=True)
        for cgroup in [path for name in containers for path in _CGROUPS.glob(f"*/k8s.io/{name}")]:
            with suppress(OSError):
                cgroup.rmdir()
        Network(known, 0).remove()
        _short(known).unlink(missing_ok=True)

    def _scheduler(self) -> None:
        config = self._kubeconfig("kube-scheduler", "system:kube-scheduler", self.plane.server)
        command = [str(find("kube-scheduler")), f"--kubeconfig={config}", "--secure-port=0", "--leader-elect=false"]
        self.start_part("kube-scheduler", command)
        self._kubeconfig("kube-proxy", "system:kube-proxy", self.plane.inner_server)

    def _credentials(self, node: Node) -> None:
        made = self._kubeconfig(f"{node.name}-kubelet", f"system:node:{node.name}", self.plane.inner_server, "system:nodes")
        made.replace(node.folder / "kubelet.kubeconfig")

    def _kubeconfig(self, name: str, user: str, server: str, *groups: str) -> Path:
        pair = self.plane.authority.issue(user, groups=groups)
        path = self.folder / f"{name}.kubeconfig"
        return kubeconfig.write(path, server, self.plane.authority.path, kubeconfig.with_certificate(*pair))


def _short(cluster: str) -> Path:
    """Return a short way to the cluster's folder: the path of a unix socket has at most 107 bytes (unix(7))."""
    return Path("/run") / cluster


def _shims(cluster: str) -> list[int]:
    """Return the shims of a cluster's containerds: an argument of theirs is a socket in its folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                if arguments[0].endswith(b"containerd-shim-runc-v2") and any(
                    one.startswith(f"{_short(cluster)}/".encode()) for one in arguments
                ):
                    found.append(int(entry.name))
    return found


def _inside(container: str) -> list[int]:
    """Return the processes of a container."""
    pids: set[int] = set()
    for file in _CGROUPS.glob(f"*/k8s.io/{container}/cgroup.procs"):
        with suppress(OSError):
            pids |= {int(pid) for pid in file.read_text().split()}
    return sorted(pids)


def _mounts(folder: Path) -> list[str]:
    targets = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [target for target in reversed(targets) if target.startswith(f"{folder}/")]
