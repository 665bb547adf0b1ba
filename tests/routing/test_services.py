"""What of Services a node says by BGP, row by row: a configuration, Services and their endpoints as Kubernetes has them."""

from typing import NamedTuple

import pytest

from tests.routing.bgp import read
from tortie.routing.services import Endpoints, Families, advertised, ranges


class Row(NamedTuple):
    """spec of BGPConfiguration; objects; what node a says; what is wrong, by where."""

    spec: str
    objects: tuple[str, ...] = ()
    says: str = ""
    wrong: dict[str, str] = {}  # noqa: RUF012 - a tuple's default
    labels: dict[str, str] = {}  # noqa: RUF012


CLUSTER = "serviceClusterIPs: [{cidr: 10.96.0.0/12}, {cidr: 'fd00:96::/112'}]"
EXTERNAL = "serviceExternalIPs: [{cidr: 203.0.113.0/24}, {cidr: 198.51.100.7/32}]"
BALANCED = "serviceLoadBalancerIPs: [{cidr: 192.0.2.128/25}, {cidr: '2001:db8:7::/64'}]"
APART = f"{BALANCED}, serviceLoadBalancerAggregation: Disabled"
WHOLE = "10.96.0.0/12 fd00:96::/112"
HERE, ELSEWHERE = "{nodeName: a, conditions: {ready: true}}", "{nodeName: b}"


def service(spec: str, ingress: str = "", name: str = "web") -> str:
    status = f", status: {{loadBalancer: {{ingress: [{ingress}]}}}}" if ingress else ""
    return f"Service/{name}: {{spec: {{{spec}}}{status}}}"


def endpoints(*of: str, family: str = "IPv4", name: str = "web") -> str:
    labels = f"metadata: {{labels: {{kubernetes.io/service-name: {name}}}}}"
    return f"EndpointSlice/{name}-{family}-{len(of)}: {{{labels}, addressType: {family}, endpoints: [{', '.join(of)}]}}"


