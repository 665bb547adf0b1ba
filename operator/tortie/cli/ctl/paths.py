"""The pods of `tortiectl connectivity test`: started, tried from one to another, and removed again.

Belongs here: what is made in the cluster and what it answers. Does not: how that is shown.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import click

from tortie.cli.ctl.agents import each, is_ready, need_agents, pods_of
from tortie.cli.ctl.cluster import EVENTS, PODS, Object, list_path
from tortie.cli.ctl.output import Row
from tortie.kube.client import ApiError, Client, NotFound
from tortie.kube.exec import execute
from tortie.kube.resource import Resource

NAMESPACES = Resource("", "v1", "namespaces")
SERVICES = Resource("", "v1", "services", namespaced=True)
ACCOUNTS = Resource("", "v1", "serviceaccounts", namespaced=True)
PORT = 8080
# What runs on each node: two pods, so that one reaches another and not itself, and one in the host's network.
_KINDS = ("pod-a", "pod-b", "host")
_POLL = 0.5  # seconds between two looks at what starts
# In the container. Whether somebody answers on the port says nothing: that may be who has taken it.
_SERVES = "/tmp/tortie-serves"  # noqa: S108 - nobody else is in that container


class Asked(NamedTuple):
    """What a person asks for.

    Attributes:
        installed: Tortie's namespace.
        nodes: At most so many nodes. Zero: all.
        seconds: Until the pods must run.
        image: With the tortie command. None: the agents'.
        node_port: A TCP port that is free on every node.
    """

    installed: str
    nodes: int
    seconds: float
    image: str | None
    node_port: int


class Target(NamedTuple):
    """Something to reach: what it is for people, the pod that it is and its node ("": none), and how."""

    kind: str
    pod: str
    node: str
    address: str
    port: int = PORT

    @property
    def key(self) -> str:
        """The target as `tortie probe` takes it."""
        return f"{self.address}|{self.port}"


class _Deadline:
    """A moment so many seconds from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._end = seconds, asyncio.get_running_loop().time() + seconds

    @property
    def is_over(self) -> bool:
        return asyncio.get_running_loop().time() > self._end


async def try_paths(client: Client, asked: Asked) -> list[Row]:
    """Return what came of each path; raises ClickException where the pods can't be started."""
    agents = [pod for pod in await pods_of(client, asked.installed, "agent") if is_ready(pod)]
    need_agents(agents, asked.installed)
    nodes = sorted(agent["spec"]["nodeName"] for agent in agents)[: asked.nodes or None]
    container = agents[0]["spec"]["containers"][0]
    made = {"image": asked.image or container["image"], "imagePullPolicy": container.get("imagePullPolicy", "IfNotPresent")}
    deadline = _Deadline(asked.seconds)
    async with _namespace(client, deadline) as room:
        click.echo(f"starting pods on {len(nodes)} nodes in namespace {room}", err=True)
        for node in nodes:
            for kind in _KINDS:
                await client.create(PODS.path(namespace=room), _pod(kind, node, made, asked.node_port))
        await client.create(SERVICES.path(namespace=room), _service())
        pods = await _running(client, room, len(_KINDS) * len(nodes), deadline)
        targets = await _targets(client, room, pods, asked.node_port)
        click.echo(f"trying {len(targets)} targets from {len(pods)} pods", err=True)
        rows = await each(pods, lambda pod: _reach(client, pod, targets))
        await _serving_still(client, room, deadline)
    return [row for part in rows for row in part]


@asynccontextmanager
async def _namespace(client: Client, deadline: _Deadline) -> AsyncIterator[str]:
    """Make a namespace in which pods can be made, and delete it, however what is done there ends."""
    name = f"tortie-connectivity-{uuid.uuid4().hex[:6]}"
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}  # one pod of each node is in the host's network
    try:
        await client.create(NAMESPACES.path(), {"metadata": {"name": name, "labels": labels}})
        while not await list_path(client, ACCOUNTS.path(namespace=name)):
            if deadline.is_over:
                raise click.ClickException(
                    f"namespace {name} has no ServiceAccount after {deadline.seconds:g} s, so no pod can be made there:"
                    " does kube-controller-manager run?"
                )
            await asyncio.sleep(_POLL)
        yield name
    finally:
        await _remove(client, name)


async def _remove(client: Client, name: str) -> None:
    """Delete the namespace; what is in the way is said and not raised: it would hide what came before."""
    try:
        await client.delete(NAMESPACES.path(name))
    except NotFound:
        return  # it could not be made
    except ApiError as error:
        click.echo(f"namespace {name} is left: {error}; when that is mended: kubectl delete namespace {name}", err=True)
        return
    click.echo(f"namespace {name} is being deleted, with all that was started", err=True)


