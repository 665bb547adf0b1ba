"""Nodes that speak BGP, on a real cluster of two subnets, with FRR on the router between them.

The router knows no way to pods but what nodes tell it, so a packet between the subnets shows that it was told.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, why_not
from tests.cluster.deploy import NAMESPACE, rolled_out, wait
from tests.routing import frr
from tests.routing.traffic import FAMILIES, agents, arrives, ask, talking
from tortie.agent import forwarding
from tortie.agent.copies import PATIENCE

pytestmark = pytest.mark.skipif(bool(why_not() or frr.why_no_frr()), reason=why_not() or frr.why_no_frr() or "-")
BY_BGP = {"": None, "plain": "BGP", "vxlan": "VXLAN"}
AWAY = 60 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 15  # seconds
NO_DETOUR = """
table inet detour {
    chain forward {
        type filter hook forward priority 0;
        iifname br0 oifname br0 drop
        iifname br1 oifname br1 drop
    }
}
"""
ALL = "bgpconfigurations,bgppeers,bgpfilters"


def obj(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "tortie.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def configuration(**spec: Any) -> dict[str, Any]:
    return obj("BGPConfiguration", "default", **spec)


def routers(cluster: Cluster) -> list[dict[str, Any]]:
    """Return a BGPPeer for each subnet and family: its nodes peer with the router's address there."""
    peers = [(hub.subnet, hub.address4, "4") for hub in cluster.network.hubs]
    peers += [(hub.subnet, hub.address6, "6") for hub in cluster.network.hubs]
    return [
        obj(
            "BGPPeer", f"router-{subnet}-v{family}", peerIP=address, asNumber=frr.AS, nodeSelector=f"rack == '{subnet}'",
            # All nodes are of one AS, which the router's routes of others come from.
            numAllowedLocalASNumbers=1,
        )
        for subnet, address, family in peers
    ]  # fmt: skip


@pytest.fixture(scope="module")
def router(four: Cluster) -> Iterator[frr.Router]:
    """FRR on the router, and nodes labelled by their subnet.

    The router is the nodes' default gateway and knows all blocks: it would pass on what a node has no route for, and nothing
    would be lost. So it drops what goes back into the subnet that it came from.
    """
    for node in four.nodes:
        four.kubectl.run("label", "node", node.name, f"rack={node.place.subnet}")
    for path in Path("/proc/sys/net/bridge").glob("bridge-nf-call-ip*tables"):  # what is bridged isn't forwarded
        subprocess.run([*four.network.hub.enter, "sh", "-c", f"echo 0 > {path}"], check=True)
    subprocess.run([*four.network.hub.enter, "nft", "-f", "-"], input=NO_DETOUR, text=True, check=True)
    with frr.frr(four.network.hub.enter, four.network.hub.address4) as found:
        yield found


@pytest.fixture
def speaking(four: Cluster, router: frr.Router) -> Iterator[Cluster]:  # noqa: ARG001 - it is there before
    """The cluster, whose nodes peer with each other and with the router; nobody speaks BGP afterwards."""
    ask(four.kubectl, {"vxlanMode": "Never"})
    four.kubectl.apply(configuration(), *routers(four))
    wait("sessions are up", lambda: all_up(four, 4 * (3 + 1) * 2), 60)
    yield four
    four.kubectl.run("delete", ALL, "--all")
    four.kubectl.run("label", "nodes", "--all", "reflector-")
    four.kubectl.run("annotate", "nodes", "--all", "tortie.dev/route-reflector-cluster-id-")
    left = (f"metric {forwarding.COPY_METRIC}", "proto bird")
    everywhere = [node.name for node in four.nodes]
    wait(
        "neither BIRD's routes nor copies are left",
        lambda: not any(what in one for name in everywhere for one in routes(four, name) for what in left),
        60,
    )


def test_all_pairs_by_mesh_and_router(speaking: Cluster, router: frr.Router) -> None:
    arrives(speaking, "plain", "plain", BY_BGP)
    blocks = {block["spec"]["cidr"] for block in speaking.kubectl.get("ipamblocks")["items"]}
    for family in FAMILIES:
        own = {one for one, hops in router.routes(family).items() if hops}
        assert own == {one for one in blocks if (":" in one) == (family == 6)}, "blocks, and nothing else"


