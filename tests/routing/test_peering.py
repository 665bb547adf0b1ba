"""Who peers with whom, and how, row by row: objects as people write them, and the sessions that a node has because of them."""

import re
from typing import NamedTuple

import msgspec
import pytest
import yaml

from tests.routing.bgp import NETWORKS, SECRETS, Row, read, sessions, speakers
from tortie.api import lean
from tortie.routing import peering
from tortie.routing.peering import Session
from tortie.routing.written import as_number, seconds

REFLECTOR = {"b": "244.0.0.1", "d": "244.0.0.1"}
MESH_OFF = "BGPConfiguration/default: {nodeToNodeMeshEnabled: false}\n"
TO_REFLECTORS = "BGPPeer/rr: {nodeSelector: all(), peerSelector: has(reflector)}\n"
TO_B4, TO_B6 = (
    "node b = 192.0.2.2 as 64512, here 192.0.2.1 as 64512",
    "node b = 2001:db8::2 as 64512, here 2001:db8::1 as 64512",
)
TO_C4, TO_D = (
    "node c = 198.51.100.3:1179 as 64513, here 192.0.2.1 as 64512",
    "node d = 192.0.2.4 as 64512, here 192.0.2.1 as 64512",
)
TOR = "BGPPeer tor = 192.0.2.254 as 64601, here 192.0.2.1 as 64512"
FAR = "BGPPeer far = 203.0.113.9 as 64601, here 192.0.2.1 as 64512"


def line(one: Session) -> str:
    """Return a session in one line: what is as usual is left out."""
    port = f":{one.port}" if one.port != 179 else ""
    source = f"{one.source} " if one.source else ""
    more = {
        ", client of ": one.client,
        ", next hop ": one.next_hop,
        ", password ": one.password,
        ", restart ": one.restart if one.restart != 120 else 0,
        ", own as ": one.own_as,
        ", ttl ": one.ttl,
        ", via ": one.via,
        ", filters ": ",".join(one.filters),
    }
    flags = (", direct" if one.direct else "") + (", bfd" if one.bfd else "")
    said = "".join(f"{name}{value}" for name, value in more.items() if value)
    return f"{one.of} = {one.peer}{port} as {one.peer_as}, here {source}as {one.local_as}{flags}{said}"


def peer(spec: str, name: str = "tor") -> str:
    return f"{MESH_OFF}BGPPeer/{name}: {{peerIP: {'203.0.113.9' if name == 'far' else '192.0.2.254'}, asNumber: 64601, {spec}}}"


