"""Small clusters with every feature of policies, as the API server holds them, for hypothesis.

There are few labels, addresses and ports, so that selectors, blocks and names hit, and miss by little. Strategies are made
once: hypothesis looks into each new one, which takes longer than drawing from it.
"""

from functools import cache
from typing import Any, TypeVar

from hypothesis import strategies as st

from tests.policy.oracle import Cluster, Object
from tortie.api.meta import LOG_DENIALS

T = TypeVar("T")

NAMESPACES, NODES, PODS = ("a", "b", "c"), ("n1", "n2"), 8
LABELS = {"app": ("web", "db"), "track": ("new", "old")}
# The only ports that policies and pods name: the ends of each range have one of them right outside.
NUMBERS = (53, 80, 81, 8080)
PROBES = (*(("TCP", n) for n in NUMBERS), ("UDP", 53), ("UDP", 80), ("SCTP", 80), ("ICMP", 0))
OUTSIDE = ("8.8.8.8", "10.0.1.200", "2001:db8::1", "fd00::1:c8")
# Each with parts of it; pods are in 10.0.0.0/16 and fd00::/64 by node and number, nodes in 192.168.0.0/24 and fd01::/64.
BLOCKS = {
    "0.0.0.0/0": ("10.0.0.0/8", "192.168.0.0/24", "10.0.1.1/32"),
    "10.0.1.0/24": ("10.0.1.0/30", "10.0.1.2/32"),
    "10.0.2.7/24": ("10.0.2.4/30",),  # host bits don't count
    "10.0.1.1/32": (),
    "192.168.0.0/31": ("192.168.0.1/32",),
    "8.0.0.0/5": ("8.8.8.8/32", "10.0.0.0/8"),
    "::/0": ("fd00::/64", "fd00::1:0/112"),
    "fd00::/64": ("fd00::2:0/112", "fd00::1:1/128"),
    "fd01::1/128": (),
}


def mostly(common: st.SearchStrategy[T], *rare: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """One of them, the first three times in four."""
    return st.integers(0, 4 * len(rare) - 1).flatmap(lambda n: rare[n] if n < len(rare) else common)


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Object]:
    """An object; a field that comes out as None is missing."""
    return st.fixed_dictionaries(fields).map(lambda made: {name: value for name, value in made.items() if value is not None})


def maybe(some: st.SearchStrategy[T]) -> st.SearchStrategy[T | None]:
    return st.none() | some


def few(some: st.SearchStrategy[T], most: int = 2, least: int = 0) -> st.SearchStrategy[list[T]]:
    return st.lists(some, min_size=least, max_size=most)


LABELLED = st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in LABELS.items()})


KEYS = (*LABELS, "nobody-has")
REQUIREMENTS = st.one_of(
    objects(key=st.sampled_from(KEYS), operator=st.sampled_from(["Exists", "DoesNotExist"])),
    *(
        objects(
            key=st.just(key),
            operator=st.sampled_from(["In", "NotIn"]),
            values=few(st.sampled_from([*LABELS.get(key, ()), "other"]), least=1),
        )
        for key in KEYS
    ),
)
SELECTORS: st.SearchStrategy[Object] = st.one_of(
    st.just({}),
    objects(matchLabels=LABELLED),
    objects(matchLabels=maybe(LABELLED), matchExpressions=few(REQUIREMENTS, least=1)),
)
NAMESPACE_SELECTORS = SELECTORS | st.sampled_from(NAMESPACES).map(
    lambda name: {"matchLabels": {"kubernetes.io/metadata.name": name}}
)


# Whether denials are to be logged.
ASKING = mostly(st.none(), st.sampled_from(("true", "false", "yes")).map(lambda said: {LOG_DENIALS: said}))


@cache
def namespaces(name: str) -> st.SearchStrategy[Object]:
    labelled = LABELLED.map(lambda labels: {"kubernetes.io/metadata.name": name, **labels})
    return objects(metadata=objects(name=st.just(name), labels=labelled, annotations=ASKING))


