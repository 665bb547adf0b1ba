"""The node's address, way by way; and what the real kernel says of a node's links."""

import sys

import pytest

from tests.agent.namespaces import namespaces, needs_root, run
from tortie.addressing.ranges import Family
from tortie.agent.detection import BadMethod, Interface, detect
from tortie.routing.carriage import node_address


def links(**addresses: str) -> list[Interface]:
    return [Interface(name, tuple(map(node_address, texts.split()))) for name, texts in addresses.items()]


LINKS = links(docker0="172.17.0.1/16", eth0="192.0.2.7/24 2001:db8::7/64", eth1="198.51.100.7/24")
ROWS: dict[str, tuple[Family, str, list[str], str | None]] = {
    "the Node's InternalIP": (4, "kubernetes-internal-ip", ["198.51.100.7"], "198.51.100.7/24"),
    "which no link has": (4, "kubernetes-internal-ip", ["203.0.113.9"], "203.0.113.9/32"),
    "of the other family only": (6, "kubernetes-internal-ip", ["198.51.100.7"], "2001:db8::7/64"),
    "a Node without addresses": (4, "kubernetes-internal-ip", [], "192.0.2.7/24"),
    "the first, Docker's bridge left out": (4, "first-found", [], "192.0.2.7/24"),
    "towards somebody": (4, "can-reach=203.0.113.1", [], "198.51.100.7/24"),
    "towards nobody": (4, "can-reach=10.0.0.1", [], None),
    "a link by name": (4, "interface=eth1|eth2", [], "198.51.100.7/24"),
    "a link by name, even a bridge": (4, "interface=docker.*", [], "172.17.0.1/16"),
    "not a link": (4, "skip-interface=eth0", [], "198.51.100.7/24"),
    "by range": (4, "cidr=203.0.113.0/24,198.51.100.0/24", [], "198.51.100.7/24"),
    "by range, the other family": (6, "cidr=2001:db8::/32", [], "2001:db8::7/64"),
    "no such link": (4, "interface=bond0", [], None),
}


@pytest.mark.parametrize("row", ROWS)
def test_detected(row: str) -> None:
    family, method, internal, expected = ROWS[row]
    found = detect(family, method, internal, LINKS, {"203.0.113.1": "198.51.100.7"}.get)
    assert (found and str(found)) == expected


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("first", "'first' is none of: kubernetes-internal-ip"),
        ("can-reach=", "'can-reach=' is none of"),
        ("interface=(", "no regular expression"),
        ("cidr=10.0.0.0/99", "not a CIDR: '10.0.0.0/99'"),
    ],
)
def test_what_can_t_be_understood_is_named(method: str, words: str) -> None:
    with pytest.raises(BadMethod, match=words):
        detect(4, method, [], LINKS, lambda _: None)


@needs_root
def test_the_kernel_s_links() -> None:
    code = "from tortie.agent.detection import *; print(interfaces(), source('192.0.2.9'), source('203.0.113.1'), source('x'))"
    with namespaces(1) as (path,):
        run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"], path)
        for name in ("eth0", "eth1"):
            run(["ip", "link", "set", name, "up"], path)
        run(["ip", "addr", "add", "192.0.2.7/24", "dev", "eth0"], path)
        run(["ip", "link", "add", "down0", "type", "bridge"], path)
        run(["ip", "addr", "add", "198.51.100.1/24", "dev", "down0"], path)
        said = run([sys.executable, "-c", code], path)
    assert "Interface(name='eth0', addresses=(NodeAddress(address=Address(family=4, value=3221225991), prefix=24),))" in said
    assert "down0" not in said
    assert said.endswith("192.0.2.7 None None\n")