MESH = {
    "all nodes, in the families that both have": Row(
        "BGPConfiguration/default: {}",
        (f"{TO_B4}, direct", f"{TO_B6}, direct", TO_C4, f"{TO_D}, direct", "node c = 2001:db8:1::3:1179 as 64513"),
        ("node a", "silent", "node d = 2001"),
    ),
    "of a node without IPv6": Row("BGPConfiguration/default: {}", ("node b = 192.0.2.2",), ("2001",), here="d"),
    "without any configuration": Row(peer(""), (f"{TOR}, direct",)),
    "on": Row("BGPConfiguration/default: {nodeToNodeMeshEnabled: true}", (f"{TO_B4}, direct",)),
    "off": Row(MESH_OFF, (), ("=",)),
    "off for one node is for none: the other side would wait": Row(
        "BGPConfiguration/node.a: {nodeToNodeMeshEnabled: false}", (f"{TO_B4}, direct",)
    ),
    "off for another node": Row("BGPConfiguration/node.b: {nodeToNodeMeshEnabled: false}", (f"{TO_B4}, direct",)),
    "of the mesh what is said of all holds, of the node what is said of it": Row(
        "BGPConfiguration/default: {nodeMeshMaxRestartTime: 1m, asNumber: 64520}\n"
        "BGPConfiguration/node.a: {nodeMeshMaxRestartTime: 30s}",
        (f"{TO_B4}, direct, restart 60",),
    ),
    "password": Row(
        "BGPConfiguration/default: {nodeMeshPassword: {secretKeyRef: {name: bgp, key: mesh}}}",
        (f"{TO_B4}, direct, password of the mesh",),
    ),
    "its password is missing": Row(
        "BGPConfiguration/default: {nodeMeshPassword: {secretKeyRef: {name: bgp, key: none}}}",
        hasnt=("=",),
        wrong={"BGPConfiguration": "spec.nodeMeshPassword: Secret bgp has no key none, or agents may not read it"},
    ),
    "its password may be missing": Row(
        "BGPConfiguration/default: {nodeMeshPassword: {secretKeyRef: {name: bgp, key: none, optional: true}}}",
        (f"{TO_B4}, direct",),
    ),
    "a password that is nowhere": Row("BGPConfiguration/default: {nodeMeshPassword: {}}", (f"{TO_B4}, direct",)),
    "restart": Row("BGPConfiguration/default: {nodeMeshMaxRestartTime: 2m30s}", (f"{TO_B4}, direct, restart 150",)),
    "a restart that BGP can't say ends no session": Row(
        "BGPConfiguration/default: {nodeMeshMaxRestartTime: 2h}",
        (f"{TO_B4}, direct", TO_C4),
        wrong={"BGPConfiguration": "spec.nodeMeshMaxRestartTime: 2h is longer than BGP can say: 4095s at most; 120s hold"},
    ),
    "BFD, in a subnet": Row(
        "BGPConfiguration/default: {nodeMeshFailureDetectionMode: BFDIfDirectlyConnected}", (f"{TO_B4}, direct, bfd", TO_C4)
    ),
    # Calico takes reflectors out of the mesh at once. Here they stay until it is off, so that no route is lost on the way.
    "a reflector stays in the mesh": Row("BGPConfiguration/default: {}", (f"{TO_B4}, direct",), clusters=REFLECTOR),
    "and reflects to it": Row(
        "BGPConfiguration/default: {}",
        (
            "node a = 192.0.2.1 as 64512, here 192.0.2.2 as 64512, direct, client of 244.0.0.1",
            "node d = 192.0.2.4 as 64512, here 192.0.2.2 as 64512, direct",
            "node c = 198.51.100.3:1179 as 64513, here 192.0.2.2 as 64512",
        ),
        here="b",
        clusters=REFLECTOR,
    ),
}

