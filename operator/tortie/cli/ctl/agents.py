"""The agents: where each runs, and what it answers to a question, by exec in its pod."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from tortie.cli.ctl.cluster import DAEMONSETS, PODS, Object, list_path
from tortie.kube.client import ApiError, Client
from tortie.kube.exec import execute

COMPONENT = "app.kubernetes.io/name=tortie,app.kubernetes.io/component="
# Asked at once: each is a process in a container of the node that is asked, and a connection of the API server's.
_AT_ONCE = 16

T = TypeVar("T")
R = TypeVar("R")
Report = dict[str, Any]


async def pods_of(client: Client, namespace: str, component: str) -> list[Object]:
    """Return the pods of a part: `agent` or `operator`."""
    return await list_path(client, PODS.path(namespace=namespace), labelSelector=COMPONENT + component)


async def agents(client: Client, namespace: str) -> dict[str, str]:
    """Return the name of each node's agent pod, of those that run."""
    found = await pods_of(client, namespace, "agent")
    return ready_on(found)


def ready_on(pods: Iterable[Object]) -> dict[str, str]:
    """Return the name of each node's agent pod, of those that are ready."""
    return {pod["spec"]["nodeName"]: pod["metadata"]["name"] for pod in pods if is_ready(pod)}


def need_agents(known: Sequence[Any] | dict[str, str], namespace: str) -> None:
    """Raise ClickException where no agent was found."""
    if not known:
        raise click.ClickException(
            f"no agent is ready in namespace {namespace}: tortiectl status says more; -n names another namespace"
        )


def left_out(nodes: Iterable[str], agents: Iterable[Object], daemonset: Object | None) -> set[str]:
    """Return the nodes that the DaemonSet doesn't mean (its nodeSelector, their taints): no agent is missed there.

    Whom it means its controller knows: when there are as many agents as it wants, the other nodes are none of its.
    """
    served = {agent["spec"].get("nodeName") or "" for agent in agents} - {""}
    wanted = ((daemonset or {}).get("status") or {}).get("desiredNumberScheduled")
    return set(nodes) - served if wanted and len(served) >= wanted else set()  # 0 is said before it has counted


def is_ready(pod: Object) -> bool:
    """Whether a pod is Ready, and isn't on its way out."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return "deletionTimestamp" not in pod["metadata"] and any(
        one["type"] == "Ready" and one["status"] == "True" for one in conditions
    )


async def ask(client: Client, namespace: str, pod: str, *question: str) -> bytes:
    """Return what `tortie ask …` prints in an agent's pod; raises ApiError."""
    return await execute(client, namespace, pod, "agent", ["tortie", "ask", *question])


async def daemonset_of(client: Client, namespace: str) -> Object | None:
    """Return the agents' DaemonSet; raises ApiError."""
    found = await list_path(client, DAEMONSETS.path(namespace=namespace), labelSelector=COMPONENT + "agent")
    return found[0] if found else None


async def reports(
    client: Client, namespace: str, nodes: Iterable[str], known: dict[str, str] | None = None
) -> dict[str, Report | str]:
    """Return each node's report, or why there is none. `known` are the ready agents, where they were looked for already."""
    pods = await agents(client, namespace) if known is None else known

    async def one(node: str) -> Report | str:
        if node not in pods:
            return "no agent runs there that is ready"
        try:
            report: Report = json.loads(await ask(client, namespace, pods[node], "report"))
        except (ApiError, ValueError) as error:
            return str(error)
        return report

    names = list(nodes)
    return dict(zip(names, await each(names, one), strict=True))


async def each(things: Iterable[T], work: Callable[[T], Awaitable[R]]) -> list[R]:
    """Return what the work makes of each thing, a few of them at once: each is a command run on a node."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(thing: T) -> R:
        async with room:
            return await work(thing)

    return list(await asyncio.gather(*map(one, things)))
