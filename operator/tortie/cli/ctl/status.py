"""`tortiectl status`: operator, agents, pools and problems on one screen."""

from datetime import UTC, datetime

import click

from tortie.cli.ctl.agents import is_ready
from tortie.cli.ctl.cluster import Cluster
from tortie.cli.ctl.ipam import POOLS, pool_row
from tortie.cli.ctl.output import OUTPUT, Column, dump, show
from tortie.cli.ctl.overview import Overview, gather, problems

PROBLEMS = (Column("where", "WHERE"), Column("what", "PROBLEM"), Column("remedy", "WHAT TO DO"))


@click.command("status")
@OUTPUT
@click.pass_obj
def command(cluster: Cluster, output: str) -> None:
    """Show operator, agents, pools, and each problem with what to do."""
    seen = cluster.ask(lambda client: gather(client, cluster.namespace))
    found = [problem._asdict() for problem in problems(seen, datetime.now(UTC))]
    parts, pools = summary(seen), [pool_row(pool) for pool in seen.pools]
    if output in ("json", "yaml"):
        dump({"parts": parts, "pools": pools, "problems": found}, output)
        return
    for name, said in parts.items():
        click.echo(f"{name + ':':10}{said}")
    click.echo()
    show(pools, POOLS, output, empty="no pools")
    click.echo()
    show(found, PROBLEMS, output, empty="no problems")


def summary(seen: Overview) -> dict[str, str]:
    """Return a line for each part."""
    operators, agents = (sum(map(is_ready, pods)) for pods in (seen.operators, seen.agents))
    owners = {block["spec"]["affinity"]["node"] for block in seen.blocks}
    used = sum(len((block.get("status") or {}).get("allocations") or ()) for block in seen.blocks)
    leader = f", {seen.leader} leads" if seen.leader else ", none leads"
    return {
        "operator": f"{operators} of {len(seen.operators)} ready{leader}",
        "agents": f"ready on {agents} of {len(seen.expected)} nodes",
        "blocks": f"{len(seen.blocks)} on {len(owners)} nodes, {used} addresses in use",
    }