def test_all_pairs_by_the_router_alone(speaking: Cluster) -> None:
    speaking.kubectl.apply(configuration(nodeToNodeMeshEnabled=False))
    wait("sessions with the router are left", lambda: all_up(speaking, 4 * 2), 60)
    arrives(speaking, "plain", "plain", BY_BGP)
    taken = {one.split()[0] for node in speaking.nodes for one in bird_routes(speaking, node.name)}
    assert {"203.0.113.0/24", "2001:db8:113::/48"} <= taken, "what the router tells of the world is taken"
    assert not taken & {"default", "10.1.0.0/16", "fd00:10:1::/48"}, "neither everything nor a pool's range"


def test_what_a_filter_says(speaking: Cluster) -> None:
    kubectl = speaking.kubectl
    rules = [{"action": "Reject", "cidr": "203.0.113.0/24", "matchOperator": "In"}]
    everything = [{"action": "Accept", "cidr": "0.0.0.0/0", "matchOperator": "Equal"}]
    kubectl.apply(obj("BGPFilter", "ours", importV4=[*rules, *everything]))
    for peer in routers(speaking):
        kubectl.apply(peer | {"spec": peer["spec"] | {"filters": ["ours"]}})

    def follows() -> bool:
        taken = {one.split()[0] for one in bird_routes(speaking, "node-1")}
        return "default" in taken and "203.0.113.0/24" not in taken and "2001:db8:113::/48" in taken

    wait("the default route is taken when it is asked for, and the world isn't", follows, 60)


def test_services_are_told_where_they_are_served(speaking: Cluster, router: frr.Router) -> None:
    kubectl = speaking.kubectl
    ports = {"ports": [{"port": 80}]}
    kubectl.apply(
        configuration(
            serviceClusterIPs=[{"cidr": "10.96.0.0/16"}, {"cidr": "fd00:10:96::/112"}],
            serviceExternalIPs=[{"cidr": "192.0.2.0/24"}],
        ),
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "local", "namespace": "default"},
            "spec": {"selector": {"app": "none"}, "externalIPs": ["192.0.2.7"], "externalTrafficPolicy": "Local",
                     "type": "NodePort", **ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "local-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "local"}},
            "endpoints": [{"addresses": ["10.1.0.1"], "nodeName": "node-2", "conditions": {"ready": True}}], **ports,
        },
    )  # fmt: skip
    node, every = speaking.nodes[1].place.address4, sorted(node.place.address4 for node in speaking.nodes)
    ranges = {"10.96.0.0/16": every, "192.0.2.0/24": every, "192.0.2.7/32": [node]}

    def told() -> bool:
        routes = router.routes(4)
        return {one: sorted(routes.get(one, ())) for one in ranges} == ranges

    try:
        wait("the ranges by all nodes, the address by the one that serves it", told, 60)
        wait("of both families", lambda: "fd00:10:96::/112" in router.routes(6))
        assert not any("10.96." in one for one in bird_routes(speaking, "node-1")), "no node needs another for them"
        kubectl.run("delete", "endpointslice", "local-1")
        wait("the address by nobody", lambda: "192.0.2.7/32" not in router.routes(4), 60)
    finally:
        kubectl.run("delete", "service", "local")