PLAIN = "type: ClusterIP, clusterIPs: [10.96.0.7]"
LOCAL = "type: NodePort, clusterIPs: [10.96.0.7], externalTrafficPolicy: Local"
INTERNAL = "type: ClusterIP, clusterIPs: [10.96.0.7], internalTrafficPolicy: Local"
DUAL = "type: LoadBalancer, clusterIPs: [10.96.0.7, 'fd00:96::7'], externalTrafficPolicy: Local"
BALANCER = "type: LoadBalancer, clusterIPs: [10.96.0.7]"
BALANCED4, BALANCED6 = "{ip: 192.0.2.200}", "{ip: '2001:db8:7::7'}"
ROWS = {
    "nothing is asked for": Row("", (service(LOCAL), endpoints(HERE))),
    "ranges are said whole": Row(CLUSTER, says=WHOLE),
    "of all kinds": Row(f"{CLUSTER}, {EXTERNAL}, {BALANCED}", says=f"{WHOLE} 203.0.113.0/24 192.0.2.128/25 2001:db8:7::/64"),
    "host bits of a range": Row("serviceClusterIPs: [{cidr: 10.96.0.1/12}]", says="10.96.0.0/12"),
    "a range that can't be read": Row(
        "serviceClusterIPs: [{cidr: 10.96.0.0/12}, {cidr: ten}]",
        says="10.96.0.0/12",
        wrong={"BGPConfiguration": "spec.serviceClusterIPs[1].cidr: not a CIDR: 'ten'"},
    ),
    "by no node that is excluded": Row(
        f"{CLUSTER}, {APART}",
        (service(DUAL, BALANCED4), endpoints(HERE)),
        labels={"node.kubernetes.io/exclude-from-external-load-balancers": "true"},
    ),
    "by a control plane of kubeadm": Row(
        CLUSTER, says=WHOLE, labels={"node.kubernetes.io/exclude-from-external-load-balancers": ""}
    ),
    "a Service of the whole range": Row(CLUSTER, (service(PLAIN), endpoints(HERE)), WHOLE),
    "a Service whose endpoints are reached from their nodes": Row(
        CLUSTER, (service(LOCAL), endpoints(HERE, ELSEWHERE)), f"{WHOLE} 10.96.0.7/32"
    ),
    "not from others": Row(CLUSTER, (service(LOCAL), endpoints(ELSEWHERE)), WHOLE),
    "one for pods of the same node": Row(CLUSTER, (service(INTERNAL), endpoints(HERE)), f"{WHOLE} 10.96.0.7/32"),
    "one for pods of the same node, elsewhere": Row(CLUSTER, (service(INTERNAL), endpoints(ELSEWHERE)), WHOLE),
    "an endpoint that isn't ready": Row(
        CLUSTER,
        (service(LOCAL), endpoints("{nodeName: a, conditions: {ready: false, serving: true, terminating: true}}")),
        WHOLE,
    ),
    "one of which that isn't known": Row(
        CLUSTER, (service(LOCAL), endpoints("{nodeName: a, conditions: {}}")), f"{WHOLE} 10.96.0.7/32"
    ),
    "the second endpoint": Row(CLUSTER, (service(LOCAL), endpoints(ELSEWHERE, HERE)), f"{WHOLE} 10.96.0.7/32"),
    "the second slice": Row(
        CLUSTER, (service(LOCAL), endpoints(ELSEWHERE), endpoints(ELSEWHERE, HERE)), f"{WHOLE} 10.96.0.7/32"
    ),
    "no endpoints": Row(CLUSTER, (service(LOCAL), endpoints()), WHOLE),
    "null endpoints": Row(
        CLUSTER,
        (
            service(LOCAL),
            "EndpointSlice/x: {metadata: {labels: {kubernetes.io/service-name: web}}, addressType: IPv4, endpoints: null}",
        ),
        WHOLE,
    ),
    "no slice": Row(CLUSTER, (service(LOCAL),), WHOLE),
    "another Service's endpoints": Row(CLUSTER, (service(LOCAL), endpoints(HERE, name="other")), WHOLE),
    "another namespace's": Row(
        CLUSTER,
        (
            service(LOCAL),
            "EndpointSlice/x: {metadata: {namespace: other, labels: {kubernetes.io/service-name: web}},"
            f" addressType: IPv4, endpoints: [{HERE}]}}",
        ),
        WHOLE,
    ),
    "endpoints by name": Row(CLUSTER, (service(LOCAL), endpoints(HERE, family="FQDN")), WHOLE),
    "both families": Row(
        CLUSTER, (service(DUAL), endpoints(HERE), endpoints(HERE, family="IPv6")), f"{WHOLE} 10.96.0.7/32 fd00:96::7/128"
    ),
    "the family that has endpoints here": Row(
        CLUSTER, (service(DUAL), endpoints(ELSEWHERE), endpoints(HERE, family="IPv6")), f"{WHOLE} fd00:96::7/128"
    ),
    "headless": Row(
        f"{CLUSTER}, {EXTERNAL}",
        (
            service("type: ClusterIP, clusterIPs: [None], externalIPs: [198.51.100.7], externalTrafficPolicy: Local"),
            endpoints(HERE),
        ),
        f"{WHOLE} 203.0.113.0/24",
    ),
    "without an address yet": Row(
        CLUSTER, (service("type: LoadBalancer, externalTrafficPolicy: Local"), endpoints(HERE)), WHOLE
    ),
    "a name for another": Row(
        CLUSTER, (service("type: ExternalName, clusterIPs: [10.96.0.7], externalTrafficPolicy: Local"), endpoints(HERE)), WHOLE
    ),
    "an address that is in no range": Row(
        "serviceClusterIPs: [{cidr: 10.100.0.0/16}]", (service(LOCAL), endpoints(HERE)), "10.100.0.0/16"
    ),
    "an address of another kind": Row(EXTERNAL, (service(LOCAL), endpoints(HERE)), "203.0.113.0/24"),
    "external, whole": Row(EXTERNAL, (service(f"{PLAIN}, externalIPs: [203.0.113.7]"), endpoints(HERE)), "203.0.113.0/24"),
    "external, local": Row(
        EXTERNAL, (service(f"{LOCAL}, externalIPs: [203.0.113.7, 192.0.2.1]"), endpoints(HERE)), "203.0.113.0/24 203.0.113.7/32"
    ),
    "the traffic of pods is no matter of others": Row(
        EXTERNAL, (service(f"{INTERNAL}, externalIPs: [203.0.113.7]"), endpoints(HERE)), "203.0.113.0/24"
    ),
    "a range of one address is a Service's": Row(
        EXTERNAL, (service(f"{PLAIN}, externalIPs: [198.51.100.7]"), endpoints(ELSEWHERE)), "203.0.113.0/24 198.51.100.7/32"
    ),
    "or nobody's": Row(EXTERNAL, (service(f"{PLAIN}, externalIPs: [198.51.100.7]"), endpoints()), "203.0.113.0/24"),
    "or a local one's": Row(
        EXTERNAL, (service(f"{LOCAL}, externalIPs: [198.51.100.7]"), endpoints(ELSEWHERE)), "203.0.113.0/24"
    ),
    "load balancer, whole": Row(BALANCED, (service(BALANCER, BALANCED4), endpoints(HERE)), "192.0.2.128/25 2001:db8:7::/64"),
    "load balancer, whole, as said": Row(
        f"{BALANCED}, serviceLoadBalancerAggregation: Enabled",
        (service(BALANCER, BALANCED4), endpoints(HERE)),
        "192.0.2.128/25 2001:db8:7::/64",
    ),
    "load balancer, local": Row(
        BALANCED,
        (service(DUAL, f"{BALANCED4}, {BALANCED6}"), endpoints(HERE), endpoints(HERE, family="IPv6")),
        "192.0.2.128/25 2001:db8:7::/64 192.0.2.200/32 2001:db8:7::7/128",
    ),
    "load balancers apart": Row(APART, (service(BALANCER, BALANCED4), endpoints(ELSEWHERE)), "192.0.2.200/32"),
    "apart, without endpoints": Row(APART, (service(BALANCER, BALANCED4), endpoints())),
    "apart, not ready": Row(APART, (service(BALANCER, BALANCED4), endpoints("{nodeName: a, conditions: {ready: false}}"))),
    "apart, endpoints of the other family": Row(APART, (service(BALANCER, BALANCED4), endpoints(HERE, family="IPv6"))),
    "apart, local": Row(APART, (service(DUAL, BALANCED4), endpoints(HERE)), "192.0.2.200/32"),
    "apart, local, elsewhere": Row(APART, (service(DUAL, BALANCED4), endpoints(ELSEWHERE))),
    "apart are load balancers alone": Row(
        f"{CLUSTER}, {APART}", (service(BALANCER, BALANCED4), endpoints(HERE)), f"{WHOLE} 192.0.2.200/32"
    ),
    "a load balancer's name": Row(APART, (service(BALANCER, "{hostname: lb.example}"), endpoints(HERE))),
    "two Services of one address": Row(
        APART,
        (service(BALANCER, BALANCED4), endpoints(), service(BALANCER, BALANCED4, "two"), endpoints(HERE, name="two")),
        "192.0.2.200/32",
    ),
    "an address that is none": Row(
        APART,
        (service(BALANCER, "{ip: here}"), endpoints(HERE), service(BALANCER, BALANCED4, "two"), endpoints(HERE, name="two")),
        "192.0.2.200/32",
        {"Service default/web": "not an IP address: 'here'"},
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_what_a_node_says(name: str) -> None:
    row = ROWS[name]
    written = read("\n".join((f"BGPConfiguration/default: {{{row.spec}}}", *row.objects)))
    of = written.of
    found, wrong = advertised(of["BGPConfiguration"][0].spec, of["Service"], Endpoints("a", of["EndpointSlice"]), row.labels)
    assert {str(one) for one in found} == set(row.says.split())
    assert wrong == row.wrong


def test_all_ranges() -> None:
    """These are no one's routes in the kernel, whatever is said of them."""
    spec = read(f"BGPConfiguration/default: {{{CLUSTER}, {EXTERNAL}, {APART}}}").of["BGPConfiguration"][0].spec
    assert [str(one) for one in ranges(spec)] == [
        "10.96.0.0/12", "192.0.2.128/25", "198.51.100.7/32", "203.0.113.0/24", "2001:db8:7::/64", "fd00:96::/112"
    ]  # fmt: skip
    bad = read("BGPConfiguration/default: {serviceExternalIPs: [{cidr: ten}, {cidr: 10.0.0.0/8}, {cidr: 10.0.0.0/8}]}")
    assert [str(one) for one in ranges(bad.of["BGPConfiguration"][0].spec)] == ["10.0.0.0/8"]


def test_endpoints_slice_by_slice() -> None:
    """What is known in the end is that of the slices that are there, whatever came before."""
    slices = {
        "here": endpoints(HERE),
        "elsewhere": endpoints(ELSEWHERE),
        "both": endpoints(HERE, ELSEWHERE),
        "none": endpoints(),
        "other": endpoints(HERE, name="other"),
        "six": endpoints(HERE, family="IPv6"),
        "name": endpoints(HERE, family="FQDN"),
    }
    of = {name: read(text).of["EndpointSlice"][0] for name, text in slices.items()} | {"gone": None}
    services = [("default", "web"), ("default", "other")]

    def known(one: Endpoints) -> list[Families]:
        return [one.of(name) for name in services]

    for first, before in of.items():
        for second, after in of.items():
            changed = Endpoints("a")
            changed.put("default", "x", before)
            was = known(changed)
            said = changed.put("default", "x", after)
            fresh = Endpoints("a")
            fresh.put("default", "x", after)
            assert known(changed) == known(fresh), (first, second)
            assert said == (was != known(changed)), (first, second)


def test_endpoints_of_two_slices() -> None:
    both = Endpoints("a", read("\n".join((endpoints(ELSEWHERE), endpoints(HERE, ELSEWHERE)))).of["EndpointSlice"])
    assert both.of(("default", "web")) == (frozenset({4}), frozenset({4}))
    assert both.put("default", "web-IPv4-2", None)
    assert both.of(("default", "web")) == (frozenset({4}), frozenset())
    assert not both.put("default", "web-IPv4-2", None)
    assert both.put("default", "web-IPv4-1", None)
    assert both.of(("default", "web")) == (frozenset(), frozenset())