SELECTED = {
    "clients have their reflectors": Row(MESH_OFF + TO_REFLECTORS, (f"{TO_B4}, direct", f"{TO_D}, direct"), ("node c",)),
    "reflectors have their clients, and each other": Row(
        MESH_OFF + TO_REFLECTORS,
        (
            "node a = 192.0.2.1 as 64512, here 192.0.2.2 as 64512, direct, client of 244.0.0.1",
            "node c = 198.51.100.3:1179 as 64513, here 192.0.2.2 as 64512",
            "node d = 192.0.2.4 as 64512, here 192.0.2.2 as 64512, direct",
        ),
        here="b",
        clusters=REFLECTOR,
    ),
    "reflectors of two clusters are each other's clients": Row(
        MESH_OFF + TO_REFLECTORS,
        ("node d = 192.0.2.4 as 64512, here 192.0.2.2 as 64512, direct, client of 244.0.0.2",),
        here="b",
        clusters={"b": "244.0.0.2", "d": "244.0.0.1"},
    ),
    "peers of nodes that a selector takes": Row(
        MESH_OFF + "BGPPeer/racks: {nodeSelector: rack == '2', peerSelector: has(reflector)}",
        ("node d = 192.0.2.4 as 64512, here 198.51.100.3 as 64513",),
        ("node a",),
        here="c",
    ),
    "nor more": Row(MESH_OFF + "BGPPeer/racks: {nodeSelector: rack == '2', peerSelector: has(reflector)}", hasnt=("=",)),
    "peers of one node": Row(
        MESH_OFF + "BGPPeer/one: {node: a, peerSelector: rack == '1'}", (f"{TO_B4}, direct",), ("node c", "node d")
    ),
    "of another node": Row(MESH_OFF + "BGPPeer/one: {node: b, peerSelector: rack == '2'}", hasnt=("=",)),
    "back": Row(MESH_OFF + "BGPPeer/one: {node: b, peerSelector: rack == '1', reversePeering: Auto}", (f"{TO_B4}, direct",)),
    "not back, by hand": Row(
        MESH_OFF + "BGPPeer/one: {node: b, peerSelector: rack == '1', reversePeering: Manual}", hasnt=("=",)
    ),
    "forth, by hand": Row(
        MESH_OFF + "BGPPeer/one: {node: a, peerSelector: rack == '1', reversePeering: Manual}", (f"{TO_B4}, direct",)
    ),
    "a selector of nobody, as in Calico": Row(
        MESH_OFF + "BGPPeer/none: {peerSelector: ''}",
        hasnt=("=",),
        wrong={"BGPPeer none": "spec: it names nobody to peer with"},
    ),
    "empty texts are as unset": Row(MESH_OFF + "BGPPeer/one: {node: '', nodeSelector: '', peerSelector: all()}", (TO_C4,)),
    "a selector that can't be read": Row(
        MESH_OFF + "BGPPeer/bad: {peerSelector: 'rack =='}", hasnt=("=",), wrong={"BGPPeer bad": "spec.peerSelector: "}
    ),
    "nodes that can't be read": Row(
        MESH_OFF + "BGPPeer/bad: {nodeSelector: 'rack ==', peerSelector: all()}",
        hasnt=("=",),
        wrong={"BGPPeer bad": "spec.nodeSelector: "},
    ),
    "an AS number for both sides": Row(
        MESH_OFF + "BGPPeer/as: {peerSelector: all(), localASNumber: 65001}",
        ("node c = 198.51.100.3:1179 as 65001, here 192.0.2.1 as 65001",),
    ),
    "pods aren't peers yet": Row(MESH_OFF + "BGPPeer/pods: {localWorkloadSelector: app == 'x', asNumber: 65001}", hasnt=("=",)),
    "in place of the mesh, with what it asks": Row(
        "BGPConfiguration/default: {nodeMeshMaxRestartTime: 1m}\n"
        "BGPPeer/near: {nodeSelector: rack == '1', peerSelector: rack == '1', maxRestartTime: 5s}",
        (f"{TO_B4}, direct, restart 5", f"{TO_C4}, restart 60"),
    ),
    "its place stays empty without its password": Row(
        "BGPConfiguration/default: {}\n"
        "BGPPeer/near: {peerSelector: has(reflector), password: {secretKeyRef: {name: bgp, key: none}}}",
        (TO_C4,),
        ("node b",),
        {"BGPPeer near": "spec.password: Secret bgp has no key none"},
    ),
}

