"""Who there is: nine pods in three namespaces on two nodes, and what makes them; as often as there are worlds.

Worlds are alike and know nothing of each other, so that as many rows hold at once: a row says `x/a`, and in world 2 that is
the pod `a` of the namespace `x-2`. Labels are the same in all.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

from tests.cluster.images import BUSYBOX

Object = dict[str, Any]

SPACES, PODS, NODES = ("x", "y", "z"), ("a", "b", "c"), ("n1", "n2")
NAMES = tuple(f"{space}/{pod}" for space, pod in product(SPACES, PODS))
ZONES = {"n1": "east", "n2": "west"}
# Outside the cluster; RFC 5737 and RFC 3849.
OUTSIDE = {"far": ("192.0.2.1", "2001:db8:1::1"), "near": ("198.51.100.1", "2001:db8:2::1")}
# Each pod calls ports so. Pods c have none.
NAMED = {
    "a": (("web", 80, "TCP"), ("dns", 80, "UDP"), ("telephone", 80, "SCTP")),
    "b": (("web", 81, "TCP"), ("dns", 81, "UDP")),
    "c": (),
}
# Pods that have a service, of port 8080 and of a port of each node; it leads to their port 80.
SERVED = ("x/a", "x/b")
SERVICE_PORT = 8080


def home(pod: str) -> str:
    """Return a pod's node: each namespace has pods on both."""
    space, _, name = pod.partition("/")
    return NODES[(SPACES.index(space) + PODS.index(name)) % 2]


def spelt(pod: str, world: int) -> tuple[str, str]:
    """Return namespace and name of a pod in a world."""
    space, _, name = pod.partition("/")
    return f"{space}-{world}", name


def everybody(world: int) -> Iterator[Object]:
    """Yield what a world is made of."""
    for space in SPACES:
        labels = {"ns": space, "world": f"{world}"}
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"{space}-{world}", "labels": labels}}
    for pod in NAMES:
        yield pod_of(pod, world)
    for pod in SERVED:
        yield _service(pod, world)


def pod_of(pod: str, world: int) -> Object:
    """Return a pod."""
    namespace, name = spelt(pod, world)
    ports = [{"name": called, "containerPort": port, "protocol": protocol} for called, port, protocol in NAMED[name]]
    container = {
        "name": "c", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "1000000"], "ports": ports,
    }  # fmt: skip
    node = home(pod).replace("n", "node-")
    spec = {
        "nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container], "automountServiceAccountToken": False,
    }  # fmt: skip
    meta = {"namespace": namespace, "name": name, "labels": {"pod": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def _service(pod: str, world: int) -> Object:
    namespace, name = spelt(pod, world)
    ports = [
        {"name": protocol.lower(), "protocol": protocol, "port": SERVICE_PORT, "targetPort": 80} for protocol in ("TCP", "UDP")
    ]
    spec = {"type": "NodePort", "selector": {"pod": name}, "ports": ports, "ipFamilyPolicy": "RequireDualStack"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name}, "spec": spec}
