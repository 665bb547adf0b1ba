"""The wire of pods in real namespaces: packets pass, nothing is left, and what is broken is named."""

import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier
from typing import Any, TypeVar

import pytest

from tests.agent.namespaces import namespaces, needs_root, run
from tortie.addressing.allocator import Address, address
from tortie.agent.wire import _DELETERS, Wire, WireError, host_name

T = TypeVar("T")
pytestmark = needs_root
ONE = [address("10.1.0.1"), address("fd00::1")]
TWO = [address("10.1.0.2"), address("fd00::2")]


class Node:
    """A node's namespace and two pods', and the wires of the node, used from one thread as the agent does."""

    def __init__(self, path: str, pods: list[str]) -> None:
        self.path, self.pods = path, pods
        self.wire = Wire(1400, path)
        self.thread = ThreadPoolExecutor(1)
        self.do(self.wire.prepare)

    def do(self, call: Callable[..., T], *arguments: Any) -> T:
        return self.thread.submit(call, *arguments).result()

    def ip(self, *arguments: str, pod: int | None = None) -> str:
        return run(["ip", *arguments], self.path if pod is None else self.pods[pod])

    def close(self) -> None:
        self.do(self.wire.close)
        self.thread.shutdown()


@pytest.fixture
def node() -> Iterator[Node]:
    with namespaces(3) as (path, *pods), closing(Node(path, pods)) as made:
        yield made


def attach(node: Node, pod: int, addresses: list[Address]) -> str:
    host = host_name(f"container-{pod}", "eth0")
    node.do(node.wire.attach, node.pods[pod], "eth0", host, addresses)
    return host


@pytest.mark.parametrize("family", [4, 6])
def test_pods_reach_each_other(node: Node, family: int) -> None:
    attach(node, 0, ONE)
    attach(node, 1, TWO)
    target = next(str(a) for a in TWO if a.family == family)
    run(["busybox", "ping", "-c", "1", "-W", "5", target], node.pods[0])


def test_what_a_calico_person_expects(node: Node) -> None:
    host = attach(node, 0, ONE)
    assert f"10.1.0.1 dev {host} proto 201 scope link" in node.ip("route")
    assert "default via 169.254.1.1 dev eth0" in node.ip("route", pod=0)
    assert "inet 10.1.0.1/32" in node.ip("addr", "show", "eth0", pod=0)
    assert "mtu 1400" in node.ip("link", "show", host)
    assert node.do(node.wire.inventory) == {host: ONE}


def test_repeated_it_is_left_alone(node: Node) -> None:
    host = attach(node, 0, ONE)
    before = node.ip("link", "show", host)
    attach(node, 0, ONE)
    assert node.ip("link", "show", host) == before


def test_half_of_one_is_made_whole(node: Node) -> None:
    attach(node, 0, ONE)
    node.ip("route", "del", "default", pod=0)
    host = attach(node, 0, ONE)
    node.do(node.wire.check, node.pods[0], "eth0", host, ONE)


def test_detached_nothing_is_left(node: Node) -> None:
    before = node.ip("link"), node.ip("route"), node.ip("-6", "route", "show", "proto", "201")
    for _ in range(3):
        host = attach(node, 0, ONE)
        node.do(node.wire.detach, host)
    node.do(node.wire.detach, host)
    assert (node.ip("link"), node.ip("route"), node.ip("-6", "route", "show", "proto", "201")) == before


BROKEN: dict[str, tuple[list[str], str]] = {
    "address": (["pod", "addr", "del", "10.1.0.1/32", "dev", "eth0"], "hasn't the address 10.1.0.1"),
    "default route": (["pod", "route", "del", "default"], "default route via 169.254.1.1 is missing"),
    "down": (["pod", "link", "set", "eth0", "down"], "is not ours or not up"),
    "mtu": (["pod", "link", "set", "eth0", "mtu", "1300"], "the MTU is 1300 in the pod and 1400 on the node"),
    "sysctl": (["sysctl", "net/ipv4/conf/{host}/proxy_arp", "0"], "proxy_arp is 0, not 1"),
    "IPv6 address": (["pod", "addr", "del", "fd00::1/128", "dev", "eth0"], "hasn't the address fd00::1"),
    "IPv6 route": (["pod", "-6", "route", "del", "default"], "default route via fe80::ecee:eeff:feee:eeee is missing"),
    "node's route": (["node", "route", "del", "10.1.0.1"], "the node's route to 10.1.0.1 is missing"),
    "link": (["node", "link", "del", "{host}"], "is missing on the node"),
}


