"""`python -m tests.cluster start [--controllers | --nodes 3]` starts a cluster that goes on running; `stop` ends it.

Without nodes it is a control plane alone, and needs no root.
"""

import argparse
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.components import ADMIN
from tests.cluster.control_plane import ControlPlane
from tests.cluster.node import ctr
from tests.cluster.processes import recorded
from tests.cluster.terminal import Foreseen, run, say

STATE = Path(__file__).parent / ".running"


def start(folder: Path, *, controllers: bool, nodes: int, subnets: int) -> None:
    """Start a cluster in a folder unless one runs there, and print how to reach it."""
    if any(process.runs for process in recorded(folder)):
        say("it runs already; `python -m tests.cluster stop` ends it")
        print(f"export KUBECONFIG={(folder / ADMIN).absolute()}")
        return
    Cluster.end(folder)  # what a reboot left
    if nodes:
        say(f"starting a control plane and {nodes} nodes in network namespaces, in {subnets} subnets")
        with Cluster(nodes, subnets=subnets, folder=folder, detached=True) as cluster:
            say("installing the chart, applying docs/samples/ippool.yaml")
            kubeconfig = cluster.install().plane.kubeconfig
    else:
        with ControlPlane(controllers=controllers, folder=folder, detached=True) as plane:
            kubeconfig = plane.kubeconfig
    say("it runs; `python -m tests.cluster stop` ends it")
    print(f"export KUBECONFIG={kubeconfig}")


def load(folder: Path, archive: Path) -> None:
    """Bring an archive of images to every node."""
    nodes = sorted(folder.glob("node-*/containerd.sock"))
    if not nodes:
        raise Foreseen(f"no cluster with nodes runs in {folder}: make cluster NODES=3")
    for socket in nodes:
        ctr(socket, "images", "import", str(archive))
        say(f"{archive} is on {socket.parent.name}")


def main() -> None:
    """Start or stop."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("action", choices=("start", "stop", "load"))
    parser.add_argument(
        "archive", type=Path, nargs="?", help="load: the images to bring to every node of the cluster that runs"
    )
    parser.add_argument("--controllers", action="store_true", help="start kube-controller-manager too")
    parser.add_argument("--nodes", type=int, default=0, help="nodes that run pods; default: none")
    parser.add_argument("--subnets", type=int, default=1, help="subnets that they are in; default: %(default)s")
    parser.add_argument("--folder", type=Path, default=STATE, help="where it is kept; default: %(default)s")
    arguments = parser.parse_args()
    if arguments.action == "start":
        start(arguments.folder, controllers=arguments.controllers, nodes=arguments.nodes, subnets=arguments.subnets)
    elif arguments.action == "load":
        load(arguments.folder, arguments.archive or parser.error("load: which archive?"))
    else:
        Cluster.end(arguments.folder)
        say("no cluster runs")


if __name__ == "__main__":
    run(main)