def test_the_mesh_has_a_password(speaking: Cluster) -> None:
    kubectl, named = speaking.kubectl, {"secretKeyRef": {"name": "passwords", "key": "mesh"}}
    kubectl.apply(configuration(nodeMeshPassword=named))

    def said() -> str:
        conditions = kubectl.get("nodenetwork", "node-1")["status"]["conditions"]
        return next(str(one["message"]) for one in conditions if one["type"] == "BGPSessionsUp")

    wait("what is missing is said", lambda: "Secret passwords has no key mesh" in said(), 60)
    others = {f"BGPPeer {peer['metadata']['name']}" for peer in routers(speaking)}
    wait("no node peers without it", lambda: {one["of"] for one in sessions(speaking)} == others, 60)
    meta = {"name": "passwords", "namespace": NAMESPACE}
    kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"mesh": "s3cret"}})
    try:
        wait("sessions are up with it", lambda: all_up(speaking, 32), 90)
        assert 'password "s3cret"' in in_agent(speaking, "node-1", "cat", "/run/tortie/bird/bird.conf")
        wait("all is well", lambda: said() == "all BGP sessions are up", 60)
    finally:
        kubectl.run("delete", "secret", "-n", NAMESPACE, "passwords")


WHILE = [
    "mesh to reflectors", "VXLAN to BGP", "BGP to VXLAN", "agents start anew", "one BIRD is killed", "all BIRDs are killed",
    "the API server is away",
]  # fmt: skip


@pytest.mark.parametrize("what", WHILE)
def test_no_packet_is_lost_while(speaking: Cluster, what: str) -> None:
    kubectl = speaking.kubectl
    if what == "VXLAN to BGP":
        ask(kubectl, {"vxlanMode": "Always"})
        arrives(speaking, "vxlan", "vxlan", BY_BGP)
    else:
        arrives(speaking, "plain", "plain", BY_BGP)
    if what == "mesh to reflectors":
        hush(speaking)
    with talking(speaking) as lost:
        DONE[what](speaking)
    assert lost == {}


def hush(cluster: Cluster) -> None:
    """Have nodes take nothing from the router: else its routes would be there while nodes' own are not."""
    everything = [{"action": "Reject"}]
    cluster.kubectl.apply(obj("BGPFilter", "nothing", importV4=everything, importV6=everything))
    for peer in routers(cluster):
        cluster.kubectl.apply(peer | {"spec": peer["spec"] | {"filters": ["nothing"]}})
    wait("its routes are gone", lambda: not any("203.0.113" in one for one in bird_routes(cluster, "node-1")), 60)
    without_copies(cluster)


def without_copies(cluster: Cluster) -> None:
    """Wait until BIRD alone leads to other nodes, for less long than copies would stay without it."""
    wait("no copies are left", lambda: all(whose(cluster, node.name) == {"bird"} for node in cluster.nodes), PATIENCE * 2 / 3)


def whose(cluster: Cluster, node: str) -> set[str]:
    """Return whose the routes to other nodes' blocks are: `bird`, or the agent's number."""
    found = (one.split() for one in routes(cluster, node) if one.startswith(("10.1.", "fd00:10:1:")))
    return {words[words.index("proto") + 1] for words in found if "via" in words}


def reflect(cluster: Cluster) -> None:
    """Have nodes 1 and 3 reflect routes, in place of the mesh."""
    for name in ("node-1", "node-3"):
        cluster.kubectl.run("label", "node", name, "reflector=yes", "--overwrite")
        cluster.kubectl.run("annotate", "node", name, "tortie.dev/route-reflector-cluster-id=244.0.0.1", "--overwrite")
    cluster.kubectl.apply(
        obj("BGPPeer", "reflectors", nodeSelector="all()", peerSelector="has(reflector)"),
        configuration(nodeToNodeMeshEnabled=False),
    )
    # Each of two reflectors with three others, and both nodes that don't reflect with both that do.
    wait("sessions with reflectors are up, and others gone", lambda: all_up(cluster, (2 * 3 + 2 * 2 + 4) * 2), 60)
    arrives(cluster, "plain", "plain", BY_BGP)
    without_copies(cluster)


def restart_agents(cluster: Cluster) -> None:
    old = agents(cluster.kubectl)
    cluster.kubectl.run("delete", "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=agent", "--wait=false")
    wait("others are there", lambda: rolled_out(cluster.kubectl, 4) and not old & agents(cluster.kubectl), 120)
    wait("sessions are up again", lambda: all_up(cluster, 32), 60)
    without_copies(cluster)


