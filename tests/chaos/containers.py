"""The containers that run on a node, as containerd and the kernel know them; and signals to them."""

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.cluster.node import Node

_CRI = "io.kubernetes.cri."


class Container(NamedTuple):
    """A container that runs. A pod's sandbox is one, without a name."""

    id: str
    name: str
    pod: str  # namespace/name
    uid: str
    pid: int

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to its first process; return whether it still was there."""
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)  # from here on nobody else gets its id
            try:
                if _is_of(self.pid, self.id):
                    signal.pidfd_send_signal(handle, number)
                    return True
            finally:
                os.close(handle)
        return False


def containers(node: Node) -> list[Container]:
    """Return the containers of a node's pods; one that comes or goes meanwhile may be left out."""
    found = []
    for folder in sorted(node.tasks.glob("*")):
        with suppress(FileNotFoundError, NotADirectoryError, ValueError):  # a file that is there and not written yet is no JSON
            said = json.loads((folder / "config.json").read_text())["annotations"]
            pid = int((folder / "init.pid").read_text())
            if _is_of(pid, folder.name):
                pod = f"{said[_CRI + 'sandbox-namespace']}/{said[_CRI + 'sandbox-name']}"
                uid = said[_CRI + "sandbox-uid"]
                found.append(Container(folder.name, said.get(_CRI + "container-name", ""), pod, uid, pid))
    return found


def _is_of(pid: int, container: str) -> bool:
    """Whether a process is of a container, by its cgroup: ids of processes are used again."""
    try:
        return container in Path(f"/proc/{pid}/cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