def _pod(kind: str, node: str, made: Mapping[str, Any], node_port: int) -> Object:
    port = node_port if kind == "host" else PORT
    unprivileged = {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsUser": 65532, "runAsNonRoot": True,
    }  # fmt: skip
    container = {
        "name": "probe", "command": ["tortie", "probe", "serve", "--port", str(port), "--ready-file", _SERVES],
        "readinessProbe": {"exec": {"command": ["cat", _SERVES]}, "periodSeconds": 1, "timeoutSeconds": 10},
        "securityContext": unprivileged,
        "terminationMessagePolicy": "FallbackToLogsOnError", **made,
    }  # fmt: skip
    spec = {
        "nodeName": node, "hostNetwork": kind == "host", "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False, "restartPolicy": "Never",
        "containers": [container],
    }  # fmt: skip
    name = f"{kind}-{uuid.uuid5(uuid.NAMESPACE_DNS, node).hex[:12]}"
    return {"metadata": {"name": name, "labels": {"tortie": kind.partition("-")[0]}}, "spec": spec}


def _service() -> Object:
    spec = {"selector": {"tortie": "pod"}, "ports": [{"port": PORT}], "ipFamilyPolicy": "PreferDualStack"}
    return {"metadata": {"name": "all"}, "spec": spec}


async def _running(client: Client, room: str, count: int, deadline: _Deadline) -> list[Object]:
    """Return the pods as soon as all serve; raises ClickException with what keeps the first that doesn't."""
    while True:
        pods = await list_path(client, PODS.path(namespace=room))
        late = [pod for pod in pods if not is_ready(pod)]
        if len(pods) == count and not late:
            return pods
        if _ended(pods) or deadline.is_over:
            raise click.ClickException(await _why(client, room, _ended(pods) or late, count, deadline))
        await asyncio.sleep(_POLL)


async def _serving_still(client: Client, room: str, deadline: _Deadline) -> None:
    """Raise ClickException with why a pod has ended, if one has: paths to it were closed by that, and not by the network."""
    pods = await list_path(client, PODS.path(namespace=room))
    if ended := _ended(pods):
        raise click.ClickException(await _why(client, room, ended, len(pods), deadline))


def _ended(pods: Iterable[Object]) -> list[Object]:
    return [pod for pod in pods if pod["status"].get("phase") in {"Failed", "Succeeded"}]


async def _why(client: Client, room: str, stuck: list[Object], count: int, deadline: _Deadline) -> str:
    if not stuck:
        return f"pods vanish from namespace {room}: does somebody delete them?"
    first = stuck[0]
    states = [one.get("state") or {} for one in first["status"].get("containerStatuses") or ()]
    ends = [_end(state["terminated"]) for state in states if "terminated" in state]
    events = await list_path(client, EVENTS.path(namespace=room))
    named = [one for one in events if one["involvedObject"].get("name") == first["metadata"]["name"]]
    said = [one["message"] for one in named if one["type"] == "Warning"]
    said += filter(None, [first["status"].get("message"), *ends])
    why = said[-1] if said else "no Event says why; kubectl describe it with a longer --timeout"
    port = "; another --node-port may be free" if first["spec"].get("hostNetwork") and ends else ""
    lasts = "have ended" if _ended([first]) else f"aren't ready after {deadline.seconds:g} s"
    return f"{len(stuck)} of {count} pods {lasts}; on node {first['spec']['nodeName']}: {why}{port}"


def _end(terminated: Object) -> str:
    """Return how a container ended: the last that it said, if it said anything."""
    said: str = terminated.get("message", "").strip()
    return said or f"{terminated.get('reason', 'ended')}, exit status {terminated['exitCode']}"


async def _targets(client: Client, room: str, pods: Iterable[Object], node_port: int) -> list[Target]:
    found = list[Target]()
    for pod in pods:
        kind, port = ("node", node_port) if pod["spec"].get("hostNetwork") else ("pod", PORT)
        name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
        found += (Target(kind, name, node, one["ip"], port) for one in pod["status"].get("podIPs") or ())
    service = json.loads(await client.get(SERVICES.path("all", namespace=room)))
    found += [Target("Service", "", "", address) for address in service["spec"]["clusterIPs"]]
    try:
        api = json.loads(await client.get(SERVICES.path("kubernetes", namespace="default")))
        port = api["spec"]["ports"][0]["port"]
        found += [Target("API server", "", "", one, port) for one in api["spec"]["clusterIPs"]]
    except NotFound:
        click.echo("there is no Service default/kubernetes, so the way to the API server isn't tried", err=True)
    return found


async def _reach(client: Client, pod: Object, targets: Iterable[Target]) -> list[Row]:
    meta, node, host = pod["metadata"], pod["spec"]["nodeName"], pod["spec"].get("hostNetwork", False)
    others = [target for target in targets if target.pod != meta["name"]]  # to itself is the loopback, and no path
    try:
        command = ["tortie", "probe", "reach", *(target.key for target in others)]
        said = json.loads(await execute(client, meta["namespace"], meta["name"], "probe", command))
    except (ApiError, ValueError) as error:
        said = dict.fromkeys((target.key for target in others), f"the probe could not be run: {error}")
    return [_row(node, target, said[target.key], host=host) for target in others]


def _row(node: str, target: Target, said: float | str, *, host: bool) -> Row:
    where = "" if not target.node else ", same node" if target.node == node else ", other node"
    failed = isinstance(said, str)
    return {
        "path": f"{'node' if host else 'pod'} to {target.kind}{where}", "family": "IPv6" if ":" in target.address else "IPv4",
        "from": node, "to": target.node or target.kind, "address": target.address, "port": target.port,
        "ms": None if failed else said, "error": said if failed else "",
    }  # fmt: skip
