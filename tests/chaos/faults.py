"""Hurts a cluster's parts and mends them: killed as by a crash, stopped where they stand, cut off from the API server."""

import signal
import subprocess

from tests.chaos.containers import Container, containers
from tests.chaos.schedule import Step
from tests.cluster.cluster import Cluster


class Faults:
    """What is done to the parts of one cluster. Used by one thread."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._nodes = {node.name: node for node in cluster.nodes}
        self._down: set[str] = set()  # parts that were killed and aren't to run yet
        self._paused: dict[str, Container] = {}  # by target

    def do(self, step: Step) -> str:
        """Do one step; return what came of it, for people."""
        kind, _, which = step.target.partition("/")
        if kind == "link":
            return self._link(step.action, which)
        if kind in ("agent", "operator"):
            return self._container(step, kind, which)
        return self._part(step.action, f"{which}-{kind}" if which else kind)

    def restart_ended(self) -> list[str]:
        """Start what ended by itself again, as a machine's init would; return the names."""
        ended = [name for name, process in self._parts.items() if process.poll() is not None and name not in self._down]
        for name in ended:
            self._start(name)
        return ended

    @property
    def _parts(self) -> dict[str, subprocess.Popen[bytes]]:
        return self._cluster.plane.processes

    def _part(self, action: str, name: str) -> str:
        if action == "kill":
            self._down.add(name)
            self._parts[name].kill()
            self._parts[name].wait()
        elif action == "start":
            self._down.remove(name)
            self._start(name)
        else:
            self._parts[name].send_signal(signal.SIGSTOP if action == "pause" else signal.SIGCONT)
        return f"pid {self._parts[name].pid}"

    def _start(self, name: str) -> None:
        command = self._parts[name].args
        assert isinstance(command, list)
        self._cluster.start_part(name, command)

    def _container(self, step: Step, kind: str, which: str) -> str:
        if step.action == "resume":
            paused = self._paused.pop(step.target, None)
            return f"pid {paused.pid}" if paused and paused.send(signal.SIGCONT) else "it isn't there any more"
        nodes = [self._nodes[which]] if kind == "agent" else self._cluster.nodes
        running = [(node.name, one) for node in nodes for one in containers(node) if one.name == kind]
        if not running:
            return "none runs"
        node, one = running[0 if kind == "agent" else int(which) % len(running)]
        sent = one.send(signal.SIGKILL if step.action == "kill" else signal.SIGSTOP)
        if sent and step.action == "pause":
            self._paused[step.target] = one
        return f"{one.pod} on {node}, pid {one.pid}" + ("" if sent else ", which ended meanwhile")

    def _link(self, action: str, node: str) -> str:
        network, place = self._cluster.network, self._nodes[node].place
        (network.cut if action == "cut" else network.heal)(place)
        return f"{place.address4}, {place.address6}"
