"""IPPool.status as a pure function of the planner's state."""

from typing import Any

from tortie.addressing.ranges import covered
from tortie.addressing.state import Pool, State
from tortie.api.ippool import COUNT_MAX
from tortie.api.meta import MESSAGE_MAX

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

_WORDS = {"Never": "", "Always": "", "CrossSubnet": "CrossSubnet"}


def pool_status(state: State, pool: Pool, spec: dict[str, Any], refused: dict[str, str]) -> dict[str, Any]:
    """Return the status of `pool` without the times of its conditions."""
    assigned = len(state.blocks_in.get(pool.uid, ()))
    capacity = pool.range.size
    allocated = state.allocated_in.get(pool.uid, 0)
    reserved = covered(pool.range, state.reserved_in(pool.range))
    return {
        "blockSize": pool.block_size,
        "encapsulation": encapsulation(spec),
        "blocks": {
            "total": _count(1 << (pool.block_size - pool.range.prefix)),
            "assigned": _count(assigned),
            "free": _count(state.spaces[pool.name].count_blocks(pool.block_size)),
        },
        "addresses": {
            "capacity": _count(capacity),
            "allocated": _count(allocated),
            "available": _count(max(0, capacity - reserved - allocated)),
        },
        "conditions": [allocatable(pool, allocated, refused), *unsupported(spec)],
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


def unsupported(spec: dict[str, Any]) -> list[dict[str, str]]:
    """Return a condition that names what the manifest asks and no part of Tortie does yet, or nothing."""
    asked = [f"{field}: {spec[field]}" for field in ("ipipMode", "vxlanMode") if spec.get(field, "Never") != "Never"]
    asked += [f"{field}: true" for field in ("natOutgoing", "disableBGPExport") if spec.get(field)]
    asked += ["allowedUses: LoadBalancer"] if "LoadBalancer" in (spec.get("allowedUses") or ()) else []
    if not asked:
        return []
    return [_condition("Supported", "False", "NotBuiltYet", f"taken but not done yet: {', '.join(asked)}")]


def not_built(kind: str) -> dict[str, Any]:
    """Return the status of an object that is taken and stored, and that no part of Tortie acts on yet."""
    message = f"this {kind} is stored as it is; Tortie doesn't speak BGP yet, so nothing follows from it"
    return {"conditions": [_condition("Supported", "False", "NotBuiltYet", message)]}


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