@pytest.mark.parametrize("row", BROKEN)
def test_check_names_what_is_broken(node: Node, row: str) -> None:
    host = attach(node, 0, ONE)
    (where, *command), words = BROKEN[row]
    words_ = [part.format(host=host) for part in command]
    if where == "sysctl":
        run(["sh", "-c", f"echo {words_[1]} > /proc/sys/{words_[0]}"], node.path)
    else:
        node.ip(*words_, pod=0 if where == "pod" else None)
    with pytest.raises(WireError, match=words):
        node.do(node.wire.check, node.pods[0], "eth0", host, ONE)


def test_an_interface_of_somebody_else(node: Node) -> None:
    node.ip("link", "add", "eth0", "type", "veth", "peer", "other", pod=0)
    with pytest.raises(WireError, match="has an interface eth0 already"):
        attach(node, 0, ONE)
    assert "cali" not in node.ip("link")


@pytest.mark.parametrize(
    ("path", "words"), [("/run/netns/nobody", "can't be opened"), ("/etc/hostname", "is not a network namespace")]
)
def test_no_namespace(node: Node, path: str, words: str) -> None:
    with pytest.raises(WireError, match=words):
        node.do(node.wire.attach, path, "eth0", "cali1", ONE)
    assert "cali" not in node.ip("link")


def test_no_handle_is_lost(node: Node) -> None:
    attach(node, 0, ONE)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        attach(node, 0, ONE)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 8


def test_the_mtu_is_that_of_the_nodes_smallest_link(node: Node) -> None:
    for name, mtu, address_ in (("large", "9000", "192.0.2.1/24"), ("small", "1450", "198.51.100.1/24"), ("idle", "1300", "")):
        node.ip("link", "add", name, "mtu", mtu, "type", "veth", "peer", f"{name}-far")
        node.ip("link", "set", f"{name}-far", "up")
        node.ip("link", "set", name, "up")
        if address_:
            node.ip("addr", "add", address_, "dev", name)
    wire = Wire(0, node.path)
    node.do(wire.prepare)
    node.do(wire.close)
    assert wire.mtu == 1450


@pytest.mark.parametrize("family", [4, 6])
def test_a_pod_with_one_family(node: Node, family: int) -> None:
    one, two = ([a for a in both if a.family == family] for both in (ONE, TWO))
    host = attach(node, 0, one)
    attach(node, 1, two)
    run(["busybox", "ping", "-c", "1", "-W", "5", str(two[0])], node.pods[0])
    assert node.do(node.wire.inventory)[host] == one


@pytest.mark.parametrize("path", ["/run/netns/nobody", "/etc/hostname"])
def test_a_namespace_that_is_none_any_more_is_named(node: Node, path: str) -> None:
    host = attach(node, 0, ONE)
    with pytest.raises(WireError, match=path):
        node.do(node.wire.check, path, "eth0", host, ONE)


def test_a_link_made_after_an_unknown_one_was_deleted_stays(node: Node) -> None:
    host = host_name("container-0", "eth0")
    for _ in range(5):
        node.do(node.wire.detach, host)
        attach(node, 0, ONE)
        node.do(node.wire.check, node.pods[0], "eth0", host, ONE)


def test_a_pod_keeps_the_mtu_of_its_time(node: Node) -> None:
    host = attach(node, 0, ONE)
    before = node.ip("link", "show", host)
    node.wire.mtu = 1300
    node.do(node.wire.check, node.pods[0], "eth0", host, ONE)
    attach(node, 0, ONE)
    assert node.ip("link", "show", host) == before


def test_a_link_isn_t_gone_where_no_file_can_be_opened(node: Node) -> None:
    host, all_there = attach(node, 0, ONE), Barrier(_DELETERS)
    for _ in node.wire._deleters.map(lambda _: all_there.wait(10), range(_DELETERS)):
        pass  # each of its threads has entered the node's namespace, which opens a file
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, limits[1]))
    try:
        with pytest.raises(WireError, match=f"{host} can't be removed: .*Too many open files"):
            node.do(node.wire.detach, host)
        assert node.do(node.wire.inventory) == {host: ONE}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert host in node.ip("link")
    node.do(node.wire.detach, host)
    assert host not in node.ip("link")
