"""Between objects on the wire and the planner's state, both ways. Pure."""

from typing import Any

from pydantic import ValidationError

from tortie.addressing import ranges, selector, state
from tortie.addressing.allocator import address
from tortie.addressing.ranges import Range
from tortie.api import lean
from tortie.api.ippool import DEFAULT_BLOCK_SIZE, IPPool
from tortie.api.meta import API_VERSION

FINALIZER = "tortie.dev/blocks"


class Invalid(ValueError):
    """An object that the operator can't use; the message names the field and the problem."""


def pool(body: dict[str, Any]) -> state.Pool:
    """Return the planner's view of an IPPool; raises Invalid."""
    try:
        parsed = IPPool.model_validate(body)
        spec, meta = parsed.spec, parsed.metadata
        whole = ranges.parse(spec.cidr)
        chosen = selector.parse(spec.node_selector)
    except ValidationError as error:
        first = error.errors()[0]
        raise Invalid(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except selector.SelectorError as error:
        raise Invalid(f"spec.nodeSelector: {error}") from error
    except ValueError as error:
        raise Invalid(f"spec.cidr: {error}") from error
    workloads = spec.allowed_uses is None or "Workload" in spec.allowed_uses
    return state.Pool(
        name=meta.name,
        uid=meta.uid,
        created=meta.creation_timestamp or "",
        range=whole,
        block_size=spec.block_size or DEFAULT_BLOCK_SIZE[whole.family],
        node_selector=chosen,
        automatic=workloads and spec.assignment_mode == "Automatic" and not spec.namespace_selector,
        disabled=spec.disabled,
        deleting=meta.deletion_timestamp is not None,
        guarded=FINALIZER in meta.finalizers,
    )


def node(seen: lean.Node) -> state.Node:
    """Return the planner's view of a Node."""
    meta = seen.metadata
    return state.Node(meta.name, meta.uid, seen.status.node_info.machine_id, meta.labels)


def block(seen: lean.Block) -> state.Block:
    """Return the planner's view of an IPAMBlock; raises ValueError where spec has a CIDR that isn't one.

    What an agent says and nobody can read is left out, and `allocated` counts it: such a block gives nothing away.
    """
    meta, spec, status = seen.metadata, seen.spec, seen.status
    return state.Block(
        name=meta.name,
        range=ranges.parse(spec.cidr),
        pool_name=spec.pool.name,
        pool_uid=spec.pool.uid,
        node=spec.affinity.node,
        node_uid=spec.affinity.uid,
        machine_id=spec.affinity.machine_id,
        uid=meta.uid,
        version=meta.resource_version,
        created=meta.creation_timestamp,
        active=spec.active,
        cede=_optional(spec.cede),
        ceded=_readable(status.ceded),
        reserved=tuple(ranges.parse(r) for r in spec.reserved),
        without=tuple(ranges.parse(r) for r in spec.without),
        releases=tuple(state.Release(address(r.address), r.sequence, r.epoch, r.reason) for r in spec.releases),
        held=tuple(filter(None, map(_held, status.allocations))),
        allocated=len(status.allocations),
        published_free=status.free,
        published=(status.epoch, status.sequence),
        settled=(spec.settled_epoch, spec.settled),
    )


def block_body(wanted: state.Block) -> dict[str, Any]:
    """Return the IPAMBlock to create."""
    return {
        "apiVersion": API_VERSION,
        "kind": "IPAMBlock",
        "metadata": {"name": wanted.name},
        "spec": {
            "cidr": str(wanted.range),
            "pool": {"name": wanted.pool_name, "uid": wanted.pool_uid},
            "affinity": {"node": wanted.node, "uid": wanted.node_uid, "machineID": wanted.machine_id},
            "active": wanted.active,
            "reserved": [str(r) for r in wanted.reserved],
        },
    }


def block_patch(wanted: state.Block) -> dict[str, Any]:
    """Return the merge patch that makes a block's spec so, if it still has the version that was seen."""
    return {
        "metadata": {"resourceVersion": wanted.version, "uid": wanted.uid},
        "spec": {
            "affinity": {"uid": wanted.node_uid},
            "active": wanted.active,
            "reserved": [str(r) for r in wanted.reserved],
            "without": [str(r) for r in wanted.without],
            "releases": [{**r._asdict(), "address": str(r.address)} for r in wanted.releases],
            "cede": str(wanted.cede) if wanted.cede else None,
            "settled": wanted.settled[1],
            "settledEpoch": wanted.settled[0],
        },
    }


def network_body(name: str, blocks: list[state.Block]) -> dict[str, Any]:
    """Return the NodeNetwork that lists these blocks."""
    listed = [{"name": b.name, "cidr": str(b.range), "pool": b.pool_name} for b in blocks]
    return {"apiVersion": API_VERSION, "kind": "NodeNetwork", "metadata": {"name": name}, "spec": {"blocks": listed}}


def _held(said: lean.BlockAllocation) -> state.Held | None:
    try:
        return state.Held(address(said.address), said.sequence, said.namespace, said.pod, said.uid)
    except ValueError:
        return None


def _readable(cidr: str | None) -> Range | None:
    try:
        return _optional(cidr)
    except ValueError:
        return None


def _optional(cidr: str | None) -> Range | None:
    return ranges.parse(cidr) if cidr else None
