"""`tortiectl policy`: what policies let through, and why; of a cluster, or of a folder of manifests."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import click

from tortie.cli.ctl.cluster import Cluster
from tortie.cli.ctl.explain import Port, answer, as_json, lines, side
from tortie.cli.ctl.output import FOUND, OUTPUT, Column, dump, show
from tortie.cli.ctl.policy_changes import Names, as_row, told
from tortie.cli.ctl.policy_log import log
from tortie.cli.ctl.policy_objects import from_cluster, from_files, warn
from tortie.cli.ctl.policy_status import status
from tortie.policy.difference import difference
from tortie.policy.lint import lint
from tortie.policy.matrix import Bits, Crowd, bits
from tortie.policy.policies import PORT_MAX, PROTOCOLS
from tortie.policy.world import World


@click.group("policy")
def command() -> None:
    """Who may talk to whom, and why.

    Answers are computed from what policies are compiled to, as nodes enforce it.
    """


command.add_command(status)
command.add_command(log)


class _Port(click.ParamType[Port]):
    """80/TCP, or 80 for TCP."""

    name = "PORT/PROTOCOL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Port:
        number, slash, protocol = str(value).partition("/")
        protocol = protocol.upper() if slash else "TCP"
        if not (number.isascii() and number.isdecimal() and 1 <= int(number) <= PORT_MAX) or protocol not in PROTOCOLS:
            self.fail(f"{value!r} is no port; write one such as 80/TCP, with {', '.join(PROTOCOLS)}", param, ctx)
        return Port(int(number), protocol)


_FILE = click.option(
    "-f", "--file", "path", metavar="PATH",
    help="Read Pods, Namespaces, Nodes and policies from a file, a folder or - instead of the cluster.",
)  # fmt: skip
_PORT = click.option("--port", type=_Port(), required=True, help="The destination's port, such as 80/TCP.")


def _world(cluster: Cluster, path: str | None) -> World:
    world = World(from_files(path) if path else from_cluster(cluster))
    _warn_of_problems(world)
    return world


def _warn_of_problems(world: World) -> None:
    for policy in world.policies.values():
        for problem in policy.problems + policy.remarks:
            warn(f"{policy.name}: {problem}")


@command.command("explain")
@click.option("--from", "source", required=True, metavar="NAMESPACE/POD|IP", help="Who opens the connection.")
@click.option("--to", "target", required=True, metavar="NAMESPACE/POD|IP", help="Who is to be reached.")
@_PORT
@_FILE
@OUTPUT
@click.pass_obj
def explain(cluster: Cluster, *, source: str, target: str, port: Port, path: str | None, output: str) -> None:
    """Say whether one may talk to another, and which policy and rule decides in each direction.

    Exit status 0, whatever the answer is. An address that is no pod's and no node's is one outside of the cluster. With -f,
    a pod without an address gets one of each family, and one without a node is on a node of its own.
    """
    world = _world(cluster, path)
    found = answer(world, side(world, source), side(world, target), port)
    if output in ("json", "yaml"):
        dump(as_json(found), output)
    else:
        click.echo("\n".join(lines(found)))


@command.command("matrix")
@_PORT
@_FILE
@OUTPUT
@click.pass_obj
def matrix(cluster: Cluster, *, port: Port, path: str | None, output: str) -> None:
    """Show which pod may reach which, on one port. Pods that have ended are left out.

    A pod reaches another if it does by one family of addresses at least.
    """
    world = _world(cluster, path)
    names = ["/".join(key) for key in world.facts]
    reach, split = Crowd(world.compiled, [world.parties(key) for key in world.facts]).rows(port.protocol, port.number)
    reach = [row | 1 << number for number, row in enumerate(reach)]
    split = [row & ~(1 << number) for number, row in enumerate(split)]
    if ended := sorted("/".join(key) for key in world.objects.pods.keys() - world.facts.keys()):
        warn(f"left out, as they have ended: {', '.join(ended)}")
    if found := next(((n, next(bits(row))) for n, row in enumerate(split) if row), None):
        pairs, example = sum(row.bit_count() for row in split), " to ".join(names[n] for n in found)
        warn(f"open by one family of addresses alone: {example}, the first of {pairs} such pairs; explain says why")
    if output in ("json", "yaml"):
        click.echo("\n".join(_listed(names, reach, output)))
    elif not names:
        click.echo("there are no pods", err=True)
    else:
        click.echo("\n".join(_drawn(names, reach)))


def _listed(names: list[str], reach: Iterable[Bits], output: str) -> Iterator[str]:
    """Yield the rows as JSON, or as the same in YAML's list: a thousand pods are a million rows."""
    quoted = [json.dumps(name) for name in names]
    rows = (
        f'{{"from": {quoted[source]}, "to": {target}, "allowed": {"true" if row >> number & 1 else "false"}}}'
        for source, row in enumerate(reach)
        for number, target in enumerate(quoted)
    )
    if output == "yaml":
        yield from (f"- {row}" for row in rows) if names else ["[]"]
        return
    yield "["
    if names:
        yield "  " + ",\n  ".join(rows)
    yield "]"


