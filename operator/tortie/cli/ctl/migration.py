"""What a migration would write, compared with what is there and tried with the API server; and the writing of it."""

import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import click

from tortie.api.calico import WAY_OUT, Translation, Wire
from tortie.api.calico_losses import Finding, ordered
from tortie.api.kinds import KINDS
from tortie.cli.ctl.cluster import Object, list_all, ours
from tortie.kube.client import Client
from tortie.kube.errors import ApiError, Cause, Forbidden, Invalid, NotFound

_MODELS = {kind.model_fields["kind"].default: kind for kind in KINDS}
_TRIED = {"dryRun": "All"}
# What the API server puts before a rule's message in place of the value, which our rules show themselves.
_TYPE = re.compile(r'^Invalid value: "(string|object|integer|array)": ')
Key = tuple[str, str]
# Nodes speak BGP as soon as one of these is there, and two BIRDs on a node delete each other's routes.
_SPEAKING = frozenset({"BGPConfiguration", "BGPPeer"})


class Change(NamedTuple):
    """What becomes of one object of ours; `there` is what is there already, `fields` where it has other values.

    `later`: it isn't written while Calico may run.
    """

    change: Literal["create", "same", "differs", "overwrite", "later"]
    wire: Wire
    there: Object | None = None
    fields: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """Kind and name."""
        return self.wire["kind"], self.wire["metadata"]["name"]

    @property
    def is_write(self) -> bool:
        """Whether something is to be sent."""
        return self.change in ("create", "overwrite")


class Plan(NamedTuple):
    """Changes in the order of writing, findings, and why the API server wasn't asked to try them; empty: it was."""

    changes: tuple[Change, ...]
    findings: tuple[Finding, ...]
    untried: str = ""

    def of(self, *levels: str) -> list[Finding]:
        """Return the findings of these levels."""
        return [finding for finding in self.findings if finding.level in levels]

    def that(self, change: str) -> list[Change]:
        """Return the changes of this kind."""
        return [one for one in self.changes if one.change == change]


def untried(translation: Translation, reason: str, *, alone: bool) -> Plan:
    """Return a plan for a cluster of which nothing is known."""
    changes = [Change("create", wire) for wire in translation.objects]
    return Plan(tuple(_kept_back(changes, alone=alone)), translation.findings, reason)


async def plan(client: Client, translation: Translation, *, overwrite: bool, must_try: bool, alone: bool) -> Plan:
    """Return what is to be done, tried by the API server's dry run; what it refuses is a finding.

    `must_try`: raise ApiError where objects can't be tried, as before writing; else the plan says why. `alone`: Calico is gone.
    """
    try:
        there = await _there(client, translation.objects)
        changes = [compare(wire, there.get(key(wire)), overwrite=overwrite) for wire in translation.objects]
        refused = [finding for change in changes if change.is_write for finding in await _try(client, change)]
    except (NotFound, Forbidden) as error:
        if must_try:
            raise
        reason = "Tortie isn't installed here" if isinstance(error, NotFound) else str(error)
        return untried(translation, reason, alone=alone)
    findings = ordered([*translation.findings, *refused, *overlaps(translation.objects, there)])
    bad = {(finding.kind, finding.name) for finding in refused}
    return Plan(tuple(_kept_back((change for change in changes if change.key not in bad), alone=alone)), findings)


def _kept_back(changes: Iterable[Change], *, alone: bool) -> Iterator[Change]:
    """Yield changes, those that would have nodes speak BGP beside Calico for later."""
    for one in changes:
        waits = one.change == "create" and one.key[0] in _SPEAKING and not alone
        yield one._replace(change="later") if waits else one


def key(one: Object) -> Key:
    """Return kind and name of an object."""
    return one["kind"], one["metadata"]["name"]


