"""`tortiectl version`: of this program, the operator and the agents."""

import click

from tortie import __version__
from tortie.cli.ctl.agents import each, is_ready, pods_of
from tortie.cli.ctl.cluster import Cluster, Object
from tortie.cli.ctl.output import OUTPUT, Column, Row, show
from tortie.kube.client import ApiError, Client
from tortie.kube.exec import execute

VERSIONS = (Column("part", "PART"), Column("version", "VERSION"), Column("where", "WHERE"), Column("image", "IMAGE", wide=True))


@click.command("version")
@click.option("--client", "only", is_flag=True, help="Of this program alone; no cluster is asked.")
@OUTPUT
@click.pass_obj
def command(cluster: Cluster, output: str, *, only: bool) -> None:
    """Say the versions of this program, the operator and the agents."""
    rows: list[Row] = [{"part": "tortiectl", "version": __version__, "where": "here", "image": None}]
    rows += [] if only else cluster.ask(lambda client: _installed(client, cluster.namespace))
    show(rows, VERSIONS, output)


async def _installed(client: Client, namespace: str) -> list[Row]:
    pods = [(part, pod) for part in ("operator", "agent") for pod in await pods_of(client, namespace, part)]
    if not pods:
        click.echo(f"no operator and no agent is in namespace {namespace}; -n names another namespace", err=True)
    return await each(pods, lambda found: _version(client, *found))


async def _version(client: Client, part: str, pod: Object) -> Row:
    meta, spec = pod["metadata"], pod["spec"]
    row: Row = {"part": part, "where": spec.get("nodeName"), "image": spec["containers"][0]["image"]}
    if not is_ready(pod):
        return row | {"version": "not ready"}
    try:
        said = await execute(client, meta["namespace"], meta["name"], part, ["tortie", "--version"])
    except ApiError as error:
        return row | {"version": f"unknown: {error.message}"}
    return row | {"version": said.decode().split()[-1]}
