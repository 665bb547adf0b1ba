"""What is done with a control plane that runs: the chart installed, the operator started, conditions waited for."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster import processes
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubectl import Kubectl

ROOT = Path(__file__).parents[2]
NAMESPACE = "tortie-system"


def start_operator(plane: ControlPlane, *, options: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """Start `tortie operator` with the rights of its service account; it logs into the plane's folder."""
    kubeconfig = plane.kubeconfig_for_service_account(NAMESPACE, "tortie-operator")
    tortie = str(Path(sys.executable).parent / "tortie")
    command = [tortie, "operator", "--kubeconfig", str(kubeconfig), "--health-port", "0", *options]
    return processes.start(command, plane.log("operator"), detached=plane.detached)


def install(kubectl: Kubectl) -> None:
    """Install the chart without operator and agents: they run beside the cluster here."""
    helm(kubectl, "operator.replicas=0", "agent.enabled=false")


def helm(kubectl: Kubectl, *values: str) -> None:
    """Install or upgrade the chart as people do, with values set."""
    chart = str(ROOT / "helm" / "tortie")
    where = ("--namespace", NAMESPACE, "--create-namespace")
    kubectl.helm("upgrade", "--install", "tortie", chart, *where, *(part for value in values for part in ("--set", value)))
    # `kubectl wait` fails on a CRD so new that its list of conditions is null.
    wait("the CRDs are served", lambda: all(is_established(crd) for crd in kubectl.get("crd")["items"]))


def is_established(crd: dict[str, Any]) -> bool:
    """Whether the API server serves the kind."""
    conditions = crd.get("status", {}).get("conditions") or ()
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def rolled_out(kubectl: Kubectl, nodes: int) -> bool:
    """Whether operator and agents are those of the last release, and ready."""
    for part in ("deployment/tortie-operator", "daemonset/tortie-agent"):
        found = kubectl.get(part, "-n", NAMESPACE)
        status, wanted = found["status"], found["spec"].get("replicas", nodes)
        updated = status.get("updatedReplicas", status.get("updatedNumberScheduled"))
        ready = status.get("readyReplicas", status.get("numberReady"))
        if status.get("observedGeneration") != found["metadata"]["generation"] or not updated == ready == wanted:
            return False
    return True


def wait(what: str, holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """Return when `holds` does; raises TimeoutError that names `what`."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)
