"""What the operator says of objects that people wrote: pure functions of the objects and the planner's state."""

from collections.abc import Sequence
from typing import Any

import msgspec

from tortie.addressing.ranges import covered
from tortie.addressing.state import Pool, State
from tortie.api import bgp_input
from tortie.api.bgp import BGPConfiguration, BGPPeer
from tortie.api.ippool import COUNT_MAX
from tortie.api.meta import MESSAGE_MAX
from tortie.routing import review

# Reasons of Allocatable. Usual: nodes get blocks.
ALLOCATABLE = "Allocatable"
# The pool overlaps an older one: wait for that one to go, or delete this one.
CIDR_OVERLAP = "CIDROverlap"
# A person set spec.disabled.
DISABLED = "Disabled"
# A person deleted the pool while addresses of it are in use.
DELETING = "Deleting"
# What the manifest says can't be used; the message names the field.
INVALID = "Invalid"

# Reasons of Sufficient. Usual: the pool has a block for each node that it takes.
SUFFICIENT = "Sufficient"
# The pool was made too small for its nodes, or nodes have joined since.
TOO_FEW_BLOCKS = "TooFewBlocks"
# Pods wait, and no node has an address of the pool to give.
EXHAUSTED = "Exhausted"
# Of a Node whose pods wait for an address of an exhausted pool; an Event, not a condition.
ADDRESSES_EXHAUSTED = "AddressesExhausted"

# Reason of Supported. Usual: nodes follow it. Else NotBuiltYet, or Invalid.
SUPPORTED = "Supported"

# What of BGP objects no part of Tortie does yet.
_NOT_SPOKEN = ("localWorkloadSelector", "localWorkloadPeeringIPV4", "localWorkloadPeeringIPV6")
# Nodes that a message names.
_NAMES = 5
_WORDS = {"Never": "", "Always": "", "CrossSubnet": "CrossSubnet"}