@cache
def nodes(name: str) -> st.SearchStrategy[Object]:
    number = NODES.index(name)
    addresses = st.sampled_from(
        [
            [("Hostname", name), ("InternalIP", f"192.168.0.{number}")],
            [("InternalIP", f"fd01::{number}")],
            [("InternalIP", f"192.168.0.{number}"), ("ExternalIP", f"9.9.9.{number}"), ("InternalIP", f"fd01::{number}")],
        ]
    ).map(lambda listed: [{"type": kind, "address": address} for kind, address in listed])
    return objects(metadata=objects(name=st.just(name), labels=LABELLED), status=objects(addresses=addresses))


PORTS = objects(
    name=mostly(st.sampled_from(["http", "dns"]), st.none()),
    containerPort=st.sampled_from(NUMBERS),
    protocol=mostly(st.none(), st.sampled_from(["UDP", "SCTP"])),
)
CONTAINERS = objects(ports=few(PORTS))


KINDS = mostly(st.just("plain"), st.sampled_from(["host", "ended", "terminating", "static", "no address", "unscheduled"]))
INITS = mostly(st.none(), few(objects(ports=few(PORTS), restartPolicy=maybe(st.just("Always")))))
POD_SPECS = objects(containers=few(CONTAINERS, least=1), initContainers=INITS)
POD_DRAWS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "kind": KINDS,
        "namespace": st.sampled_from(NAMESPACES),
        "node": st.sampled_from(NODES),
        "labels": LABELLED,
        "spec": POD_SPECS,
        "families": st.sampled_from(["both", "4", "6"]),
        "other": st.booleans(),
    }
)


@cache
def pods(number: int, namespace: str | None = None) -> st.SearchStrategy[Object]:
    """Pod `number`: its name and addresses are its own; in any namespace, or in this one."""
    return POD_DRAWS.map(lambda drawn: pod(number, **{**drawn, "namespace": namespace or drawn["namespace"]}))


def pod(
    number: int, *, kind: str, namespace: str, node: str, labels: Object, spec: Object, families: str, other: bool
) -> Object:
    """A pod of some kind. One that has ended may keep an address that pod 0 has now."""
    place = (NODES.index(node) + 1, 0 if kind == "ended" and other else number)
    addresses = [f"10.0.{place[0]}.{place[1]}"] * (families != "6") + [f"fd00::{place[0]}:{place[1]}"] * (families != "4")
    metadata: Object = {"namespace": namespace, "name": f"p{number}", "uid": f"uid-{number}", "labels": labels}
    spec, phase = {**spec, "nodeName": node}, "Running"
    match kind:
        case "host":
            spec["hostNetwork"] = True
            addresses = [f"192.168.0.{NODES.index(node)}"]
        case "ended":
            phase = "Succeeded" if other else "Failed"
        case "terminating":
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        case "static":
            metadata["annotations"] = {"kubernetes.io/config.hash": f"hash{number}"}
        case "no address":
            addresses = []
        case "unscheduled":
            addresses = []
            del spec["nodeName"]
    return {"metadata": metadata, "spec": spec, "status": {"phase": phase, "podIPs": [{"ip": one} for one in addresses]}}


# NetworkPolicies.

IP_BLOCKS = st.one_of(
    [
        objects(cidr=st.just(cidr), **({"except": maybe(few(st.sampled_from(parts)))} if parts else {}))
        for cidr, parts in BLOCKS.items()
    ]
)
PEERS = st.one_of(
    objects(podSelector=SELECTORS),
    objects(namespaceSelector=NAMESPACE_SELECTORS),
    objects(namespaceSelector=NAMESPACE_SELECTORS, podSelector=SELECTORS),
    objects(ipBlock=IP_BLOCKS),
)
TRANSPORTS = maybe(st.sampled_from(["TCP", "UDP", "SCTP"]))
RANGES = [(a, b) for a in NUMBERS for b in NUMBERS if a <= b]
POLICY_PORTS = st.one_of(
    objects(protocol=TRANSPORTS, port=st.sampled_from([None, *NUMBERS])),
    objects(protocol=TRANSPORTS, port=st.sampled_from(["http", "dns", "nobodys"])),
    st.tuples(objects(protocol=TRANSPORTS), st.sampled_from(RANGES)).map(
        lambda d: {**d[0], "port": d[1][0], "endPort": d[1][1]}
    ),
)


def rules(peers: str) -> st.SearchStrategy[list[Object] | None]:
    return maybe(few(objects(**{peers: maybe(few(PEERS))}, ports=maybe(few(POLICY_PORTS)))))


