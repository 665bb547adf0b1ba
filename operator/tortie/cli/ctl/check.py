"""`tortiectl ipam check` and `ipam release`: what doesn't agree, and freeing what is leaked."""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tortie.addressing.allocator import address
from tortie.addressing.audit import Finding, Held, NodeView, OwnedBlock, Snapshot, audit, lasting
from tortie.addressing.leaks import Claim, PodState, pod_state, why_leaked
from tortie.addressing.ranges import parse
from tortie.api.lean import Pod
from tortie.cli.ctl.agents import Report, agents, ask, daemonset_of, left_out, need_agents, pods_of, ready_on, reports
from tortie.cli.ctl.cluster import NODES, PODS, Cluster, Object, list_all, list_lean, ours
from tortie.cli.ctl.output import FOUND, OUTPUT, Column, Row, show
from tortie.kube.client import ApiError, Client, NotFound

FINDINGS = (
    Column("kind", "KIND"), Column("subject", "WHAT"), Column("node", "NODE"), Column("pod", "POD"), Column("why", "WHY"),
    Column("uid", "POD UID", wide=True), Column("epoch", "EPOCH", wide=True), Column("sequence", "SEQUENCE", wide=True),
)  # fmt: skip
RELEASES = (
    Column("address", "ADDRESS"), Column("node", "NODE"), Column("pod", "POD"), Column("freed", "FREED"), Column("why", "WHY"),
)  # fmt: skip
# Seconds between the two looks: longer than a publication takes, and than a pod's deletion from DEL to its object's end.
SETTLE = 5.0


@click.command("check")
@click.option(
    "--settle", type=click.FloatRange(0), default=SETTLE, show_default=True,
    help="Seconds until what was found is looked at again; only what is still there counts. 0: one look.",
)  # fmt: skip
@OUTPUT
@click.pass_obj
def check(cluster: Cluster, settle: float, output: str) -> None:
    """Compare publications, ledgers, pods, interfaces, routes and blocks. Exit status 3 when something doesn't agree.

    `-o json` is the report that `ipam release --from-report` takes.
    """

    async def look(client: Client) -> list[Finding]:
        found = audit(await snapshot(client, cluster.namespace))
        if found and settle:
            await asyncio.sleep(settle)
            found = lasting(found, audit(await snapshot(client, cluster.namespace)))
        return found

    found = cluster.ask(look)
    show((finding._asdict() for finding in found), FINDINGS, output, empty="all of it agrees")
    if found:
        raise SystemExit(FOUND)


@click.command("release")
@click.option("--from-report", "report", type=click.File(), required=True, help="What ipam check -o json printed; - is stdin.")
@OUTPUT
@click.pass_obj
def release(cluster: Cluster, report: Any, output: str) -> None:
    """Free the leaks of a report, each after another look at its pod; its agent frees none that an interface uses.

    Exit status 3 when one of them is kept.
    """
    leaks = read_report(report.read(), Path(report.name).name)
    rows = cluster.ask(lambda client: _release_all(client, cluster.namespace, leaks))
    show(rows, RELEASES, output, empty="the report names no leak")
    if not all(row["freed"] for row in rows):
        raise SystemExit(FOUND)


def read_report(text: str, name: str) -> list[Finding]:
    """Return the leaks of a report; raises ClickException."""
    try:
        found = [Finding(**{field: row[field] for field in Finding._fields}) for row in json.loads(text)]
        for one in found:
            if one.kind == "leak":
                address(one.subject)
    except (ValueError, KeyError, TypeError) as error:
        raise click.ClickException(
            f"{name} is no report ({type(error).__name__}: {error}); write one with tortiectl ipam check -o json"
        ) from error
    return [finding for finding in found if finding.kind == "leak"]


async def _release_all(client: Client, namespace: str, leaks: Sequence[Finding]) -> list[Row]:
    known = await agents(client, namespace) if leaks else {}
    if leaks:
        need_agents(known, namespace)
    releases = Releases(client, namespace, known)
    return [await releases.release(leak) for leak in leaks]


