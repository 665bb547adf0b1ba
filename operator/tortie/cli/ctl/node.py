"""`tortiectl node`: what the agents know of their nodes."""

import json
from collections.abc import Iterable
from typing import Any

import click

from tortie.cli.ctl.agents import Report, ask, daemonset_of, left_out, pods_of, ready_on, reports
from tortie.cli.ctl.cluster import NODES, Cluster, Object, list_all, ours
from tortie.cli.ctl.output import OUTPUT, Column, Row, dump, show
from tortie.kube.client import Client

NODE = (
    Column("node", "NODE"), Column("agent", "AGENT"), Column("blocks", "BLOCKS"), Column("used", "IN USE"),
    Column("free", "FREE"), Column("published", "PUBLISHED"), Column("routes", "ROUTES"), Column("sessions", "BGP"),
    Column("addresses", "ADDRESSES"),
    Column("mtu", "MTU", wide=True), Column("links", "INTERFACES", wide=True), Column("problems", "PROBLEMS"),
)  # fmt: skip
BLOCKS = (
    Column("cidr", "BLOCK"), Column("pool", "POOL"), Column("active", "ACTIVE"), Column("used", "IN USE"),
    Column("free", "FREE"), Column("ceded", "GIVEN BACK"),
)  # fmt: skip
WAYS = (
    Column("block", "BLOCK"), Column("node", "NODE"), Column("carrier", "CARRIED BY"), Column("via", "VIA"),
    Column("kernel", "IN THE KERNEL"), Column("bird", "IN BIRD"), Column("problem", "PROBLEM"),
)  # fmt: skip
ROUTES = (Column("to", "ROUTE TO"), Column("via", "VIA"))
SESSIONS = (
    Column("of", "BGP SESSION WITH"), Column("peer", "PEER"), Column("as", "AS"), Column("state", "STATE"),
    Column("since", "SINCE"), Column("received", "ROUTES IN"), Column("sent", "ROUTES OUT"), Column("error", "WHY"),
)  # fmt: skip
PODS = (
    Column("address", "ADDRESS"), Column("namespace", "NAMESPACE"), Column("pod", "POD"), Column("since", "SINCE"),
    Column("host", "INTERFACE"), Column("container", "CONTAINER", wide=True), Column("uid", "POD UID", wide=True),
)  # fmt: skip


@click.group("node")
def command() -> None:
    """The nodes, as their agents know them."""


@command.command("status")
@click.argument("name", required=False)
@OUTPUT
@click.pass_obj
def status(cluster: Cluster, name: str | None, output: str) -> None:
    """Show each node's agent, blocks, routes and problems; of one node all of it."""
    said, published = cluster.ask(lambda client: _ask(client, cluster.namespace, name))
    rows = [node_row(node, report, published) for node, report in sorted(said.items())]
    if name is None:
        show(rows, NODE, output, empty="no nodes")
        return
    report = said[name]
    if output in ("json", "yaml"):
        dump(rows[0] if isinstance(report, str) else report, output)
        return
    show(rows, NODE, output)
    for columns, key in ((BLOCKS, "blocks"), (ROUTES, "routes"), (SESSIONS, "sessions"), (PODS, "allocations")):
        if not isinstance(report, str) and report.get(key):
            click.echo()
            show(report[key], columns, output)


@command.command("routes")
@click.argument("name")
@OUTPUT
@click.pass_obj
def routes(cluster: Cluster, name: str, output: str) -> None:
    """Show what carries a node's packets to each block of other nodes, and the kernel's own route beside it."""

    async def look(client: Client) -> list[Row]:
        pods = ready_on(await pods_of(client, cluster.namespace, "agent"))
        if name not in pods:
            raise click.UsageError(f"no agent is ready on node {name!r}; there is one on {', '.join(sorted(pods)) or 'none'}")
        found: list[Row] = json.loads(await ask(client, cluster.namespace, pods[name], "ways"))
        return found

    show(cluster.ask(look), WAYS, output, empty="there are no blocks of other nodes")


def node_row(node: str, report: Report | str, published: dict[str, Object]) -> Row:
    """Return what is said of one node."""
    row: Row = dict.fromkeys((column.key for column in NODE), None) | {"node": node}
    if isinstance(report, str):
        return row | {"agent": "silent", "problems": report}
    problems = list(report["problems"]) + ([] if report["canRecord"] else ["the ledger can't be written"])
    return row | {
        "agent": report["version"],
        "blocks": len(report["blocks"]),
        "used": len(report["allocations"]),
        "free": sum(block["free"] for block in report["blocks"]),
        "published": _published(report, published),
        "routes": len(report["routes"]),
        "sessions": _up(report.get("sessions") or ()),
        "addresses": report["addresses"],
        "mtu": report["mtu"],
        "links": len(report["links"]),
        "problems": "; ".join(problems),
    }


def _up(sessions: Iterable[dict[str, Any]]) -> str | None:
    """Return how many sessions are up; None where the node speaks no BGP."""
    states = [one["state"] == "Established" for one in sessions]
    return f"{sum(states)} of {len(states)} up" if states else None


def _published(report: Report, blocks: dict[str, Object]) -> str:
    """Return whether the blocks' statuses say what the ledger has."""
    held = {(one["address"], one["sequence"]) for one in report["allocations"]}
    statuses = (blocks.get(block["name"], {}).get("status") or {} for block in report["blocks"])
    said = {(one["address"], one["sequence"]) for status in statuses for one in status.get("allocations") or ()}
    behind = len(held ^ said)
    return f"{behind} behind" if behind else "all"


async def _ask(client: Client, namespace: str, name: str | None) -> tuple[dict[str, Report | str], dict[str, Any]]:
    names = [node["metadata"]["name"] for node in await list_all(client, NODES)]
    if name is not None and name not in names:
        raise click.UsageError(f"there is no node {name!r}; there are {', '.join(names) or 'none'}")
    blocks = {block["metadata"]["name"]: block for block in await list_all(client, ours("ipamblocks"))}
    pods = await pods_of(client, namespace, "agent")
    left = left_out(names, pods, await daemonset_of(client, namespace))
    wanted = [name] if name else [node for node in names if node not in left]
    return await reports(client, namespace, wanted, ready_on(pods)), blocks
