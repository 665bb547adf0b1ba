"""Packets pass where `verdict()` says so: random clusters with every feature of policies, on two nodes, with real packets."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import HealthCheck, event, given, settings

from tests.agent.namespaces import needs_root, run
from tests.agent.packets import Net, Place, Probe, net
from tests.policy import oracle
from tests.policy.clusters import CLUSTERS, OUTSIDE, PODS, PROBES
from tests.policy.compiling import blocks, compiled, fresh, party
from tests.policy.oracle import Cluster, Party
from tests.policy.test_oracle import pairs

pytestmark = needs_root
EXAMPLES = 2_000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 200


@pytest.fixture(scope="module")
def net_() -> Iterator[Net]:
    with net(PODS) as made:
        made.lead(0, ("10.0.1.0/24", "fd00::1:0/112"))
        made.lead(1, ("10.0.2.0/24", "fd00::2:0/112"))
        for number, _ in enumerate(made.nodes):
            made.lead(number, (f"192.168.0.{number}/32", f"9.9.9.{number}/32", f"fd01::{number}/128"))
        yield made


@given(before=CLUSTERS, cluster=CLUSTERS)
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_packets_pass_where_the_verdict_says_so(net_: Net, before: Cluster, cluster: Cluster) -> None:
    """The kernel has it by changes from another cluster, not from nothing."""
    with living(net_, before, cluster) as places:
        verdicts, probes = compiled(cluster), dict[Probe, tuple[Party, Party]]()
        for source, target in pairs(cluster):
            if source.address and target.address:
                for protocol, port in PROBES:
                    probes[Probe(source.address, target.address, protocol, port)] = source, target
        parties = {one: party(cluster, one) for pair in probes.values() for one in pair}
        for is_later in (False, True):  # a kernel that doesn't know SCTP takes the way back for a reply
            now = {probe: pair for probe, pair in probes.items() if (probe.source > probe.target) == is_later}
            for node in net_.nodes:
                run(["conntrack", "-F"], node.namespace)
            got = net_.exchange((places[source], probe) for probe, (source, _) in now.items())
            for probe, (source, target) in now.items():
                verdict = verdicts.verdict(parties[source], parties[target], probe.protocol, probe.port)
                expected = [places[target]] if verdict.allowed else []
                assert got[probe] == expected, (probe, source, target, verdict)
                event(f"allowed: {verdict.allowed}")


@contextmanager
def living(net: Net, before: Cluster, cluster: Cluster) -> Iterator[dict[Party, Place]]:
    """Let a cluster live in the net, and give where everybody is."""
    for node in net.nodes:
        node.begin_anew()
    strangers = {a for p in cluster["pods"] if not oracle.has_own_network(p) for a in oracle.addresses_of(p)} | set(OUTSIDE)
    known = oracle.pods_and_nodes(cluster)
    places = {Party(address=one): net.outside for one in strangers - {one.address for one in known}}
    nodes = {node.name: node for node in net.nodes}
    free = list(net.free)
    for number, world in enumerate((before, cluster), 1):
        objects = fresh({**world, "blocks": blocks(world)})
        for node in net.nodes:
            node.enforce(objects, number)
    for pod in cluster["pods"]:
        mine, where = oracle.addresses_of(pod), nodes.get(pod["spec"].get("nodeName"))
        if mine and where and oracle.has_own_network(pod):
            meta = pod["metadata"]
            uid = meta.get("annotations", {}).get("kubernetes.io/config.hash", meta["uid"])
            namespace = free.pop()
            where.attach(namespace, uid, mine)
            places |= {Party(pod=oracle.name_of(pod), address=one): net.places[namespace] for one in mine}
    places |= {one: net.places[nodes[one.node].namespace] for one in known if one.node}
    with ExitStack() as stack:
        for place in (net.outside, *(net.places[node.namespace] for node in net.nodes)):
            stack.enter_context(place.has(one.address for one, where in places.items() if where is place))
        yield places
    for node in net.nodes:
        for host in list(node.pods):
            node.detach(host)
