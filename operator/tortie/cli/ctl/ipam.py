"""`tortiectl ipam`: pools, blocks and addresses."""

from collections.abc import Iterable

import click

from tortie.addressing.allocator import address
from tortie.addressing.ranges import parse
from tortie.cli.ctl.agents import reports
from tortie.cli.ctl.check import check, release
from tortie.cli.ctl.cluster import Cluster, Object, list_all, ours
from tortie.cli.ctl.map import map_command
from tortie.cli.ctl.output import OUTPUT, Column, Row, show
from tortie.kube.client import Client

POOLS = (
    Column("pool", "POOL"), Column("cidr", "CIDR"), Column("size", "SIZE"), Column("used", "IN USE"), Column("free", "FREE"),
    Column("percent", "%"), Column("blocks", "BLOCKS", wide=True), Column("blockSize", "BLOCK SIZE", wide=True),
)  # fmt: skip
BLOCKS = (
    Column("block", "BLOCK"), Column("node", "NODE"), Column("pool", "POOL"), Column("size", "SIZE"), Column("used", "IN USE"),
    Column("free", "FREE"), Column("active", "ACTIVE", wide=True), Column("cede", "ASKED BACK", wide=True),
)  # fmt: skip
ADDRESS = (
    Column("ip", "IP"), Column("state", "STATE"), Column("pod", "POD"), Column("node", "NODE"), Column("since", "SINCE"),
    Column("container", "CONTAINER"), Column("block", "BLOCK", wide=True), Column("pool", "POOL", wide=True),
    Column("uid", "POD UID", wide=True),
)  # fmt: skip


@click.group("ipam")
def command() -> None:
    """Pools, blocks and addresses."""


command.add_command(check)
command.add_command(map_command)
command.add_command(release)


@command.command("show")
@click.option("--blocks", "by_block", is_flag=True, help="Each block, and the node that owns it.")
@click.option("--ip", help="Whose this address is.")
@OUTPUT
@click.pass_obj
def show_command(cluster: Cluster, ip: str | None, output: str, *, by_block: bool) -> None:
    """Show how full pools and blocks are, or whose an address is."""
    if ip is not None:
        try:
            text = str(address(ip))
        except ValueError as error:
            raise click.UsageError(f"--ip: {error}; write one such as 10.1.0.7") from error
        show([cluster.ask(lambda client: _found(client, cluster.namespace, text))], ADDRESS, output)
    elif by_block:
        show(map(block_row, cluster.ask(lambda client: list_all(client, ours("ipamblocks")))), BLOCKS, output)
    else:
        pools = cluster.ask(lambda client: list_all(client, ours("ippools")))
        show(map(pool_row, pools), POOLS, output, empty="no IPPool; kubectl apply -f docs/samples/ippool.yaml makes two")


def pool_row(pool: Object) -> Row:
    """Return what is said of a pool."""
    status = pool.get("status") or {}
    counts, blocks = status.get("addresses") or {}, status.get("blocks") or {}
    size, used = parse(pool["spec"]["cidr"]).size, counts.get("allocated", 0)
    return {
        "pool": pool["metadata"]["name"], "cidr": pool["spec"]["cidr"], "size": size, "used": used,
        "free": counts.get("available"), "percent": round(100 * used / size, 1), "blocks": blocks.get("assigned"),
        "blockSize": status.get("blockSize"),
    }  # fmt: skip


def block_row(block: Object) -> Row:
    """Return what is said of a block."""
    spec, status = block["spec"], block.get("status") or {}
    return {
        "block": spec["cidr"], "node": spec["affinity"]["node"], "pool": spec["pool"]["name"], "size": parse(spec["cidr"]).size,
        "used": len(status.get("allocations") or ()), "free": status.get("free"), "active": spec.get("active", False),
        "cede": spec.get("cede"),
    }  # fmt: skip


def whose(ip: str, blocks: Iterable[Object], pools: Iterable[Object]) -> Row:
    """Return what is published of an address."""
    one = address(ip)
    row: Row = dict.fromkeys((column.key for column in ADDRESS), None) | {"ip": ip}

    def holds(cidr: str) -> bool:
        return one.within(parse(cidr))

    pool = next((p for p in pools if holds(p["spec"]["cidr"])), None)
    inside = (b for b in blocks if holds(b["spec"]["cidr"]))
    block = next((b for b in inside if not any(map(holds, b["spec"].get("without") or ()))), None)
    if pool is None:
        return row | {"state": "in no pool"}
    row |= {"pool": pool["metadata"]["name"]}
    if block is None:
        return row | {"state": "in no block"}
    row |= {"block": block["spec"]["cidr"], "node": block["spec"]["affinity"]["node"]}
    for held in (block.get("status") or {}).get("allocations") or ():
        if address(held["address"]) == one:
            pod = f"{held['namespace']}/{held['pod']}" if held.get("pod") else None
            return row | {"state": "in use", "pod": pod, "since": held.get("since"), "uid": held.get("uid")}
    reserved = any(map(holds, block["spec"].get("reserved") or ()))
    return row | {"state": "reserved" if reserved else "free"}


async def _found(client: Client, namespace: str, ip: str) -> Row:
    row = whose(ip, await list_all(client, ours("ipamblocks")), await list_all(client, ours("ippools")))
    if row["state"] != "in use":
        return row
    (report,) = (await reports(client, namespace, [row["node"]])).values()
    held = report["allocations"] if not isinstance(report, str) else ()
    container = next((one["container"] for one in held if one["address"] == ip), None)
    return row | {"container": container}
