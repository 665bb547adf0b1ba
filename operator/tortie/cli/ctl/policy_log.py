"""`tortiectl policy log`: what policies denied, on every node, as it happens."""

import asyncio
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import click

from tortie.api.meta import LOG_DENIALS
from tortie.api.policy_input import Pod
from tortie.cli.ctl.agents import agents, ask, each, need_agents
from tortie.cli.ctl.cluster import PODS, Cluster, list_lean
from tortie.cli.ctl.output import OUTPUT, Column, Row, dump, show
from tortie.cli.ctl.policy_objects import warn
from tortie.kube.client import ApiError, Client
from tortie.kube.resource import key_of

DENIALS = (
    Column("time", "TIME"), Column("node", "NODE"), Column("source", "FROM"), Column("target", "TO"), Column("port", "PORT"),
    Column("direction", "DIRECTION"), Column("policies", "DENIED BY"),
)  # fmt: skip
# Seconds between two rounds of questions: each question is a process on a node.
_ROUND = 2.0
# Seconds after which pods are listed again, where a name is asked for: of an address that a pod had, and of another one.
_LOOK, _LOOK_FOR_STRANGERS = 10.0, 60.0
_NOTHING = f"nothing was denied where it is logged; kubectl annotate networkpolicy NAME {LOG_DENIALS}=true lets it be"


@click.command("log")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is denied from now on, until Ctrl-C.")
@click.option("--node", help="Of this node alone.")
@OUTPUT
@click.pass_obj
def log(cluster: Cluster, *, follow: bool, node: str | None, output: str) -> None:
    """Show what policies denied lately: who, whom, on which port, and by which policies.

    Nodes say it of policies, and of the NetworkPolicies of namespaces, that have the annotation tortie.dev/log-denials=true;
    each node keeps the last thousand. Pods of other nodes are named as they are now. With -f, json is one object a line.
    """
    if follow and output == "yaml":
        raise click.UsageError("-o yaml can't be followed, as it has no end; use -o json")

    async def look(client: Client) -> list[Row]:
        return await Asker(client, cluster.namespace, node).kept()

    async def go_on(client: Client) -> None:
        await Asker(client, cluster.namespace, node).follow(output)

    if follow:
        with suppress(KeyboardInterrupt):
            cluster.ask(go_on)
        return
    rows = cluster.ask(look)
    if output in ("json", "yaml"):
        dump(rows, output)
    else:
        show(map(_shown, rows), DENIALS, output, empty=_NOTHING)


class _Place(NamedTuple):
    """Up to where an agent was asked: the agent's epoch, and the number of the last denial."""

    epoch: str = ""
    number: int = 0


class Asker:
    """Asks each agent for what it has that wasn't said yet; `only`: one node's."""

    def __init__(self, client: Client, namespace: str, only: str | None) -> None:
        self._client, self._namespace, self._only = client, namespace, only
        self._names = Names(client)
        self._places: dict[str, _Place] = {}  # by pod

    async def kept(self) -> list[Row]:
        """Return what is kept, oldest first."""
        found = await self._agents()
        need_agents(found, self._namespace)
        return await self._new(found)

    async def follow(self, output: str) -> None:
        """Print what is kept, and what comes, for ever; what an agent, or the API server, refuses is asked again."""
        found = await self._agents()
        need_agents(found, self._namespace)
        while True:
            try:
                for row in await self._new(found):
                    click.echo(json.dumps(row) if output == "json" else _line(row))
                sys.stdout.flush()
                await asyncio.sleep(_ROUND)
                found = await agents(self._client, self._namespace)
            except ApiError as error:
                warn(f"{error}; tried again in {_ROUND:g} s")
                await asyncio.sleep(_ROUND)

    async def _agents(self) -> dict[str, str]:
        found = await agents(self._client, self._namespace)
        if self._only is not None and self._only not in found:
            raise click.ClickException(f"no agent is ready on node {self._only}: tortiectl node status says more")
        return found

    async def _new(self, pods: Mapping[str, str]) -> list[Row]:
        """Return what agents, by node, have that is new, oldest first."""

        async def one(node: str) -> list[Row]:
            try:
                return await self._rows(node, pods[node])
            except (ApiError, ValueError) as error:
                warn(f"node {node}: {error}")
                return []

        nodes = [node for node in pods if self._only in (None, node)]
        return sorted((row for rows in await each(nodes, one) for row in rows), key=lambda row: str(row["time"]))

    async def _rows(self, node: str, pod: str) -> list[Row]:
        found, said = list[Row](), dict[str, Any](more=True)
        while said["more"]:
            place = self._places.get(pod, _Place())
            where = f"--epoch={place.epoch}", f"--number={place.number}"
            said = json.loads(await ask(self._client, self._namespace, pod, "denials", *where))
            if said["missed"]:
                warn(f"node {node}: {said['missed']} more were denied, at least, than it kept")
            for one in said["denials"]:
                for end, whose in (("from", "fromPod"), ("to", "toPod")):
                    one[whose] = one[whose] or await self._names.at(one[end])  # the agent knows its own pods
                found.append({"node": node, **one})
            self._places[pod] = _Place(said["epoch"], said["number"])
        return found


class Names:
    """Tells whose an address is now; pods are listed anew after a while, when somebody asks."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pods: dict[str, str] = {}
        self._listed = float("-inf")
        self._listing = asyncio.Lock()

    async def at(self, address: str) -> str | None:
        """Return the pod that has an address, as namespace/name; raises ApiError."""
        async with self._listing:
            now = asyncio.get_running_loop().time()
            # An address that no pod has is often one from outside, and asked about again and again.
            if now > self._listed + (_LOOK if address in self._pods else _LOOK_FOR_STRANGERS):
                pods = await list_lean(self._client, PODS.path(), Pod)
                own = (one for one in pods if not one.spec.host_network and one.status.phase not in ("Succeeded", "Failed"))
                self._pods = {
                    ip.ip: key_of(one.metadata.name, one.metadata.namespace) for one in own for ip in one.status.pod_ips
                }
                self._listed = now
        return self._pods.get(address)


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
