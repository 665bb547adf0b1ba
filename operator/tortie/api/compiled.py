"""Lean msgspec structs of what policies are compiled to, and what agents enforce: RuleSet, AddressSet, NodePolicy."""

from typing import Literal

import msgspec

from tortie.api.lean import Lean, Metadata

Direction = Literal["Ingress", "Egress"]
Action = Literal["Accept", "Deny", "Pass"]
Tier = Literal["Admin", "Namespace", "Baseline"]


class Port(Lean, frozen=True, omit_defaults=True):
    """Destination ports of one protocol; without `port` all of them."""

    protocol: str
    port: int | None = None
    end_port: int | None = None


class Rule(Lean, frozen=True, omit_defaults=True):
    """What is done with a packet that goes one way, to or from these peers, to these ports.

    Attributes:
        peers: The AddressSets that the other side is in; None: anybody.
        ports: None: any port of any protocol.
        sources: Which policies' rules it stands for, for people; the first ones where there are many.
    """

    direction: Direction
    action: Action
    peers: tuple[str, ...] | None = None
    ports: tuple[Port, ...] | None = None
    sources: tuple[str, ...] = ()


class RuleSetSpec(Lean, frozen=True, omit_defaults=True):
    """The rules of policies that speak of the same endpoints.

    Attributes:
        priority: Of a ClusterNetworkPolicy, lower first.
        isolates: The directions in which a NetworkPolicy lets nothing pass that no rule accepts.
        log: Whether what is denied by it is logged.
    """

    tier: Tier
    priority: int = 0
    isolates: tuple[Direction, ...] = ()
    rules: tuple[Rule, ...] = ()
    policies: tuple[str, ...] = ()
    log: bool = False


class CompiledMetadata(Metadata, frozen=True):
    """The part of metadata that tells which form of an object it is, and when it was compiled."""

    generation: int = 0
    annotations: dict[str, str] = msgspec.field(default_factory=dict)


class RuleSet(Lean, frozen=True):
    """A RuleSet."""

    metadata: CompiledMetadata
    spec: RuleSetSpec


class AddressSetSpec(Lean, frozen=True, omit_defaults=True):
    """One chunk of a set. `chunks`, in chunk 0 alone, is how many there are."""

    set: str
    chunk: int
    addresses: tuple[str, ...] = ()
    chunks: int | None = None


class AddressSet(Lean, frozen=True):
    """An AddressSet."""

    metadata: Metadata
    spec: AddressSetSpec


class Endpoint(Lean, frozen=True, omit_defaults=True):
    """A pod on the node; `uid` as the runtime knows it: a static pod's is its config hash.

    Attributes:
        confirmed: Where its group asks for it: its addresses, once every set that they belong to holds them.
    """

    namespace: str
    name: str
    uid: str
    confirmed: tuple[str, ...] = ()


class EndpointGroup(Lean, frozen=True, omit_defaults=True):
    """Endpoints for which the same RuleSets hold, in order.

    Attributes:
        confirm: Whether a Deny rule names them as peers: an ADD waits until the sets hold the address.
    """

    endpoints: tuple[Endpoint, ...]
    rule_sets: tuple[str, ...] = ()
    confirm: bool = False


class NodePolicySpec(Lean, frozen=True, omit_defaults=True):
    """What a node enforces."""

    groups: tuple[EndpointGroup, ...] = ()


class PolicyError(Lean, frozen=True, omit_defaults=True):
    """Why a RuleSet is not enforced on a node."""

    rule_set: str
    message: str


class NodePolicyStatus(Lean, frozen=True, omit_defaults=True):
    """What a node's agent says of what it enforces.

    Attributes:
        realized_generation: The newest generation of the NodePolicy of which nothing waits; zero: none yet.
        since: When that was reached, RFC 3339.
        lag_milliseconds: From the compilation of what was realized last to its enforcement.
        rule_sets: The generation of each RuleSet that is enforced, for each group that names it.
        waiting: RuleSets and AddressSets (as `set`) that are named and haven't arrived whole; the first ones.
        closed: Endpoints that wait for these and have no earlier state: nothing passes there.
        errors: What arrived and can't be enforced.
    """

    realized_generation: int = 0
    since: str | None = None
    lag_milliseconds: int = 0
    rule_sets: dict[str, int] = msgspec.field(default_factory=dict)
    waiting: tuple[str, ...] = ()
    closed: int = 0
    errors: tuple[PolicyError, ...] = ()


class NodePolicy(Lean, frozen=True):
    """A NodePolicy."""

    metadata: CompiledMetadata
    spec: NodePolicySpec = NodePolicySpec()
    status: NodePolicyStatus = NodePolicyStatus()


def size(value: object) -> int:
    """Return how many bytes a part of an object takes as JSON."""
    return len(msgspec.json.encode(value))