ROUTERS = {
    "of all nodes": Row(peer(""), (f"{TOR}, direct",)),
    "not on the node's networks": Row(peer("", "far"), (FAR,)),
    "of nodes that a selector takes": Row(peer("nodeSelector: rack == '1'"), (f"{TOR}, direct",)),
    "of other nodes": Row(peer("nodeSelector: rack == '2'"), hasnt=("=",)),
    "of one node": Row(peer("node: a"), (f"{TOR}, direct",)),
    "of another node": Row(peer("node: b"), hasnt=("=",)),
    "with a port": Row(
        MESH_OFF + "BGPPeer/tor: {peerIP: '192.0.2.254:1179', asNumber: 64601}", ("BGPPeer tor = 192.0.2.254:1179 as 64601",)
    ),
    "IPv6": Row(
        MESH_OFF + "BGPPeer/tor: {peerIP: '2001:db8::fe', asNumber: 64601}",
        ("BGPPeer tor = 2001:db8::fe as 64601, here 2001:db8::1 as 64512, direct",),
    ),
    "IPv6 with a port": Row(
        MESH_OFF + "BGPPeer/tor: {peerIP: '[2001:db8::fe]:1179', asNumber: 64601}",
        ("BGPPeer tor = 2001:db8::fe:1179 as 64601, here 2001:db8::1 as 64512, direct",),
    ),
    "one address may end as another's port": Row(
        MESH_OFF
        + "BGPPeer/one: {peerIP: '[2001:db8::fe]:1179', asNumber: 1}\nBGPPeer/two: {peerIP: '2001:db8::fe:1179', asNumber: 2}",
        ("BGPPeer one = 2001:db8::fe:1179 as 1", "BGPPeer two = 2001:db8::fe:1179 as 2"),
    ),
    "a node without the family": Row(
        MESH_OFF + "BGPPeer/tor: {peerIP: '2001:db8::fe', asNumber: 64601}",
        hasnt=("=",),
        wrong={"BGPPeer tor": "spec.peerIP: 2001:db8::fe: this node has no IPv6 address to speak from"},
        here="d",
    ),
    "port 0": Row(MESH_OFF + "BGPPeer/tor: {peerIP: '192.0.2.254:0'}", wrong={"BGPPeer tor": "has no port from 1 to 65535"}),
    "no address": Row(
        MESH_OFF + "BGPPeer/tor: {peerIP: router}", wrong={"BGPPeer tor": "spec.peerIP: not an IP address: 'router'"}
    ),
    "an address of a link": Row(
        MESH_OFF + "BGPPeer/tor: {peerIP: 'fe80::1'}",
        wrong={"BGPPeer tor": "spec.peerIP: fe80::1 is the address of one link, which it doesn't name; use another"},
    ),
    "an address of many": Row(MESH_OFF + "BGPPeer/tor: {peerIP: 224.0.0.5}", wrong={"BGPPeer tor": "is no single machine's"}),
    "an address of nobody": Row(MESH_OFF + "BGPPeer/tor: {peerIP: '::'}", wrong={"BGPPeer tor": "is no one's address"}),
    "AS number as text": Row(
        MESH_OFF + "BGPPeer/tor: {peerIP: 192.0.2.254, asNumber: '1.10'}", ("BGPPeer tor = 192.0.2.254 as 65546",)
    ),
    "without an AS number it is the node's": Row(
        MESH_OFF + "BGPPeer/tor: {peerIP: 192.0.2.254}", ("BGPPeer tor = 192.0.2.254 as 64512, here 192.0.2.1 as 64512",)
    ),
    "AS number that is none": Row(
        MESH_OFF + "BGPPeer/tor: {peerIP: 192.0.2.254, asNumber: '0'}",
        wrong={"BGPPeer tor": "spec.asNumber: '0' is no AS number"},
    ),
    "the node's AS number towards it": Row(
        peer("localASNumber: 65001"), ("BGPPeer tor = 192.0.2.254 as 64601, here 192.0.2.1 as 65001",)
    ),
    "one that is none": Row(peer("localASNumber: '70000.1'"), wrong={"BGPPeer tor": "spec.localASNumber: '70000.1' is no AS"}),
    "an inner router is a reflector's client": Row(
        MESH_OFF + "BGPPeer/tor: {peerIP: 192.0.2.254}",
        ("BGPPeer tor = 192.0.2.254 as 64512, here 192.0.2.2 as 64512, direct, client of 244.0.0.1",),
        here="b",
        clusters=REFLECTOR,
    ),
    "two say the same": Row(
        f"{peer('')}\nBGPPeer/a-tor: {{peerIP: 192.0.2.254, asNumber: 64999}}",
        ("BGPPeer a-tor = 192.0.2.254 as 64999",),
        ("BGPPeer tor",),
        {"BGPPeer tor": "BGPPeer a-tor says what holds for 192.0.2.254 on this node; delete one, or narrow it"},
    ),
    "the one that says more about the node holds": Row(
        f"{peer('')}\nBGPPeer/rack: {{nodeSelector: rack == '1', peerIP: 192.0.2.254, asNumber: 64999}}\n"
        "BGPPeer/one: {node: a, peerIP: 192.0.2.254, asNumber: 65000}",
        ("BGPPeer one = 192.0.2.254 as 65000",),
        ("BGPPeer tor", "BGPPeer rack"),
    ),
    "on other nodes the one that is left": Row(
        f"{peer('')}\nBGPPeer/one: {{node: a, peerIP: 192.0.2.254, asNumber: 65000}}", ("BGPPeer tor = 192.0.2.254",), here="b"
    ),
}