POLICY_SPECS = objects(
    podSelector=SELECTORS,
    policyTypes=st.sampled_from([None, [], ["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
    ingress=rules("from"),
    egress=rules("to"),
)


@cache
def network_policies(namespace: str, name: str) -> st.SearchStrategy[Object]:
    metadata = objects(namespace=st.just(namespace), name=st.just(name), annotations=ASKING)
    return objects(metadata=metadata, spec=POLICY_SPECS)


# ClusterNetworkPolicies.

PODS_OF = objects(namespaceSelector=NAMESPACE_SELECTORS, podSelector=SELECTORS)
CLUSTER_PEERS = objects(namespaces=NAMESPACE_SELECTORS) | objects(pods=PODS_OF)
EGRESS_PEERS = CLUSTER_PEERS | objects(nodes=SELECTORS) | objects(networks=few(st.sampled_from(sorted(BLOCKS)), least=1))
UNKNOWN_PEERS: st.SearchStrategy[Object] = st.sampled_from([{}, {"domainNames": ["example.org"]}, {"services": {}}])
# The last two are known for egress alone.
INGRESS_UNKNOWN: st.SearchStrategy[Object] = UNKNOWN_PEERS | st.sampled_from([{"nodes": {}}, {"networks": ["0.0.0.0/0"]}])
NUMBERED = objects(number=st.sampled_from(NUMBERS)) | st.sampled_from([{"range": {"start": a, "end": b}} for a, b in RANGES])
PROTOCOLS = mostly(
    st.one_of([objects(**{name: objects(destinationPort=maybe(NUMBERED))}) for name in ("tcp", "udp", "sctp")]),
    st.sampled_from(["http", "dns", "nobodys"]).map(lambda name: {"destinationNamedPort": name}),
)
UNKNOWN_PROTOCOLS: st.SearchStrategy[Object] = st.sampled_from([{}, {"icmp": {}}, {"tcp": {"destinationPort": {"set": "web"}}}])


def seldom(known: st.SearchStrategy[T], unknown: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """The second, one time in sixteen."""
    return st.integers(0, 15).flatmap(lambda n: known if n else unknown)


def cluster_rules(peers: str, known: st.SearchStrategy[Object], unknown: st.SearchStrategy[Object]) -> st.SearchStrategy[Any]:
    rule = objects(
        name=maybe(st.just("why")),
        action=st.sampled_from(["Accept", "Deny", "Pass"]),
        **{peers: few(seldom(known, unknown), least=1)},
        protocols=maybe(few(seldom(PROTOCOLS, UNKNOWN_PROTOCOLS))),
    )
    return maybe(few(rule, 3))


CLUSTER_SPECS = objects(
    tier=st.sampled_from(["Admin", "Baseline"]),
    priority=st.sampled_from([0, 7, 7, 1000]),
    subject=objects(namespaces=NAMESPACE_SELECTORS) | objects(pods=PODS_OF),
    ingress=cluster_rules("from", CLUSTER_PEERS, INGRESS_UNKNOWN),
    egress=cluster_rules("to", EGRESS_PEERS, UNKNOWN_PEERS),
)


@cache
def cluster_network_policies(name: str) -> st.SearchStrategy[Object]:
    return objects(metadata=objects(name=st.just(name), annotations=ASKING), spec=CLUSTER_SPECS)


def first(every: list[st.SearchStrategy[Object]]) -> st.SearchStrategy[list[Object]]:
    """Any number of them, from the first on: each as often, while a list would mostly be short."""
    return st.integers(0, len(every)).flatmap(lambda n: st.tuples(*every[:n]).map(list))


CLUSTERS: st.SearchStrategy[Cluster] = st.fixed_dictionaries(
    {
        "namespaces": st.tuples(*map(namespaces, NAMESPACES)).map(list),
        "nodes": st.tuples(*map(nodes, NODES)).map(list),
        "pods": first([pods(n) for n in range(PODS)]),
        "networkpolicies": first([st.one_of([network_policies(ns, f"np{n}") for ns in NAMESPACES]) for n in range(4)]),
        "clusternetworkpolicies": first([cluster_network_policies(f"cnp{n}") for n in range(3)]),
    }
)
