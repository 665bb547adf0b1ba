"""Between objects on the wire and what the agent decides by, both ways. Pure."""

from collections.abc import Iterable
from typing import Any, NamedTuple, cast, get_args

import msgspec

from tortie.addressing import selector
from tortie.addressing.allocator import OwnBlock
from tortie.addressing.ranges import Range, parse
from tortie.addressing.wants import UsablePool
from tortie.agent.ledger import Entry
from tortie.api import lean
from tortie.api.ippool import DEFAULT_BLOCK_SIZE
from tortie.routing.carriage import Carried, Mode

# Names are left out where they would not fit: an object stays under 1 MB.
NAMES_MAX_BYTES = 512 * 1024


def own_block(seen: lean.Block, epoch: str) -> OwnBlock:
    """Return a block as the node with the ledger `epoch` uses it; raises ValueError where a CIDR isn't one."""
    spec = seen.spec
    return OwnBlock(
        name=seen.metadata.name,
        range=parse(spec.cidr),
        pool=spec.pool.name,
        active=spec.active,
        reserved=tuple(parse(one) for one in spec.reserved),
        cede=parse(spec.cede) if spec.cede else None,
        settled=spec.settled if spec.settled_epoch == epoch else 0,
        without=tuple(parse(one) for one in spec.without),
    )


def usable_pool(seen: lean.Pool) -> UsablePool:
    """Return a pool as pods choose it; raises ValueError where a field can't be read."""
    spec = seen.spec
    workloads = spec.allowed_uses is None or "Workload" in spec.allowed_uses
    return UsablePool(
        name=seen.metadata.name,
        range=parse(spec.cidr),
        disabled=spec.disabled or not workloads,
        automatic=spec.assignment_mode == "Automatic",
        namespaces=selector.parse(spec.namespace_selector) if spec.namespace_selector else None,
        nodes=selector.parse(spec.node_selector) if spec.node_selector else None,
    )


class ForwardedPool(NamedTuple):
    """A pool as far as packets are carried.

    Attributes:
        block: The shortest prefix that a block of it has; `exported`: whether BGP tells peers outside of its blocks.
        nat: Whether what leaves all pools is masqueraded.
        tunnels: Whether tunnels may have addresses of it; `gives`: new ones.
    """

    carried: Carried
    block: int
    exported: bool
    nat: bool
    tunnels: bool
    gives: bool


def forwarded_pool(seen: lean.Pool) -> ForwardedPool:
    """Return how a pool's packets are carried; raises ValueError where a field can't be read."""
    spec = seen.spec
    for mode in (spec.vxlan_mode, spec.ipip_mode):
        if mode not in get_args(Mode):
            raise ValueError(f"an encapsulation {mode!r} that is none of {', '.join(get_args(Mode))}")
    carried = Carried(parse(spec.cidr), cast("Mode", spec.vxlan_mode), cast("Mode", spec.ipip_mode))
    # By default of workloads and tunnels, but of no namespace's pools: a tunnel is in none.
    tunnels = "Tunnel" in spec.allowed_uses if spec.allowed_uses is not None else not spec.namespace_selector
    block = spec.block_size or DEFAULT_BLOCK_SIZE[carried.range.family]
    return ForwardedPool(
        carried,
        block,
        not spec.disable_bgp_export,
        spec.nat_outgoing,
        tunnels,
        tunnels and not spec.disabled and not seen.metadata.deletion_timestamp,
    )


def dump_pools(pools: Iterable[lean.Pool]) -> str:
    """Return pools as a text that `load_pools` reads after a restart; the same for the same specs, whatever else changes."""
    known = (lean.Pool(lean.LabelledMetadata(pool.metadata.name), pool.spec) for pool in pools)
    named = sorted(known, key=lambda p: p.metadata.name)
    return msgspec.json.encode(named).decode()


def load_pools(text: str) -> list[lean.Pool]:
    """Return the pools of a text; none where it can't be read: an older agent wrote it."""
    try:
        return msgspec.json.decode(text, type=list[lean.Pool])
    except msgspec.DecodeError:
        return []


def block_status(epoch: str, sequence: int, entries: list[Entry], free: int, ceded: Range | None) -> dict[str, Any]:
    """Return what the agent says of a block."""
    room, allocations = NAMES_MAX_BYTES, []
    for entry in entries:
        allocation = {
            "address": str(entry.address),
            "sequence": entry.sequence,
            "uid": entry.link.uid[:36],
            "since": entry.since,
        }
        names = {"namespace": entry.link.namespace, "pod": entry.link.pod}
        room -= sum(len(name) for name in names.values()) + 32
        allocations.append({**allocation, **names} if room >= 0 else allocation)
    said = {"epoch": epoch, "sequence": sequence, "allocations": allocations, "free": free}
    return {**said, "ceded": str(ceded) if ceded else None}