def pool_status(
    state: State, pool: Pool, spec: dict[str, Any], refused: dict[str, str], waiting: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the status of `pool` without the times of its conditions. `waiting`: nodes for which it is exhausted."""
    gives = allocatable(pool, state.allocated_in.get(pool.uid, 0), refused)
    return {
        "blockSize": pool.block_size,
        "encapsulation": encapsulation(spec),
        **figures(state, pool),
        "conditions": [gives, sufficient(state, pool, waiting, gives=gives["status"] == "True"), *unsupported(spec)],
    }


def figures(state: State, pool: Pool) -> dict[str, dict[str, int]]:
    """Return how many blocks and addresses `pool` has, of which so many are in use."""
    capacity = pool.range.size
    allocated = state.allocated_in.get(pool.uid, 0)
    reserved = covered(pool.range, state.reserved_in(pool.range))
    return {
        "blocks": {
            "total": _count(1 << (pool.block_size - pool.range.prefix)),
            "assigned": _count(len(state.blocks_in.get(pool.uid, ()))),
            "free": _count(state.spaces[pool.name].count_blocks(pool.block_size)),
        },
        "addresses": {
            "capacity": _count(capacity),
            "allocated": _count(allocated),
            "available": _count(max(0, capacity - reserved - allocated)),
        },
    }


def allocatable(pool: Pool, allocated: int, refused: dict[str, str]) -> dict[str, str]:
    """Return the condition that says whether nodes get blocks of `pool`, and if not, why and what to do."""
    if pool.deleting:
        message = f"deleted; {allocated} addresses are still in use, it goes with the last of them"
        return _condition("Allocatable", "False", DELETING, message)
    if pool.name in refused:
        message = f"overlaps {refused[pool.name]}, which is older; nodes get blocks of it as soon as that one is gone"
        return _condition("Allocatable", "False", CIDR_OVERLAP, message)
    if pool.disabled:
        return _condition("Allocatable", "False", DISABLED, "spec.disabled is true: nodes get no new blocks of it")
    return _condition("Allocatable", "True", ALLOCATABLE, "nodes get blocks of it")


def sufficient(state: State, pool: Pool, waiting: Sequence[str], *, gives: bool) -> dict[str, str]:
    """Return the condition that says whether `pool` is large enough, and if not, what to do before or while pods wait."""
    if not gives:
        return _condition("Sufficient", "True", SUFFICIENT, "nodes get no blocks of it, so it lacks none")
    if waiting:
        more = f" and {len(waiting) - _NAMES} more" if len(waiting) > _NAMES else ""
        named = ", ".join(waiting[:_NAMES]) + more
        message = f"no address is left, and pods wait on {named}; apply another IPPool, or delete pods"
        return _condition("Sufficient", "False", EXHAUSTED, message)
    blocks, nodes = state.whole_blocks(pool), state.takers(pool)
    if blocks < nodes:
        message = (
            f"{blocks} blocks for {nodes} nodes: some get none, or parts of others' only; apply a bigger IPPool,"
            " or one of smaller blocks (a greater blockSize), or narrow this one's nodeSelector"
        )
        return _condition("Sufficient", "False", TOO_FEW_BLOCKS, message)
    return _condition("Sufficient", "True", SUFFICIENT, "there is a block for each node")


def waits(pool: str) -> str:
    """Return what is said of a Node whose pods wait for an address of a pool that is exhausted."""
    return f"pods wait for an address of IPPool {pool}, of which none is left; apply another IPPool, or delete pods"


def unsupported(spec: dict[str, Any]) -> list[dict[str, str]]:
    """Return a condition that names what the manifest asks and no part of Tortie does yet, or nothing."""
    if "LoadBalancer" not in (spec.get("allowedUses") or ()):
        return []
    return [_not_built(["allowedUses: LoadBalancer"])]


def spoken(body: dict[str, Any]) -> dict[str, Any]:
    """Return the status of an object that nodes speak BGP by: whether they can, and if not, why and what to do."""
    asked = [field for field in _NOT_SPOKEN if body.get("spec", {}).get(field)]
    wrong = _mistake(body)
    if wrong:
        return {"conditions": [_condition("Supported", "False", INVALID, wrong)]}
    if asked:
        return {"conditions": [_not_built(asked)]}
    return {"conditions": [_condition("Supported", "True", SUPPORTED, "nodes follow it")]}


def _mistake(body: dict[str, Any]) -> str:
    """Return what of a BGP object can't be used, "" where all can."""
    try:
        match body["kind"]:
            case BGPConfiguration.__name__:
                mistakes = review.of_configuration(msgspec.convert(body, bgp_input.Configuration))
            case BGPPeer.__name__:
                mistakes = review.of_peer(msgspec.convert(body, bgp_input.Peer))
            case _:
                mistakes = review.of_filter(msgspec.convert(body, bgp_input.Filter))
    except msgspec.ValidationError as error:
        return f"it can't be read: {error}"
    return "; ".join(mistakes)


def _not_built(asked: list[str]) -> dict[str, str]:
    return _condition("Supported", "False", "NotBuiltYet", f"taken but not done yet: {', '.join(asked)}")


def invalid(message: str) -> dict[str, Any]:
    """Return the status of a pool that can't be used."""
    return {"conditions": [_condition("Allocatable", "False", INVALID, message)]}


def encapsulation(spec: dict[str, Any]) -> str:
    """Return ipipMode and vxlanMode in one word."""
    for field, name in (("ipipMode", "IPIP"), ("vxlanMode", "VXLAN")):
        mode = spec.get(field, "Never")
        if mode != "Never":
            return name + _WORDS[mode]
    return "None"


def with_times(status: dict[str, Any], old: dict[str, Any], generation: int, now: str) -> dict[str, Any]:
    """Return `status` with each condition's lastTransitionTime: that of `old` where its status is the same."""
    before = {c["type"]: c for c in old.get("conditions", ())}
    conditions = []
    for new in status["conditions"]:
        known = before.get(new["type"], {})
        since = known.get("lastTransitionTime", now) if known.get("status") == new["status"] else now
        conditions.append({**new, "lastTransitionTime": since, "observedGeneration": generation})
    return {**status, "conditions": conditions}


def _condition(kind: str, status: str, reason: str, message: str) -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message[:MESSAGE_MAX]}


def _count(value: int) -> int:
    return min(value, COUNT_MAX)