def _drawn(names: list[str], reach: Iterable[Bits]) -> Iterator[str]:
    """Yield a table: who reaches, by row, and who is reached, by the number of its row."""
    width, longest = len(str(len(names))), max(map(len, names))
    yield f"{'':{width}}  {'FROM':{longest}}  TO " + " ".join(f"{number:>{width}}" for number in range(1, len(names) + 1))
    for number, (name, row) in enumerate(zip(names, reach, strict=True)):
        marks = f" {'':{width - 1}}".join("+" if row >> target & 1 else "." for target in range(len(names)))
        yield f"{number + 1:>{width}}  {name:{longest}}     {'':{width - 1}}{marks}"
    yield "+ allowed, . denied"


FINDINGS = (
    Column("kind", "KIND"), Column("object", "OBJECT"), Column("field", "FIELD"), Column("what", "WHAT"),
    Column("do", "WHAT TO DO"),
)  # fmt: skip


@command.command("lint")
@_FILE
@OUTPUT
@click.pass_obj
def lint_command(cluster: Cluster, *, path: str | None, output: str) -> None:
    """Find what in policies does nothing, or something else than it seems to. Exit status 3 when something is found.

    Found are policies that select nothing, peers that match nothing, named ports that no pod has, rules that are never reached
    or said already, and CIDRs that hold addresses of pods or nodes.
    """
    found = lint(World(from_files(path) if path else from_cluster(cluster)))
    show((finding._asdict() for finding in found), FINDINGS, output, empty="nothing to look at")
    if found:
        raise SystemExit(FOUND)


@command.command("diff")
@click.option("-f", "--file", "path", metavar="PATH", required=True, help="What would be applied: a file, a folder or -.")
@OUTPUT
@click.pass_obj
def diff(cluster: Cluster, *, path: str, output: str) -> None:
    """Show which connections open and which close if these policies were applied to the cluster. Nothing is written.

    As kubectl apply does it: an object takes the place of one of its name, labels are added, others stay. Compared are the
    pods and nodes that are there, and addresses outside by the blocks that policies name. Exit status 0, also for changes.
    """
    applied = from_files(path)
    objects = from_cluster(cluster)
    if new := sorted("/".join(key) for key in applied.pods.keys() - objects.pods.keys()):
        warn(f"not in the cluster, so nothing changes for them: {', '.join(new)}")
    old, new_world = World(objects), World(objects.under(applied))
    _warn_of_problems(new_world)
    changes = difference(old, new_world)
    if output in ("json", "yaml"):
        dump([as_row(change) for change in changes], output)
    elif not changes:
        click.echo("nothing opens and nothing closes", err=True)
    else:
        names = Names(old)
        click.echo("\n".join(sorted(told(change, names) for change in changes)))
