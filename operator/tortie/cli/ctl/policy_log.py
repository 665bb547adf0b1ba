"""`tortiectl policy log`: what policies denied, on every node, as it happens."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import click

from tortie.api.meta import LOG_DENIALS
from tortie.api.policy_input import Pod
from tortie.cli.ctl.agents import agents, ask, each, need_agents
from tortie.cli.ctl.cluster import PODS, Cluster, list_lean
from tortie.cli.ctl.output import OUTPUT, Column, Row, dump, show
from tortie.cli.ctl.policy_objects import warn
from tortie.kube.client import ApiError, Client
from tortie.policy.world import PodKey

DENIALS = (
    Column("time", "TIME"), Column("node", "NODE"), Column("source", "FROM"), Column("target", "TO"), Column("port", "PORT"),
    Column("direction", "DIRECTION"), Column("policies", "DENIED BY"),
)  # fmt: skip
# Seconds that an agent waits for the next denial before it answers that there was none.
_WAIT = 20.0
# Seconds: until an agent that doesn't answer is asked again, and between two looks for agents and pods that are new.
_AGAIN = 5.0
_LOOK = 10.0
_NOTHING = f"nothing was denied where it is logged; kubectl annotate networkpolicy NAME {LOG_DENIALS}=true lets it be"


@click.command("log")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is denied from now on, until Ctrl-C.")
@click.option("--node", help="Of this node alone.")
@OUTPUT
@click.pass_obj
def log(cluster: Cluster, *, follow: bool, node: str | None, output: str) -> None:
    """Show what policies denied lately: who, whom, on which port, and by which policies.

    Nodes say it of policies, and of the NetworkPolicies of namespaces, that have the annotation tortie.dev/log-denials=true;
    each node keeps the last thousand, and says ten a second of each policy. With -f, json is one object a line.
    """

    async def look(client: Client) -> list[Row]:
        return await Following(client, cluster.namespace, node).once()

    async def go_on(client: Client) -> None:
        await Following(client, cluster.namespace, node).run(output)

    if follow:
        if output == "yaml":
            raise click.UsageError("-o yaml can't be followed, as it has no end; use -o json")
        try:
            cluster.ask(go_on)
        except KeyboardInterrupt:
            return
    rows = cluster.ask(look)
    if output in ("json", "yaml"):
        dump(rows, output)
    else:
        show(map(_shown, rows), DENIALS, output, empty=_NOTHING)


class Following:
    """Asks each agent for what it has; `only`: one node's."""

    def __init__(self, client: Client, namespace: str, only: str | None) -> None:
        self._client, self._namespace, self._only = client, namespace, only
        self._pods: Mapping[str, PodKey] = {}
        self._looked = float("-inf")

    async def once(self) -> list[Row]:
        """Return what is kept, oldest first."""
        found = await self._agents()
        need_agents(found, self._namespace)

        async def one(node: str) -> list[Row]:
            try:
                return await self._rows(node, json.loads(await self._ask(found[node])))
            except (ApiError, ValueError) as error:
                warn(f"node {node}: {error}")
                return []

        return sorted((row for rows in await each(found, one) for row in rows), key=lambda row: str(row["time"]))

    async def run(self, output: str) -> None:
        """Print what is kept, and what comes, for ever; agents that come are asked, too."""
        asked: dict[str, asyncio.Task[None]] = {}
        need_agents(await self._agents(), self._namespace)
        async with asyncio.TaskGroup() as tasks:
            while True:
                for node, pod in (await self._agents()).items():
                    if pod not in asked or asked[pod].done():
                        asked[pod] = tasks.create_task(self._follow(node, pod, output))
                await asyncio.sleep(_LOOK)

    async def _follow(self, node: str, pod: str, output: str) -> None:
        """Print what an agent says, until it doesn't answer."""
        epoch, number = "", 0
        while True:
            try:
                said = json.loads(await self._ask(pod, f"--epoch={epoch}", f"--number={number}", f"--seconds={_WAIT:g}"))
            except (ApiError, ValueError) as error:
                warn(f"node {node}: {error}; asked again soon")
                await asyncio.sleep(_AGAIN)
                return
            if said["missed"]:
                warn(f"node {node}: {said['missed']} more were denied than it kept")
            for row in await self._rows(node, said):
                click.echo(json.dumps(row) if output == "json" else _line(row))
            epoch, number = said["epoch"], said["number"]

    async def _ask(self, pod: str, *options: str) -> bytes:
        return await ask(self._client, self._namespace, pod, "denials", *options)

    async def _agents(self) -> dict[str, str]:
        found = await agents(self._client, self._namespace)
        if self._only is not None and self._only not in found:
            raise click.ClickException(f"no agent is ready on node {self._only}: tortiectl node status says more")
        return {node: pod for node, pod in found.items() if self._only in (None, node)}

    async def _rows(self, node: str, said: Mapping[str, Any]) -> list[Row]:
        """Return an agent's denials, with the names of other nodes' pods, which it doesn't know."""
        for one in said["denials"]:
            for end, pod in (("from", "fromPod"), ("to", "toPod")):
                one[pod] = one[pod] or await self._pod_at(one[end])
        return [{"node": node, **one} for one in said["denials"]]

    async def _pod_at(self, address: str) -> str | None:
        now = asyncio.get_running_loop().time()
        if address not in self._pods and now > self._looked + _LOOK:
            self._looked = now
            pods = await list_lean(self._client, PODS.path(), Pod)
            of_nodes = (one for one in pods if not one.spec.host_network and one.status.phase not in ("Succeeded", "Failed"))
            self._pods = {ip.ip: (one.metadata.namespace, one.metadata.name) for one in of_nodes for ip in one.status.pod_ips}
        return "/".join(self._pods[address]) if address in self._pods else None


def _shown(row: Row) -> Row:
    port = f"{row['port']}/{row['protocol']}" if row["port"] is not None else row["protocol"]
    source, target = (row["fromPod"] or row["from"]), (row["toPod"] or row["to"])
    return row | {"source": source, "target": target, "port": port}


def _line(row: Row) -> str:
    shown = _shown(row)
    return "  ".join([
        shown["time"], shown["node"], f"{shown['source']} -> {shown['target']} {shown['port']}",
        f"({shown['direction'] or '?'})", ", ".join(shown["policies"]) or "a policy that is no more",
    ])  # fmt: skip
