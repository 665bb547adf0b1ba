"""`tortiectl policy status`: is it enforced yet?"""

import asyncio
from collections.abc import Awaitable, Callable

import click

from tortie.api.compiled import NodePolicy, RuleSet
from tortie.cli.ctl.cluster import Cluster, list_lean, ours
from tortie.cli.ctl.output import FOUND, OUTPUT, Column, Row, dump, show
from tortie.cli.ctl.policy_objects import gather
from tortie.kube.client import Client
from tortie.policy.progress import Progress, Written, progress
from tortie.policy.world import Objects, PolicyKey

POLICIES = (
    Column("policy", "POLICY"), Column("nodes", "NODES"), Column("enforced", "ENFORCED"), Column("since", "SINCE"),
)  # fmt: skip
MISSING = (Column("policy", "POLICY"), Column("node", "NODE"), Column("why", "WHY"))
# Seconds between two looks.
_POLL = 1.0


@click.command("status")
@click.argument("policy", required=False, metavar="[NAMESPACE/]NAME")
@click.option("--wait", is_flag=True, help="Wait until it is enforced wherever it should be.")
@click.option("--timeout", type=click.FloatRange(0), default=300, show_default=True, help="Seconds that --wait waits at most.")
@OUTPUT
@click.pass_obj
def status(cluster: Cluster, *, policy: str | None, wait: bool, timeout: float, output: str) -> None:
    """Show on how many of the nodes that it concerns a policy is enforced, since when, who is missing and why.

    NAMESPACE/NAME is a NetworkPolicy, NAME a ClusterNetworkPolicy; without one, all of them. Exit status 3: a node is missing.
    """

    async def look(client: Client) -> list[Progress]:
        return await _look(client, policy)

    async def until_enforced(client: Client) -> list[Progress]:
        return await _until_enforced(lambda: look(client), timeout)

    found = cluster.ask(until_enforced if wait else look)
    if output in ("json", "yaml"):
        dump([_row(one) | {"missing": [node._asdict() for node in one.missing]} for one in found], output)
    else:
        show(map(_row, found), POLICIES, output, empty="there are no policies")
        missing = [{"policy": one.policy, **node._asdict()} for one in found for node in one.missing]
        if missing:
            click.echo()
            show(missing, MISSING, output)
    if any(one.missing for one in found):
        raise SystemExit(FOUND)


async def _until_enforced(look: Callable[[], Awaitable[list[Progress]]], timeout: float) -> list[Progress]:  # noqa: ASYNC109
    end = asyncio.get_running_loop().time() + timeout
    while True:
        found = await look()
        if not any(one.missing for one in found) or asyncio.get_running_loop().time() >= end:
            return found
        await asyncio.sleep(_POLL)


async def _look(client: Client, policy: str | None) -> list[Progress]:
    # What is compiled first: policies that come meanwhile are then too new, and not ones that are enforced already.
    rule_sets = await list_lean(client, ours("rulesets").path(), RuleSet)
    node_policies = await list_lean(client, ours("nodepolicies").path(), NodePolicy)
    objects = await gather(client)
    wanted = sorted(objects.policies) if policy is None else [_key(objects, policy)]
    written = Written({one.metadata.name: one for one in rule_sets}, {one.metadata.name: one for one in node_policies})
    return list(progress(objects, written, wanted))


def _key(objects: Objects, text: str) -> PolicyKey:
    """Return a policy's key; raises UsageError."""
    namespace, slash, name = text.rpartition("/")
    key = ("NetworkPolicy" if slash else "ClusterNetworkPolicy", namespace, name)
    if key not in objects.policies:
        others = ", ".join(f"{space}/{other}" if space else other for _, space, other in sorted(objects.policies)[:3])
        there = f"there are {others}{' and others' if len(objects.policies) > 3 else ''}" if others else "there are none"
        raise click.UsageError(f"there is no {key[0]} {text}; {there}")
    return key


def _row(one: Progress) -> Row:
    return {"policy": one.policy, "nodes": one.nodes, "enforced": one.enforced, "since": one.since}
