"""`tortiectl ipam map`: whose the parts of a pool are, and how full, as a picture."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from tortie.addressing.allocator import address
from tortie.addressing.ranges import Range, parse, without
from tortie.cli.ctl import picture
from tortie.cli.ctl.cluster import Cluster, Object, list_all, ours
from tortie.cli.ctl.output import OUTPUT, Column, show, writable
from tortie.cli.ctl.picture import Owned
from tortie.kube.client import Client

CELLS = (Column("cidr", "CIDR"), Column("nodes", "NODES"), Column("used", "IN USE"), Column("size", "SIZE"))


class _Pool(NamedTuple):
    range: Range
    blocks: tuple[Owned, ...]
    reserved: tuple[Range, ...]


@click.command("map")
@click.argument("pool")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Write the picture there, for a browser.")
@OUTPUT
@click.pass_obj
def map_command(cluster: Cluster, pool: str, svg: Path | None, output: str) -> None:
    """Draw a POOL: a Hilbert curve through its addresses, each node in its colour, the darker the fuller.

    Only the part that has blocks is drawn; a cell is an address, or as many as it must be. `-o json` lists the cells.
    """
    if svg:
        writable(svg)
    found = cluster.ask(lambda client: _gather(client, pool))
    edge = picture.SVG_EDGE if svg else picture.TERMINAL_EDGE
    drawn = picture.paint(found.range, found.blocks, found.reserved, edge)
    nodes = sorted({block.node for block in found.blocks})
    used = sum(len(block.used) for block in found.blocks)
    title = f"{pool}: {drawn.shown} of {found.range}, {len(found.blocks)} blocks of {len(nodes)} nodes, {used} addresses in use"
    if svg:
        svg.write_text(picture.svg(drawn, title, nodes))
        click.echo(f"written to {svg}; open it in a browser", err=True)
    elif output == "table":
        click.echo(picture.text(drawn, title, nodes))
    else:
        rows = ({"cidr": str(c.range), "nodes": list(c.nodes), "used": c.used, "size": c.range.size} for c in drawn.cells)
        show(rows, CELLS, output)


async def _gather(client: Client, name: str) -> _Pool:
    pools = {pool["metadata"]["name"]: pool for pool in await list_all(client, ours("ippools"))}
    if name not in pools:
        raise click.UsageError(f"there is no IPPool {name!r}; there are {', '.join(sorted(pools)) or 'none'}")
    blocks = [b for b in await list_all(client, ours("ipamblocks")) if b["spec"]["pool"]["name"] == name]
    reservations = await list_all(client, ours("ipreservations"))
    whole = parse(pools[name]["spec"]["cidr"])
    reserved = (parse(cidr) for one in reservations for cidr in one["spec"].get("reservedCIDRs") or ())
    return _Pool(whole, tuple(part for block in blocks for part in _owned(block)), tuple(reserved))


def _owned(block: Object) -> Iterator[Owned]:
    used = [address(one["address"]) for one in (block.get("status") or {}).get("allocations") or ()]
    gone = tuple(map(parse, block["spec"].get("without") or ()))
    for part in without(parse(block["spec"]["cidr"]), gone):
        yield Owned(part, block["spec"]["affinity"]["node"], tuple(one.value for one in used if one.within(part)))
