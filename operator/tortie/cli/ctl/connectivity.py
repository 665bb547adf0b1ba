"""`tortiectl connectivity test`: pods on every node, and whether each path between them is open."""

from collections import Counter
from collections.abc import Iterable

import click

from tortie.cli.ctl.cluster import Cluster
from tortie.cli.ctl.output import FOUND, OUTPUT, Column, Row, show
from tortie.cli.ctl.paths import Asked, try_paths

SUMMARY = (
    Column("path", "PATH"), Column("family", "FAMILY"), Column("open", "OPEN"), Column("closed", "CLOSED"),
    Column("slowest", "SLOWEST MS"),
)  # fmt: skip
PATHS = (
    Column("path", "PATH"), Column("from", "FROM"), Column("to", "TO"), Column("address", "ADDRESS"), Column("ms", "MS"),
    Column("error", "ERROR"),
)  # fmt: skip
# More nodes than this are a matter of choice: the paths grow with their square.
_NODES = 10
# Above the ports that people choose for services, below those that the kernel takes for connections (32768).
_NODE_PORT = 18080


@click.group("connectivity")
def command() -> None:
    """Whether pods and nodes reach each other."""


@command.command("test")
@click.option("--nodes", default=_NODES, show_default=True, type=click.IntRange(0), help="At most so many nodes. 0: all.")
@click.option("--timeout", default=120.0, show_default=True, type=click.FloatRange(1), help="Seconds until the pods must run.")
@click.option("--image", help="Image with the tortie command. Default: that of the agents.")
@click.option(
    "--node-port", default=_NODE_PORT, show_default=True, type=click.IntRange(1024, 65535),
    help="TCP port on the nodes' own addresses, free on all of them, on which nodes are reached.",
)  # fmt: skip
@OUTPUT
@click.pass_obj
def run(cluster: Cluster, nodes: int, timeout: float, image: str | None, output: str, *, node_port: int) -> None:
    """Start pods on every node, try every path, show what is closed, and clean up.

    On each node two pods, and one in the host's network. From each to every other, by every family, to a Service, and to the
    API server. A path that is closed is tried twice. Everything is in a namespace of its own, which is deleted at the end,
    also after Ctrl-C. Exit status 3 when a path is closed.
    """
    asked = Asked(cluster.namespace, nodes, timeout, image, node_port)
    rows = cluster.ask(lambda client: try_paths(client, asked))
    if output == "table":
        show(summary(rows), SUMMARY, output)
        closed = [row for row in rows if row["error"]]
        if closed:
            click.echo("\nclosed:")
            show(closed, PATHS, output)
    else:
        show(rows, PATHS, output)
    if any(row["error"] for row in rows):
        raise SystemExit(FOUND)


def summary(rows: Iterable[Row]) -> list[Row]:
    """Return how many paths of each kind and family are open."""
    rows = list(rows)
    counts = Counter((row["path"], row["family"], not row["error"]) for row in rows)
    found = []
    for path, family in sorted({(row["path"], row["family"]) for row in rows}):
        times = [row["ms"] for row in rows if (row["path"], row["family"]) == (path, family) and row["ms"] is not None]
        opened, closed = counts[path, family, True], counts[path, family, False]
        found.append({"path": path, "family": family, "open": opened, "closed": closed, "slowest": max(times, default=None)})
    return found