# peerIP that is a node's address: as in Calico, that node peers back, and its port holds where none is written.
NODES = {
    "forth": Row(
        MESH_OFF + "BGPPeer/c: {node: a, peerIP: 198.51.100.3, asNumber: 64513}",
        ("node c = 198.51.100.3:1179 as 64513, here 192.0.2.1 as 64512",),
    ),
    "back": Row(
        MESH_OFF + "BGPPeer/c: {node: a, peerIP: 198.51.100.3, asNumber: 64513}",
        ("node a = 192.0.2.1 as 64512, here 198.51.100.3 as 64513",),
        ("node b", "2001", "BGPPeer c"),
        here="c",
    ),
    "back, to all nodes": Row(
        MESH_OFF + "BGPPeer/b: {peerIP: '2001:db8::2'}",
        ("node a = 2001:db8::1", "node c = 2001:db8:1::3:1179"),
        ("node d", "192.0.2.1"),
        here="b",
    ),
    "not back, by hand": Row(
        MESH_OFF + "BGPPeer/b: {node: a, peerIP: 192.0.2.2, reversePeering: Manual}", hasnt=("=",), here="b"
    ),
    "not back where the AS number is another's": Row(
        MESH_OFF + "BGPPeer/b: {node: a, peerIP: 192.0.2.2, asNumber: 65000}", hasnt=("=",), here="b"
    ),
    "not back where the port is another's": Row(
        MESH_OFF + "BGPPeer/b: {node: a, peerIP: '192.0.2.2:1179'}", hasnt=("=",), here="b"
    ),
    "with another AS number, both ways": Row(
        MESH_OFF + "BGPPeer/b: {node: a, peerIP: 192.0.2.2, localASNumber: 65001, asNumber: 64512}",
        ("node a = 192.0.2.1 as 65001, here 192.0.2.2 as 64512",),
        here="b",
    ),
    "a reflector by its address": Row(
        MESH_OFF + "BGPPeer/b: {peerIP: 192.0.2.2}",
        ("node a = 192.0.2.1 as 64512, here 192.0.2.2 as 64512, direct, client of 244.0.0.1",),
        here="b",
        clusters=REFLECTOR,
    ),
}