def kill_birds(number: int) -> Any:
    def kill(cluster: Cluster) -> None:
        nodes = [node.name for node in cluster.nodes[:number]]
        before = {one for one in since(sessions(cluster)) if one[0] in nodes}
        for node in nodes:
            in_agent(cluster, node, "sh", "-c", "kill -9 $(pidof bird)")
        wait("sessions are other ones", lambda: all_up(cluster, 32) and since(sessions(cluster)).isdisjoint(before), 60)
        without_copies(cluster)

    return kill


def stop_api_server(cluster: Cluster) -> None:
    cluster.plane.kill("kube-apiserver")
    try:
        time.sleep(AWAY)
    finally:
        cluster.plane.start("kube-apiserver")
        cluster.plane.wait_ready()


def carried(spec: dict[str, str], way: str) -> Any:
    def change(cluster: Cluster) -> None:
        ask(cluster.kubectl, spec)
        arrives(cluster, way, way, BY_BGP)

    return change


DONE = {
    "mesh to reflectors": reflect,
    "VXLAN to BGP": carried({"vxlanMode": "Never"}, "plain"),
    "BGP to VXLAN": carried({"vxlanMode": "Always"}, "vxlan"),
    "agents start anew": restart_agents,
    "one BIRD is killed": kill_birds(1),
    "all BIRDs are killed": kill_birds(4),
    "the API server is away": stop_api_server,
}


def test_a_dead_node_s_routes_leave(speaking: Cluster) -> None:
    speaking.kubectl.run("delete", "bgppeers", "--all")  # the router would go on telling of it for as long as it waits
    speaking.kubectl.apply(configuration(nodeMeshFailureDetectionMode="BFDIfDirectlyConnected"))
    wait("sessions are up", lambda: all_up(speaking, 24), 60)
    dead, other = speaking.nodes[1], speaking.nodes[0]
    wait("node-1 leads to it by BIRD alone", lambda: leads(speaking, other.name, dead.place.address4) == ["bird"], 60)
    link = [*speaking.network.hub.enter, "ip", "link", "set", "port1"]  # its cable, at the other end
    subprocess.run([*link, "down"], check=True)
    try:
        wait("node-1 leads there no more", lambda: not leads(speaking, other.name, dead.place.address4), 20)
    finally:
        subprocess.run([*link, "up"], check=True)


def leads(cluster: Cluster, node: str, address: str) -> list[str]:
    """Return whose routes lead through an address: `bird`, or the agent's number."""
    found = [one.split() for one in routes(cluster, node) if f"via {address} " in one]
    return [words[words.index("proto") + 1] for words in found]


def bird_routes(cluster: Cluster, node: str) -> list[str]:
    """Return BIRD's routes in a node's kernel."""
    return routes(cluster, node, "proto", "bird")


def routes(cluster: Cluster, node: str, *only: str) -> list[str]:
    """Return the routes of a node's kernel, of both families."""
    place = next(one.place for one in cluster.nodes if one.name == node)
    found = list[str]()
    for family in FAMILIES:
        words = [*place.enter, "ip", f"-{family}", "route", "show", *only]
        found += subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    return found


def sessions(cluster: Cluster) -> list[dict[str, Any]]:
    """Return all sessions of all nodes, as their agents say."""
    return [
        {"node": node.name, **one}
        for node in cluster.nodes
        for one in json.loads(in_agent(cluster, node.name, "tortie", "ask", "report"))["sessions"]
    ]


def since(found: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {(one["node"], one["peer"], one["since"]) for one in found}


def all_up(cluster: Cluster, number: int) -> bool:
    """Whether there are so many sessions, and all are up."""
    found = sessions(cluster)
    return len(found) == number and all(one["state"] == "Established" for one in found)


def in_agent(cluster: Cluster, node: str, *command: str) -> str:
    """Run a command in a node's agent; "{}" of one that isn't there at the moment."""
    listed = cluster.kubectl.get("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=agent")["items"]
    name = next(one["metadata"]["name"] for one in listed if one["spec"].get("nodeName") == node)
    return cluster.kubectl.run("exec", "-n", NAMESPACE, name, "--", *command)