class Releases:
    """Frees leaks, one by one. An agent frees all that a link has, so a leak may be gone with another of the report."""

    def __init__(self, client: Client, namespace: str, agents: Mapping[str, str]) -> None:
        self._client, self._namespace, self._agents = client, namespace, agents
        self._gone = dict[tuple[str, str, str, int], str]()  # node, epoch, address, sequence → with which address

    async def release(self, leak: Finding) -> Row:
        """Free one; return what is said of it."""
        row: Row = {"address": leak.subject, "node": leak.node, "pod": leak.pod, "freed": False}
        if with_ := self._gone.get((leak.node, leak.epoch, leak.subject, leak.sequence)):
            return row | {"freed": True, "why": f"freed with {with_}"}
        if why := await self._why_kept(leak):
            return row | {"why": why}
        try:
            freed = await self._ask(leak)
        except ApiError as error:
            return row | {"why": error.message.removeprefix("Error: ")}
        except (ValueError, KeyError, TypeError):
            return row | {"why": "the agent's answer can't be read; are tortiectl and agent of one version?"}
        self._gone |= {(leak.node, leak.epoch, one["address"], one["sequence"]): leak.subject for one in freed}
        return row | {"freed": True, "why": f"freed {', '.join(one['address'] for one in freed)}"}

    async def _why_kept(self, leak: Finding) -> str:
        room, _, name = leak.pod.partition("/")
        if not name:
            return "it isn't known whose it is, so it is kept"
        if not why_leaked(Claim(leak.node, room, name, leak.uid), await _live(self._client, room, name)):
            return "its pod is there and may use it"
        if leak.node not in self._agents:
            return f"no agent is ready on node {leak.node}; only that one can look whether an interface uses it"
        return ""

    async def _ask(self, leak: Finding) -> list[dict[str, Any]]:
        exact = ("--epoch", leak.epoch, "--sequence", str(leak.sequence))
        said = await ask(self._client, self._namespace, self._agents[leak.node], "release", leak.subject, *exact)
        freed: list[dict[str, Any]] = json.loads(said)["freed"]
        return freed


async def _live(client: Client, namespace: str, name: str) -> PodState | None:
    try:
        return pod_state(await client.get(PODS.path(name, namespace=namespace), into=Pod))
    except NotFound:
        return None


async def snapshot(client: Client, namespace: str) -> Snapshot:
    """Gather what is compared, pods last; raises ApiError."""
    pools = await list_all(client, ours("ippools"))
    blocks = await list_all(client, ours("ipamblocks"))
    nodes = await list_all(client, NODES)
    parts = await pods_of(client, namespace, "agent")
    asked = to_ask(nodes, blocks, left_out(map(_name, nodes), parts, await daemonset_of(client, namespace)))
    said = await reports(client, namespace, asked, ready_on(parts))
    return build(pools, blocks, said, await list_lean(client, PODS.path(), Pod))


def to_ask(nodes: Iterable[Object], blocks: Iterable[Object], left: Iterable[str]) -> list[str]:
    """Return the nodes whose agents matter: those that should have one, and those that own blocks."""
    return sorted(set(map(_name, nodes)) - set(left) | {block["spec"]["affinity"]["node"] for block in blocks})


def build(pools: Iterable[Object], blocks: Iterable[Object], said: Mapping[str, Report | str], pods: Iterable[Pod]) -> Snapshot:
    """Return what is compared; `said` are the nodes' reports, or why there is none."""
    blocks = list(blocks)
    return Snapshot(
        blocks=tuple(map(_owned, blocks)),
        published=tuple(held for block in blocks for held in _published(block)),
        pods={f"{pod.metadata.namespace}/{pod.metadata.name}": pod_state(pod) for pod in pods},
        pools=tuple(parse(pool["spec"]["cidr"]) for pool in pools),
        views={node: report if isinstance(report, str) else _view(report) for node, report in said.items()},
    )


def _name(thing: Object) -> str:
    return str(thing["metadata"]["name"])


def _owned(block: Object) -> OwnedBlock:
    spec = block["spec"]
    without = tuple(map(parse, spec.get("without") or ()))
    return OwnedBlock(_name(block), parse(spec["cidr"]), spec["affinity"]["node"], spec.get("active", False), without)


def _published(block: Object) -> list[Held]:
    node, status = block["spec"]["affinity"]["node"], block.get("status") or {}
    return [_held(node, status.get("epoch", ""), one) for one in status.get("allocations") or ()]


def _held(node: str, epoch: str, one: Mapping[str, Any]) -> Held:
    claim = Claim(node, one.get("namespace", ""), one.get("pod", ""), one.get("uid", ""))
    return Held(address(one["address"]), claim, epoch, one["sequence"])


def _view(report: Report) -> NodeView:
    return NodeView(
        held=tuple(_held(report["node"], report["epoch"], one) for one in report["allocations"]),
        links={host: tuple(map(address, held)) for host, held in report["links"].items()},
        routes=frozenset(parse(route["to"]) for route in report["routes"]),
    )