FIELDS = {
    "password": Row(peer("password: {secretKeyRef: {name: bgp, key: tor}}"), (f"{TOR}, direct, password s3cret",)),
    "password missing": Row(
        peer("password: {secretKeyRef: {name: nil, key: tor}}"),
        hasnt=("=",),
        wrong={
            "BGPPeer tor": "spec.password: Secret nil has no key tor, or agents may not read it; no session comes up until then"
        },
    ),
    "password that may be missing": Row(
        peer("password: {secretKeyRef: {name: nil, key: tor, optional: true}}"), (f"{TOR}, direct",)
    ),
    "password that would end BIRD's text": Row(
        peer("password: {secretKeyRef: {name: bgp, key: quoted}}"),
        hasnt=("=",),
        wrong={"BGPPeer tor": "spec.password: key quoted of Secret bgp must be 1 to 80 printable bytes"},
    ),
    "password that the kernel can't take": Row(
        peer("password: {secretKeyRef: {name: bgp, key: long}}"), hasnt=("=",), wrong={"BGPPeer tor": "1 to 80 printable bytes"}
    ),
    "source": Row(peer("sourceAddress: UseNodeIP"), (f"{TOR}, direct",)),
    "source of the kernel's choice": Row(
        peer("sourceAddress: None"), ("BGPPeer tor = 192.0.2.254 as 64601, here as 64512, direct",)
    ),
    "no other source where it listens on its address alone": Row(
        "BGPConfiguration/default: {nodeToNodeMeshEnabled: false, bindMode: NodeIP}\n"
        "BGPPeer/tor: {peerIP: 192.0.2.254, asNumber: 64601, sourceAddress: None}",
        (f"{TOR}, direct",),
    ),
    "next hop kept": Row(peer("keepOriginalNextHop: true"), (f"{TOR}, direct, next hop keep",)),
    "next hop kept between two AS only": Row(
        MESH_OFF + "BGPPeer/in: {peerSelector: all(), keepOriginalNextHop: true}",
        (f"{TO_B4}, direct", f"{TO_C4}, next hop keep"),
    ),
    "next hop Keep": Row(peer("nextHopMode: Keep"), (f"{TOR}, direct, next hop keep",)),
    "next hop Self": Row(peer("nextHopMode: Self"), (f"{TOR}, direct, next hop self",)),
    "next hop Auto": Row(peer("nextHopMode: Auto"), (f"{TOR}, direct",)),
    "restart": Row(peer("maxRestartTime: 90s"), (f"{TOR}, direct, restart 90",)),
    "restart that can't be": Row(
        peer("maxRestartTime: 5000s"),
        (f"{TOR}, direct",),
        wrong={"BGPPeer tor": "spec.maxRestartTime: 5000s is longer than BGP"},
    ),
    "own AS in the path": Row(peer("numAllowedLocalASNumbers: 3"), (f"{TOR}, direct, own as 3",)),
    "own AS as often as can be": Row(peer("numAllowedLocalASNumbers: 99999999999"), (f"{TOR}, direct, own as 255",)),
    "TTL": Row(peer("ttlSecurity: 1"), (f"{TOR}, direct, ttl 1",)),
    "TTL not checked": Row(peer("ttlSecurity: 0"), (f"{TOR}, direct",)),
    "gateway": Row(peer("reachableBy: 192.0.2.253", "far"), (f"{FAR}, via 192.0.2.253",)),
    "gateway of another family": Row(
        peer("reachableBy: '2001:db8::fd'", "far"),
        hasnt=("=",),
        wrong={"BGPPeer far": "spec.reachableBy: 2001:db8::fd isn't of the peer's family; write a gateway that is"},
    ),
    "gateway of one family of two": Row(
        MESH_OFF + "BGPPeer/c: {node: c, peerSelector: all(), reachableBy: '2001:db8::fd'}",
        (TO_C4, "node c = 2001:db8:1::3:1179 as 64513, here 2001:db8::1 as 64512, via 2001:db8::fd"),
    ),
    "gateway that is none": Row(peer("reachableBy: gw"), wrong={"BGPPeer tor": "spec.reachableBy: not an IP address: 'gw'"}),
    "BFD": Row(peer("failureDetectionMode: BFDIfDirectlyConnected"), (f"{TOR}, direct, bfd",)),
    "BFD, not connected": Row(peer("failureDetectionMode: BFDIfDirectlyConnected", "far"), (FAR,)),
    "BFD, hops": Row(peer("failureDetectionMode: BFDIfDirectlyConnected, ttlSecurity: 2"), (f"{TOR}, direct, ttl 2",)),
    "no BFD": Row(peer("failureDetectionMode: None"), (f"{TOR}, direct",)),
    "filters, in order": Row(peer("filters: [two, one]"), (f"{TOR}, direct, filters two,one",)),
}
ROWS = {
    f"{of}: {name}": row
    for of, rows in (("mesh", MESH), ("selected", SELECTED), ("router", ROUTERS), ("node", NODES), ("field", FIELDS))
    for name, row in rows.items()
}


@pytest.mark.parametrize("name", ROWS)
def test_sessions(name: str) -> None:
    row = ROWS[name]
    found, wrong = sessions(read(row.written), row.here, row.clusters)
    lines = [line(one) for one in found]
    assert [one for one in row.has if not any(f"{said},".startswith((f"{one},", f"{one} as")) for said in lines)] == [], lines
    assert [one for one in row.hasnt if any(one in said for said in lines)] == [], lines
    assert wrong.keys() == row.wrong.keys(), wrong
    assert [where for where, words in row.wrong.items() if words not in wrong[where]] == [], wrong
    assert len({one.name for one in found}) == len(found)


