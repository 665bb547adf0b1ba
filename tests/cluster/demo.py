"""`make demo`: a pool becomes blocks on nodes, on a real API server, with exactly the rights that the chart grants.

`python -m tests.cluster.demo [--keep]`; `--down` ends what `--keep` left running.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster import processes
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubectl import Kubectl
from tests.cluster.terminal import run, say

ROOT = Path(__file__).parents[2]
STATE = ROOT / ".demo"
NAMESPACE = "tortie-system"
NODES = ("node-1", "node-2", "node-3")


def start_operator(plane: ControlPlane, *, options: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """Start `tortie operator` with the rights of its service account; it logs into the plane's folder."""
    kubeconfig = plane.kubeconfig_for_service_account(NAMESPACE, "tortie-operator")
    tortie = str(Path(sys.executable).parent / "tortie")
    command = [tortie, "operator", "--kubeconfig", str(kubeconfig), "--health-port", "0", *options]
    return processes.start(command, plane.log("operator"), detached=plane.detached)


def install(kubectl: Kubectl) -> None:
    """Install the chart; its Deployment has no replicas, because the operator runs beside the cluster here."""
    chart = str(ROOT / "helm" / "tortie")
    where = ("--namespace", NAMESPACE, "--create-namespace")
    kubectl.helm("upgrade", "--install", "tortie", chart, *where, "--set", "operator.replicas=0")
    # `kubectl wait` fails on a CRD so new that its list of conditions is null.
    wait("the CRDs are served", lambda: all(is_established(crd) for crd in kubectl.get("crd")["items"]))


def is_established(crd: dict[str, Any]) -> bool:
    """Whether the API server serves the kind."""
    conditions = crd.get("status", {}).get("conditions") or ()
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def wait(what: str, holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """Return when `holds` does; raises TimeoutError that names `what`."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)


def show(kubectl: Kubectl) -> None:
    """Print what a person would look at."""
    for arguments in (
        ("get", "ippools", "-o", "wide"),
        ("get", "ipamblocks"),
        ("describe", "ippool", "default-ipv4-ippool"),
    ):
        print(f"\n$ kubectl {' '.join(arguments)}", flush=True)
        print(kubectl.run(*arguments), end="", flush=True)


def settled(kubectl: Kubectl) -> bool:
    """Whether every node has an active block of both pools and the pools' status says so."""
    blocks = kubectl.get("ipamblocks")["items"]
    pools = kubectl.get("ippools")["items"]
    counts = [p.get("status", {}).get("blocks", {}).get("assigned") for p in pools]
    return sum(b["spec"]["active"] for b in blocks) == 2 * len(NODES) and counts == [len(NODES)] * 2


def play(plane: ControlPlane) -> None:
    """Do the demo on a control plane that runs."""
    kubectl = Kubectl(plane.kubeconfig)
    say("installing the chart")
    install(kubectl)
    say("starting the operator with the rights of its service account")
    operator = start_operator(plane)
    try:
        say("applying docs/samples/ippool.yaml and three nodes")
        kubectl.run("apply", "-f", str(ROOT / "docs" / "samples" / "ippool.yaml"))
        kubectl.apply(*({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}} for name in NODES))
        wait("every node has its blocks", lambda: settled(kubectl))
        show(kubectl)
    except Exception:
        print(plane.log("operator").read_text()[-3000:], file=sys.stderr)
        raise
    finally:
        if not plane.detached:
            operator.kill()
            operator.wait()


def main() -> None:
    """Run one of the three forms."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.demo", description=__doc__)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--keep", action="store_true", help="leave everything running")
    form.add_argument("--down", action="store_true", help="end what --keep left running")
    parser.add_argument("--folder", type=Path, default=STATE, help="where it is kept; default: .demo")
    arguments = parser.parse_args()
    if arguments.down or arguments.keep:
        ControlPlane.end(arguments.folder)
    if arguments.down:
        say("nothing of the demo is left")
        return
    say("starting etcd, kube-apiserver and kube-controller-manager")
    folder = arguments.folder if arguments.keep else None
    with ControlPlane(controllers=True, folder=folder, detached=arguments.keep) as plane:
        play(plane)
    if arguments.keep:
        print(f"\nmake demo-down ends it\nexport KUBECONFIG={plane.kubeconfig}")
    else:
        say("done; nothing is left running. KEEP=1 keeps it.")


if __name__ == "__main__":
    run(main)
