"""What an installation costs: seconds from `helm install` to pods that ping, an upgrade's lost packets, the image's size."""

import gzip
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.cluster import image
from tests.cluster.assets import find
from tests.cluster.cluster import Cluster, why_not
from tests.cluster.demo import pod, run_everywhere
from tests.cluster.deploy import rolled_out, wait
from tests.cluster.images import BUSYBOX

_PODS = 100


def _needs_root() -> None:
    if why := why_not():
        raise RuntimeError(why)


def install_and_upgrade() -> dict[str, float]:
    """Return seconds from `helm install` on three NotReady nodes to pods that ping each other, and an upgrade's losses."""
    _needs_root()
    with Cluster(3) as cluster:
        wait("pods can be made", lambda: bool(cluster.kubectl.get("serviceaccounts")["items"]))
        began = time.monotonic()
        cluster.install()
        cluster.kubectl.apply(*(pod(node.name) for node in cluster.nodes))
        wait("they run", lambda: run_everywhere(cluster.kubectl), 120)
        for one in cluster.kubectl.get("pods")["items"]:
            cluster.kubectl.run("exec", "pod-on-node-1", "--", "ping", "-c", "1", "-W", "5", one["status"]["podIP"])
        ready = time.monotonic() - began
        wait("it is rolled out", lambda: rolled_out(cluster.kubectl, 3), 60)
        return {"helm_install_to_ready": ready, "upgrade_packets_lost": _lost_in_upgrade(cluster)}


def _lost_in_upgrade(cluster: Cluster) -> float:
    target = cluster.kubectl.get("pod", "pod-on-node-2")["status"]["podIP"]
    kubectl = [str(find("kubectl")), "--kubeconfig", str(cluster.plane.kubeconfig)]
    command = ["exec", "pod-on-node-1", "--", "ping", "-i", "0.01", "-w", "600", target]
    with subprocess.Popen([*kubectl, *command], stdout=subprocess.PIPE, text=True) as pinging:
        cluster.install("agent.extraEnv[0].name=RELEASE", "operator.extraEnv[0].name=RELEASE")
        wait("it is rolled out", lambda: rolled_out(cluster.kubectl, 3), 120)
        cluster.kubectl.run("exec", "pod-on-node-1", "--", "killall", "-INT", "ping")
        said, _ = pinging.communicate(timeout=30)
    sent, received = map(int, re.findall(r"(\d+) packets", said))
    return float(sent - received)


def compressed() -> dict[str, float]:
    """Return the image's size in MB as a registry would hold it (gzip)."""
    _needs_root()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "image.tar.gz"
        with image.archive().open("rb") as source, gzip.open(target, "wb", compresslevel=6) as packed:
            shutil.copyfileobj(source, packed)
        return {"image_compressed": target.stat().st_size / 1e6}


def pods_over_host_network() -> dict[str, float]:
    """Return how much longer 100 pods on three nodes take to run than 100 with host networking, in the same run."""
    _needs_root()
    with Cluster(3) as cluster:
        cluster.install()
        wait("pods can be made", lambda: bool(cluster.kubectl.get("serviceaccounts")["items"]))
        _seconds_to_run(cluster, "warm", host=True)
        host = _seconds_to_run(cluster, "host", host=True)
        return {"pods_100_over_hostnetwork": _seconds_to_run(cluster, "own", host=False) / host}


def _seconds_to_run(cluster: Cluster, name: str, *, host: bool) -> float:
    container = {"name": "c", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "100000"]}
    spec: dict[str, Any] = {"hostNetwork": host, "terminationGracePeriodSeconds": 0, "containers": [container]}
    template = {"metadata": {"labels": {"app": name}}, "spec": spec}
    body = {"replicas": _PODS, "selector": {"matchLabels": {"app": name}}, "template": template}
    began = time.monotonic()
    cluster.kubectl.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": body})

    def ready() -> bool:
        return bool(cluster.kubectl.get("deployment", name)["status"].get("readyReplicas") == _PODS)

    wait("they run", ready, 300)
    taken = time.monotonic() - began
    cluster.kubectl.run("delete", "deployment", name, "--cascade=foreground", "--timeout=120s")
    wait("they are gone", lambda: not cluster.kubectl.get("pods", "-l", f"app={name}")["items"], 120)
    return taken