@pytest.mark.parametrize("name", ROWS)
def test_both_sides_mean_the_same(name: str) -> None:
    """A session between two nodes is there on both, unless it is done by hand or is meant for another AS or port."""
    row = ROWS[name]
    if any(words in row.written for words in ("Manual", "65000}", "1179'}", "node.")):
        return
    written, nodes = read(row.written), speakers(clusters=row.clusters)
    of = {node: sessions(written, node, row.clusters)[0] for node in nodes}
    at = {str(one.address): node for node, speaker in nodes.items() for one in speaker.addresses.values()}

    def seen(one: Session, here: str) -> tuple[object, ...]:
        ends = sorted(
            [(str(one.source or nodes[here].addresses[one.peer.family].address), one.local_as), (str(one.peer), one.peer_as)]
        )
        return (*ends, one.password, one.restart, one.ttl, one.bfd, one.filters)

    for node, found in of.items():
        for one in found:
            if (other := at.get(str(one.peer))) is not None:
                assert seen(one, node) in [seen(theirs, other) for theirs in of[other]], (node, line(one))


def test_a_secret_is_in_no_representation() -> None:
    found, _ = sessions(read(peer("password: {secretKeyRef: {name: bgp, key: tor}}")))
    assert SECRETS["bgp", "tor"] not in repr(found)


# What other nodes' agents say is checked: one node's word ends no other's sessions.
UNFIT = {
    "0.0.0.0/0": "0.0.0.0 is no one's address; no session is made with it",
    "fe80::1/64": "fe80::1 is the address of one link, which it doesn't name; use another",
    "ff02::1/128": "ff02::1 is no single machine's address",
}
TAKEN = {
    "192.0.2.1/24": "192.0.2.1 is node a's as well",
    "192.0.2.2/24": "192.0.2.2 is node b's as well; no session is made with it",
}


@pytest.mark.parametrize("at", UNFIT)
def test_an_address_that_a_node_cant_have(at: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"status.addresses: {UNFIT[at]}")):
        speakers(f"zz: {{addresses: ['{at}'], bgp: {{asNumber: 1}}}}")


@pytest.mark.parametrize("name", ["zz", "a0"])
@pytest.mark.parametrize("at", TAKEN)
def test_an_address_that_another_node_has(at: str, name: str) -> None:
    """Whatever its name, what it says counts for nothing: that node was there before."""
    nodes = speakers(f"{NETWORKS}\n{name}: {{addresses: [{at}, '2001:db8::99/64'], bgp: {{asNumber: 1}}}}")
    known = [one._replace(created="2026-02" if one.name == name else "2026-01") for one in nodes.values()]
    mesh = read("BGPConfiguration/default: {}").objects
    found, wrong = peering.sessions(mesh, nodes["a"], known, {})
    assert TAKEN[at] in wrong.pop(f"NodeNetwork {name}")
    assert wrong == {}
    lines = {line(one) for one in found}
    assert {f"{TO_B4}, direct", f"{TO_D}, direct", TO_C4} < lines
    own = [one for one in lines if f"node {name}" in one]
    assert own == [f"node {name} = 2001:db8::99 as 1, here 2001:db8::1 as 64512, direct"]


class Said(NamedTuple):
    """A Node's annotations, objects, and what the node says of itself; or words of why it can't."""

    annotations: str
    written: str
    says: str