def compare(wire: Wire, there: Object | None, *, overwrite: bool) -> Change:
    """Return what becomes of an object; defaults count as if they were written."""
    if there is None:
        return Change("create", wire)
    new, old = (_MODELS[wire["kind"]].model_validate(one).to_wire()["spec"] for one in (wire, there))
    fields = tuple(sorted(field for field in {*new, *old} if new.get(field) != old.get(field)))
    if not fields:
        return Change("same", wire, there)
    return Change("overwrite" if overwrite else "differs", wire, there, fields)


def overlaps(objects: Iterable[Wire], there: Mapping[Key, Object]) -> list[Finding]:
    """Return a loss for each pool that overlaps one that is there under another name: nodes would get no blocks of it."""
    known = [(name, _network(pool)) for (kind, name), pool in there.items() if kind == "IPPool"]
    found = list[Finding]()
    for pool in (one for one in objects if one["kind"] == "IPPool"):
        name, mine = pool["metadata"]["name"], _network(pool)
        for other, its in known:
            if other != name and mine and its and mine.version == its.version and mine.overlaps(its):
                message = f"{mine}: overlaps Tortie's pool {other} ({its}): nodes get no blocks of it until that one is gone"
                found.append(Finding("loss", "IPPool", name, "spec.cidr", message))
    return found


def _network(pool: Object) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(pool["spec"]["cidr"], strict=False)
    except ValueError:
        return None


async def _there(client: Client, objects: Iterable[Wire]) -> dict[Key, Object]:
    there = dict[Key, Object]()
    for kind in dict.fromkeys(wire["kind"] for wire in objects):
        items = await list_all(client, ours(_MODELS[kind].plural))
        there |= {(kind, item["metadata"]["name"]): item for item in items}
    return there


async def _try(client: Client, change: Change) -> list[Finding]:
    """Return what the API server would say of a change."""
    try:
        await _send(client, change, _TRIED)
    except Invalid as error:
        causes = error.causes or (Cause(message=error.message),)
        return [Finding("refused", *change.key, c.field, f"{_TYPE.sub('', c.message)}; {WAY_OUT}") for c in causes]
    return []


async def _send(client: Client, change: Change, query: dict[str, str]) -> None:
    resource = ours(_MODELS[change.wire["kind"]].plural)
    if change.there is None:
        await client.request("POST", resource.path(), change.wire, params=query)
    else:
        await client.request("PUT", resource.path(change.key[1]), replaced(change.wire, change.there), params=query)


def replaced(wire: Wire, there: Object) -> dict[str, Any]:
    """Return what is there with Calico's spec, labels and annotations; finalizers stay, and its version is the condition."""
    metadata = dict(there["metadata"])
    for part in ("labels", "annotations"):
        metadata[part] = {**metadata.get(part, {}), **wire["metadata"].get(part, {})}
    return {**there, "apiVersion": wire["apiVersion"], "kind": wire["kind"], "metadata": metadata, "spec": wire["spec"]}


async def write(client: Client, changes: Iterable[Change]) -> int:
    """Write what is to be written and return how many; raises ClickException that says how far it came."""
    writes, done = [change for change in changes if change.is_write], 0
    for change in writes:
        try:
            await _send(client, change, {})
        except ApiError as error:
            kind, name = change.key
            raise click.ClickException(
                f"{kind}/{name} can't be written: {error}. {done} of {len(writes)} objects are written; run this again, what"
                " is there then counts as same"
            ) from error
        done += 1
    return done


def manifests(plan: Plan) -> dict[str, Any]:
    """Return the objects as one List for `kubectl apply -f -`."""
    return {"apiVersion": "v1", "kind": "List", "items": [change.wire for change in plan.changes]}


def as_json(plan: Plan) -> str:
    """Return objects, what becomes of them, and findings, for programs."""
    changes = [{"kind": c.key[0], "name": c.key[1], "change": c.change, "fields": c.fields} for c in plan.changes]
    findings = [finding._asdict() for finding in plan.findings]
    return json.dumps({"objects": [c.wire for c in plan.changes], "changes": changes, "findings": findings}, indent=2)
