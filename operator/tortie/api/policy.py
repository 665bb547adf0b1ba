"""What policies are compiled to: RuleSet, AddressSet and NodePolicy. Made by the operator; not for people to write."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tortie.api.block import Name
from tortie.api.bounds import MAX_PEERS, MAX_PORTS, MAX_RULES, MAX_SOURCES
from tortie.api.meta import CIDR_MAX, MESSAGE_MAX, Column, Model, Resource

CHUNK_MAX = 1024
GROUPS_MAX, ENDPOINTS_MAX, RULE_SETS_MAX = 1024, 1024, 4096
STATED_MAX, WAITING_MAX, ERRORS_MAX = 4096, 16, 16

Way = Literal["Ingress", "Egress"]
CompiledName = Annotated[str, Field(max_length=63)]
# A policy's kind, namespace and name, and the rule's place or name.
Source = Annotated[str, Field(max_length=512)]
Uid = Annotated[str, Field(max_length=64)]
PortNumber = Annotated[int, Field(ge=0, le=65535)]


class RulePort(Model):
    """Destination ports of one protocol."""

    protocol: Annotated[Literal["TCP", "UDP", "SCTP"], Field(description="The protocol.")]
    port: Annotated[PortNumber | None, Field(description="The port, or the first of them; unset: every port.")] = None
    end_port: Annotated[PortNumber | None, Field(description="The last port; unset: `port` alone.")] = None


class Rule(Model):
    """What is done with a packet of one direction, to or from these peers, to these ports."""

    direction: Annotated[Way, Field(description="Ingress: to the endpoint; Egress: from it.")]
    action: Annotated[Literal["Accept", "Deny", "Pass"], Field(description="What is done; Pass goes on with the next tier.")]
    peers: Annotated[
        tuple[CompiledName, ...] | None,
        Field(max_length=MAX_PEERS, description="AddressSets, by spec.set, one of which has the other side; unset: anybody."),
    ] = None
    ports: Annotated[
        tuple[RulePort, ...] | None, Field(max_length=MAX_PORTS, description="Destination ports; unset: any of any protocol.")
    ] = None
    sources: Annotated[
        tuple[Source, ...], Field(max_length=MAX_SOURCES, description="The policies' rules that it stands for; the first ones.")
    ] = ()


class RuleSetSpec(Model):
    """The rules of policies that speak of the same endpoints."""

    tier: Annotated[
        Literal["Admin", "Namespace", "Baseline"],
        Field(description="When it is asked: Admin first; Namespace is what NetworkPolicies say; Baseline last."),
    ]
    priority: Annotated[int, Field(ge=0, le=1000, description="Of a ClusterNetworkPolicy; lower ones are asked first.")] = 0
    isolates: Annotated[
        tuple[Way, ...], Field(max_length=2, description="Directions in which nothing passes that no rule accepts.")
    ] = ()
    rules: Annotated[tuple[Rule, ...], Field(max_length=MAX_RULES, description="The rules, in order.")] = ()
    policies: Annotated[
        tuple[Source, ...], Field(max_length=MAX_SOURCES, description="The policies that it stands for; the first ones.")
    ] = ()
    log: Annotated[
        bool, Field(description="Whether what is denied by it is logged (annotation tortie.dev/log-denials of a policy).")
    ] = False


class RuleSet(Resource):
    """The rules that policies give the endpoints which they select. Made by the operator; not for people."""

    plural: ClassVar[str] = "rulesets"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="Tier", path=".spec.tier"),
        Column(name="Priority", path=".spec.priority", type="integer"),
        Column(name="Policies", path=".spec.policies"),
        Column(name="Isolates", path=".spec.isolates", wide=True),
        Column(name="Age", path=".metadata.creationTimestamp", type="date"),
    )

    kind: str = "RuleSet"
    spec: Annotated[RuleSetSpec, Field(description="The rules.")]


class AddressSetSpec(Model):
    """One chunk of a set of addresses."""

    set: Annotated[CompiledName, Field(description="The set, as rules name it.")]
    chunk: Annotated[int, Field(ge=0, description="Which chunk of the set this is.")]
    addresses: Annotated[
        tuple[Annotated[str, Field(max_length=CIDR_MAX)], ...],
        Field(max_length=CHUNK_MAX, description="Addresses and CIDRs."),
    ] = ()
    chunks: Annotated[int | None, Field(ge=1, description="How many chunks the set has; chunk 0 alone says it.")] = None


class AddressSet(Resource):
    """The addresses that a peer of policies has now, or a chunk of them. Made by the operator; not for people."""

    plural: ClassVar[str] = "addresssets"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="Set", path=".spec.set"),
        Column(name="Chunk", path=".spec.chunk", type="integer"),
        Column(name="Chunks", path=".spec.chunks", type="integer"),
        Column(name="Age", path=".metadata.creationTimestamp", type="date"),
    )

    kind: str = "AddressSet"
    spec: Annotated[AddressSetSpec, Field(description="The chunk.")]


class Endpoint(Model):
    """A pod on the node."""

    namespace: Annotated[str, Field(max_length=63, description="The pod's namespace.")]
    name: Annotated[Name, Field(description="The pod's name.")]
    uid: Annotated[Uid, Field(description="Its uid as the runtime knows it: a static pod's is its config hash.")]
    confirmed: Annotated[
        tuple[Annotated[str, Field(max_length=CIDR_MAX)], ...],
        Field(max_length=8, description="Where the group asks for it: addresses that the sets which deny by them hold."),
    ] = ()


class EndpointGroup(Model):
    """Endpoints for which the same RuleSets hold."""

    endpoints: Annotated[tuple[Endpoint, ...], Field(max_length=ENDPOINTS_MAX, description="The pods.")]
    rule_sets: Annotated[
        tuple[CompiledName, ...], Field(max_length=RULE_SETS_MAX, description="Names of RuleSets, in the order of asking.")
    ] = ()
    confirm: Annotated[
        bool, Field(description="Whether a Deny rule names them as peers: an ADD waits until its address is confirmed.")
    ] = False


class NodePolicySpec(Model):
    """What a node enforces."""

    groups: Annotated[
        tuple[EndpointGroup, ...], Field(max_length=GROUPS_MAX, description="Its pods, by what holds for them.")
    ] = ()


class PolicyError(Model):
    """Why a RuleSet is not enforced on a node."""

    rule_set: Annotated[CompiledName, Field(description="The RuleSet's name.")]
    message: Annotated[str, Field(max_length=MESSAGE_MAX, description="What is wrong, and what to do.")]


class NodePolicyStatus(Model):
    """What the node's agent says of what it enforces."""

    realized_generation: Annotated[
        int, Field(ge=0, description="The newest generation of which nothing waits: every endpoint has its whole rules.")
    ] = 0
    since: Annotated[
        str | None, Field(description="When that was reached, RFC 3339.", json_schema_extra={"format": "date-time"})
    ] = None
    lag_milliseconds: Annotated[
        int, Field(ge=0, description="From the compilation of what was realized last to its enforcement, by two clocks.")
    ] = 0
    rule_sets: Annotated[
        dict[str, int],
        Field(max_length=STATED_MAX, description="The generation of each RuleSet that is enforced, by name; the first ones."),
    ] = Field(default_factory=dict)
    waiting: Annotated[
        tuple[CompiledName, ...],
        Field(max_length=WAITING_MAX, description="RuleSets and AddressSets that are named and not whole yet; the first ones."),
    ] = ()
    closed: Annotated[
        int, Field(ge=0, description="Endpoints that wait for these and have no earlier rules: nothing passes there.")
    ] = 0
    errors: Annotated[
        tuple[PolicyError, ...], Field(max_length=ERRORS_MAX, description="What arrived and can't be enforced; the first ones.")
    ] = ()


class NodePolicy(Resource):
    """What a node enforces, said by the operator, and what of it is realized, said by its agent. Not for people."""

    plural: ClassVar[str] = "nodepolicies"
    short_names: ClassVar[tuple[str, ...]] = ("npol",)
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="Desired", path=".metadata.generation", type="integer"),
        Column(name="Realized", path=".status.realizedGeneration", type="integer"),
        Column(name="Since", path=".status.since", type="date"),
        Column(name="Lag ms", path=".status.lagMilliseconds", type="integer"),
        Column(name="Closed", path=".status.closed", type="integer"),
        Column(name="Waiting", path=".status.waiting", wide=True),
        Column(name="Age", path=".metadata.creationTimestamp", type="date"),
    )

    kind: str = "NodePolicy"
    spec: Annotated[NodePolicySpec, Field(description="What the node enforces.")]
    status: Annotated[NodePolicyStatus | None, Field(description="What the node's agent says of it.")] = None