AS, CLUSTER = "tortie.dev/as-number", "tortie.dev/route-reflector-cluster-id"
SAID = {
    "nothing": Said("{}", "", "64512 179 None"),
    "an AS number of all": Said("{}", "BGPConfiguration/default: {asNumber: 65001, listenPort: 1790}", "65001 1790 None"),
    "AS numbers as text": Said("{}", "BGPConfiguration/default: {asNumber: '1.10'}", "65546 179 None"),
    "one of the node": Said(
        "{}", "BGPConfiguration/default: {asNumber: 65001}\nBGPConfiguration/node.a: {asNumber: 65002}", "65002 179 None"
    ),
    "another node's": Said("{}", "BGPConfiguration/node.b: {asNumber: 65002, listenPort: 1790}", "64512 179 None"),
    "one of the Node": Said(f"{{{AS}: '65003'}}", "BGPConfiguration/node.a: {asNumber: 65002}", "65003 179 None"),
    "the Node's as text": Said(f"{{{AS}: '1.1'}}", "", "65537 179 None"),
    "a reflector": Said(f"{{{CLUSTER}: 244.0.0.1}}", "", "64512 179 244.0.0.1"),
    "no AS number": Said(
        "{}", "BGPConfiguration/default: {asNumber: '0'}", "BGPConfiguration: spec.asNumber: '0' is no AS number"
    ),
    "no AS number of the Node": Said(f"{{{AS}: ten}}", "", "annotation tortie.dev/as-number of Node a: 'ten' is no AS number"),
    "no cluster": Said(
        f"{{{CLUSTER}: 'fd00::1'}}", "", f"annotation {CLUSTER} of Node a: 'fd00::1' is no cluster id: write one as"
    ),
    "no cluster at all": Said(f"{{{CLUSTER}: one}}", "", f"annotation {CLUSTER} of Node a: 'one' is no cluster id"),
}


@pytest.mark.parametrize("name", SAID)
def test_what_a_node_says_of_itself(name: str) -> None:
    row = SAID[name]
    objects, annotations = read(row.written).objects, yaml.safe_load(row.annotations)
    if " is no " in row.says:
        with pytest.raises(ValueError, match=re.escape(row.says)):
            peering.speaker("a", {}, annotations, objects)
        return
    said = peering.speaker("a", {"rack": "1"}, annotations, objects)
    assert f"{said.as_number} {said.port} {said.cluster_id}" == row.says
    network = lean.Network(lean.Metadata("a"), status=lean.NetworkStatus(("192.0.2.1/24",), bgp=said))
    heard = peering.speaker_of(msgspec.convert(msgspec.to_builtins(network), type=lean.Network))
    assert heard is not None
    assert (heard.as_number, heard.port, heard.cluster_id or None) == (said.as_number, said.port, said.cluster_id)
    assert heard.labels == {"rack": "1"}


def test_what_is_heard_of_a_node() -> None:
    assert "silent" not in speakers(), "a node that says nothing of BGP is no speaker"
    odd = speakers("a: {addresses: [192.0.2.1/24], bgp: {asNumber: 64512, clusterID: 244.0.0.1, labels: [odd, a=b=c, d=]}}")[
        "a"
    ]
    assert odd.labels == {"odd": "", "a": "b=c", "d": ""}
    assert odd.cluster_id == "244.0.0.1"


def test_whether_nodes_speak() -> None:
    assert not read("").objects.speak
    assert not read("BGPFilter/one: {}").objects.speak
    assert read("BGPConfiguration/default: {}").objects.speak
    assert read("BGPPeer/tor: {peerIP: 192.0.2.254}").objects.speak


NUMBERS: dict[int | str, int] = {
    1: 1,
    4294967295: 4294967295,
    "64512": 64512,
    "0.1": 1,
    "1.10": 65546,
    "65535.65535": 4294967295,
}
NO_NUMBERS: tuple[int | str, ...] = (
    0,
    -1,
    4294967296,
    "0",
    "0.0",
    "65536.1",
    "1.65536",
    "1.",
    ".1",
    "1.1.1",
    "ten",
    "",
    " 1",
    "1e3",
    "٣",
)


def test_as_numbers() -> None:
    assert {said: as_number(said) for said in NUMBERS} == NUMBERS
    for said in NO_NUMBERS:
        with pytest.raises(ValueError, match="is no AS number"):
            as_number(said)


DURATIONS = {
    "90s": 90,
    "2m": 120,
    "1h1m35s": 3695,
    "2m30.4s": 150,
    "1500ms": 2,
    "10ns": 1,
    "0s": 1,
    "4095s": 4095,
    "0.5h": 1800,
}


def test_durations() -> None:
    assert {said: seconds(said) for said in DURATIONS} == DURATIONS
    for said in ("", "90", "s", "2 m", "-1s", "1d", "1m,", "4096s", "9" * 31 + "h"):
        with pytest.raises(ValueError, match=r"is no duration|is longer than BGP can say"):
            seconds(said)
