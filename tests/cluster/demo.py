"""`make demo`: a pool becomes blocks on nodes, and pods on three nodes reach each other with addresses of them.

Everything is real: API server, kubelets, containerd, the kernel's namespaces; operator and agents have exactly the rights
that the chart grants. Without root there are no nodes to run pods on, and it ends with the blocks.
`python -m tests.cluster.demo [--keep]`; `--down` ends what `--keep` left running.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster, why_not
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import ROOT, install, start_operator, wait
from tests.cluster.images import BUSYBOX
from tests.cluster.kubectl import Kubectl, Refused
from tests.cluster.terminal import run, say

STATE = ROOT / ".demo"
NODES = ("node-1", "node-2", "node-3")


def show(kubectl: Kubectl, *what: str) -> None:
    """Print what a person would look at."""
    for arguments in (line.split() for line in what):
        print(f"\n$ kubectl {' '.join(arguments)}", flush=True)
        print(kubectl.run(*arguments), end="", flush=True)


def settled(kubectl: Kubectl) -> bool:
    """Whether every node has an active block of both pools and the pools' status says so."""
    blocks = kubectl.get("ipamblocks")["items"]
    pools = kubectl.get("ippools")["items"]
    counts = [p.get("status", {}).get("blocks", {}).get("assigned") for p in pools]
    return sum(b["spec"]["active"] for b in blocks) == 2 * len(NODES) and counts == [len(NODES)] * 2


def play_blocks(plane: ControlPlane) -> None:
    """Show pools and blocks on a control plane whose nodes are only names."""
    kubectl = Kubectl(plane.kubeconfig)
    say("installing the chart")
    install(kubectl)
    say("starting the operator with the rights of its service account")
    plane.processes["operator"] = start_operator(plane)
    say("applying docs/samples/ippool.yaml and three nodes")
    kubectl.run("apply", "-f", str(ROOT / "docs" / "samples" / "ippool.yaml"))
    kubectl.apply(*({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}} for name in NODES))
    wait("every node has its blocks", lambda: settled(kubectl))
    show(kubectl, "get ippools -o wide", "get ipamblocks", "describe ippool default-ipv4-ippool")


def pod(node: str) -> dict[str, Any]:
    """Return a pod on a node."""
    container = {"name": "shell", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "1000000"]}
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-on-{node}"}, "spec": spec}


def run_everywhere(kubectl: Kubectl) -> bool:
    """Whether every pod runs, and answers an exec: its kubelet has its certificate."""
    pods = kubectl.get("pods")["items"]
    if any(one["status"]["phase"] != "Running" for one in pods):
        return False
    try:
        return all(kubectl.run("exec", one["metadata"]["name"], "--", "true") == "" for one in pods)
    except Refused:
        return False


def play_pods(cluster: Cluster) -> None:
    """Show pools, blocks, and pods that reach each other."""
    kubectl = cluster.kubectl
    say("installing the chart, applying docs/samples/ippool.yaml")
    cluster.install()
    wait("every node has its blocks", lambda: settled(kubectl))
    say("starting a pod on each node")
    wait("pods can be made", lambda: bool(kubectl.get("serviceaccounts")["items"]))
    kubectl.apply(*(pod(name) for name in NODES))
    wait("the pods run", lambda: run_everywhere(kubectl), 60)
    show(
        kubectl, "get ippools -o wide", "get ipamblocks", "describe ippool default-ipv4-ippool", "get nodes -o wide",
        "get pods -o wide",
    )  # fmt: skip
    for one in kubectl.get("pods")["items"][1:]:
        for address in one["status"]["podIPs"]:
            show(kubectl, f"exec pod-on-node-1 -- ping -c 1 {address['ip']}")


def play(folder: Path | None, *, keep: bool) -> ControlPlane:
    """Do the demo as far as this machine allows."""
    if why := why_not():
        say(f"{why}; so the nodes are only names here, and there are no pods")
        say("starting etcd, kube-apiserver and kube-controller-manager")
        with ControlPlane(controllers=True, folder=folder, detached=keep) as plane:
            play_blocks(plane)
            return plane
    say("starting a control plane and three nodes in network namespaces")
    with Cluster(len(NODES), folder=folder, detached=keep) as cluster:
        play_pods(cluster)
        return cluster.plane


def main() -> None:
    """Run one of the three forms."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.demo", description=__doc__)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--keep", action="store_true", help="leave everything running")
    form.add_argument("--down", action="store_true", help="end what --keep left running")
    parser.add_argument("--folder", type=Path, default=STATE, help="where it is kept; default: .demo")
    arguments = parser.parse_args()
    if arguments.down or arguments.keep:
        Cluster.end(arguments.folder)
    if arguments.down:
        say("nothing of the demo is left")
        return
    plane = play(arguments.folder if arguments.keep else None, keep=arguments.keep)
    if arguments.keep:
        print(f"\nmake demo-down ends it\nexport KUBECONFIG={plane.kubeconfig}")
    else:
        say("done; nothing is left running. KEEP=1 keeps it.")
    sys.stdout.flush()


if __name__ == "__main__":
    run(main)
