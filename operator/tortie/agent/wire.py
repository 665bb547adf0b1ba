"""The wire of one pod: a veth pair, the pod's addresses and default route, the host's route to it.

As Calico does it, so that `ip addr` and `ip route` show what people expect. Everything goes through netlink: no process a
pod. The functions are synchronous and are called in threads; a thread enters the pod's namespace for a moment.
"""

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, config, netns
from pyroute2.netlink.exceptions import NetlinkError

from tortie.addressing.allocator import Address, address
from tortie.addressing.ranges import BITS
from tortie.agent import netlink
from tortie.agent.faults import point
from tortie.agent.netlink import AF, Netlink

GROUP = 0x746F7274  # "tort": the link group that tells our interfaces from others'
_ETHERNET = 1500  # bytes, where no link says another
VXLAN, IPIP = "vxlan.tortie", "tunl.tortie"  # the node's tunnels (`tortie.agent.overlay`)
PROTOCOL = 201  # of every route of ours; iproute2's rt_protos has no name for it
HOST_MAC = "ee:ee:ee:ee:ee:ee"
# What a pod takes for its router: RFC 3927's range for IPv4, HOST_MAC's EUI-64 for IPv6 (RFC 4291, appendix A).
GATEWAY = {4: "169.254.1.1", 6: "fe80::ecee:eeff:feee:eeee"}
# proxy_arp: we answer for the gateway, which nobody has; at once, not after a random delay.
_HOST_SYSCTLS = {
    4: {"proxy_arp": "1", "forwarding": "1", "rp_filter": "0"},
    6: {"proxy_ndp": "1", "forwarding": "1", "accept_ra": "0", "accept_dad": "0"},
}
# The kernel's deletion of a link takes 30 ms, of which the link is there for one (measured, 100 links): the rest waits for
# others to forget it. So many links may be in that state before the next one waits.
_DELETERS = 8
_GLANCE = 0.0005  # seconds between two looks whether a link is gone, or up
_LOOPBACK = 1  # its index in every namespace
_UP = 2.0  # seconds until a link must be up; it takes well under a millisecond
# In a container /proc/sys can't be written; the chart mounts the node's, which is that of whatever namespace a thread is in.
_SYSCTLS = next(path for path in (Path("/host/proc/sys"), Path("/proc/sys")) if path.is_dir())
_NODE_SYSCTLS = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")


class WireError(Exception):
    """The kernel isn't as it must be; the message says what, where, and what to do where anything can be done."""


def host_name(container: str, ifname: str) -> str:
    """Return the name of the host's end: containers of one pod may overlap for a while, so the pod's name isn't in it."""
    return "cali" + hashlib.sha256(f"{container}/{ifname}".encode()).hexdigest()[:11]


class Wire:
    """The wires of a node. `node` is the path of the node's namespace, "" for the process's own.

    `mtu` is in bytes; 0 takes the smallest of the node's links, so that a packet that a pod sends fits everywhere.
    """

    def __init__(self, mtu: int, node: str = "") -> None:
        self.mtu = mtu
        self._given, self._carried, self._node = mtu, _ETHERNET, node
        self._own = threading.local()
        self._sockets: list[Netlink] = []
        self._deleters = futures.ThreadPoolExecutor(_DELETERS, "delete", self._enter)

    def close(self) -> None:
        """Close what the threads opened; they must have ended, or be idle."""
        self._deleters.shutdown()
        while self._sockets:
            self._sockets.pop().close()

    def prepare(self) -> None:
        """Let the node forward packets, and find out the MTU."""
        config.default_communicate_timeout = 30  # seconds, in place of 2: a node that boots is busy
        with self._here(), IPRoute() as kernel:
            netns.setns(self._own.home)  # the first time it looks for the C library, by a process: not while a pod waits
            for name in _NODE_SYSCTLS:
                write_sysctl(name, "1")
            self._carried = _smallest_mtu(kernel)
            self.mtu = self._given or self._carried

    def leave_room(self, octets: int) -> None:
        """Let pods' packets be so much smaller than what the node's links carry, unless their size was given."""
        self.mtu = self._given or self._carried - octets

    def attach(self, namespace: str, ifname: str, host: str, addresses: Sequence[Address]) -> tuple[str, str]:
        """Make the link and return the MAC of the host's end and of the pod's; one that is there and whole is left alone."""
        with self._here() as node, _opened(namespace) as pod:
            if node.index(host):
                try:
                    return self._check(pod, ifname, host, addresses)
                except (WireError, NetlinkError, OSError):
                    _delete(node, node.index(host))
            mac = pod_mac(host)
            try:
                node.ask(netlink.veth(host, GROUP, HOST_MAC, self.mtu, (pod, ifname, mac)))
                point("wire made")
                index = node.index(host)
                self._raise_host(node, host, index, addresses)
                self._wire_pod(pod, ifname, addresses)
                point("pod wired")
                self._wire_host(node, index, mac, addresses)
                _wait_up(node, host, index)
                point("host wired")
            except (NetlinkError, OSError) as error:
                with suppress(NetlinkError):
                    _delete(node, node.index(host))
                wanted = ", ".join(map(str, addresses))
                why = _why(error, ifname, namespace)
                raise WireError(f"{ifname} in {namespace} could not be given {wanted}: {why}") from error
            return HOST_MAC, mac

    def detach(self, host: str) -> None:
        """Return when the link is gone, and with it all that leads there; one that isn't there is fine.

        The kernel goes on for a while after that. Its routes go before its name does (`unregister_netdevice_many`).
        """
        with self._here() as node:
            index = node.index(host)
            if not index:
                return
            # By its index: a link made under this name afterwards is another.
            deletion = self._deleters.submit(_delete_link, index)
            while node.index(host) == index and not deletion.done():
                futures.wait([deletion], _GLANCE)
            try:
                if deletion.done():
                    deletion.result()
            except (NetlinkError, OSError) as error:
                raise WireError(f"{host} can't be removed: {error}") from error

    def check(self, namespace: str, ifname: str, host: str, addresses: Sequence[Address]) -> None:
        """Raise WireError naming the first thing that isn't as `attach` made it."""
        with self._here(), _opened(namespace) as pod:
            try:
                self._check(pod, ifname, host, addresses)
            except (NetlinkError, OSError) as error:
                raise WireError(f"{ifname} in {namespace} can't be looked at: {_why(error, ifname, namespace)}") from error

    def inventory(self) -> dict[str, list[Address]]:
        """Return the host's ends that are there, with the addresses that our routes lead there; raises WireError."""
        try:
            with self._here() as node:
                links = {link["index"]: str(link.get("ifname")) for link in node.links() if link.get("group") == GROUP}
                found: dict[str, list[Address]] = {name: [] for name in links.values()}
                for family in (4, 6):
                    for route in node.routes(family, PROTOCOL, pods=True):
                        if route.get("oif") in links and route["dst_len"] == BITS[family]:
                            found[links[route.get("oif")]].append(address(route.get("dst")))
                return found
        except (NetlinkError, OSError) as error:
            raise WireError(f"the pods' links and routes can't be listed: {error}") from error

    def _raise_host(self, node: Netlink, host: str, index: int, addresses: Sequence[Address]) -> None:
        """Let the host's end be up before the pod's, so that both are ready to send when that one is."""
        for one in addresses:
            for name, value in _HOST_SYSCTLS[one.family].items():
                write_sysctl(f"net/ipv{one.family}/conf/{host}/{name}", value)
        node.ask(netlink.up(index))

    def _wire_host(self, node: Netlink, index: int, mac: str, addresses: Sequence[Address]) -> None:
        requests = []
        for one in addresses:
            requests.append(netlink.neighbour(index, one.family, str(one), mac))
            requests.append(netlink.route(index, one, PROTOCOL))
        node.ask(*requests)

    def _wire_pod(self, pod: int, ifname: str, addresses: Sequence[Address]) -> None:
        with self._inside(pod), Netlink() as within:
            index = within.index(ifname)
            requests = [netlink.up(_LOOPBACK), netlink.up(index)]
            for one in addresses:
                gateway = address(GATEWAY[one.family])
                requests.append(netlink.give(index, one))
                requests.append(netlink.neighbour(index, one.family, str(gateway), HOST_MAC))
                if one.family == 6:
                    write_sysctl(f"net/ipv6/conf/{ifname}/accept_ra", "0")
                    write_sysctl(f"net/ipv6/conf/{ifname}/accept_dad", "0")
                else:
                    requests.append(netlink.route(index, gateway))
                requests.append(netlink.default(index, one.family, str(gateway)))
            within.ask(*requests)
            _wait_up(within, ifname, index)

    def _check(self, pod: int, ifname: str, host: str, addresses: Sequence[Address]) -> tuple[str, str]:
        with IPRoute() as kernel:
            outside = _need(_link(kernel, host), f"{host} is missing on the node")
            _need(outside.get("group") == GROUP and outside.get("operstate") == "UP", f"{host} is not ours or not up")
            for one in addresses:
                routes = kernel.get_routes(family=AF[one.family], oif=outside["index"], proto=PROTOCOL)
                there = {route.get("dst") for route in routes if route["dst_len"] == BITS[one.family]}
                _need(str(one) in there, f"the node's route to {one} is missing")
                for name, value in _HOST_SYSCTLS[one.family].items():
                    key = f"net/ipv{one.family}/conf/{host}/{name}"
                    _need(_read(key) == value, f"sysctl {key.replace('/', '.')} is {_read(key)}, not {value}")
        with self._inside(pod), IPRoute() as within:
            inside = _need(_link(within, ifname), f"{ifname} is missing in the pod")
            _need(inside["index"] == outside.get("link"), f"{ifname} is not the other end of {host}")
            _need(inside.get("operstate") == "UP", f"{ifname} is down in the pod")
            mtus = inside.get("mtu"), outside.get("mtu")  # those of its time: the node's may be another now
            _need(mtus[0] == mtus[1], f"the MTU is {mtus[0]} in the pod and {mtus[1]} on the node")
            here = {address(a.get("address")) for a in within.get_addr(index=inside["index"])}
            for one in addresses:
                _need(one in here, f"{ifname} hasn't the address {one}")
                routes = within.get_default_routes(family=AF[one.family])
                wanted = GATEWAY[one.family]
                _need(any(r.get("gateway") == wanted for r in routes), f"the pod's default route via {wanted} is missing")
            return str(outside.get("address")), str(inside.get("address"))

    @contextmanager
    def _here(self) -> Iterator[Netlink]:
        """Give this thread's netlink socket in the node's namespace."""
        own = self._own
        if not hasattr(own, "netlink"):
            self._enter()
            own.home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            own.netlink = Netlink()
            self._sockets.append(own.netlink)
        yield own.netlink

    def _enter(self) -> None:
        """Bring this thread into the node's namespace."""
        if self._node:
            with _opened(self._node) as node:
                netns.setns(node)

    @contextmanager
    def _inside(self, pod: int) -> Iterator[None]:
        """Let this thread be in the pod's namespace; it comes back whatever happens."""
        netns.setns(pod)
        try:
            yield
        finally:
            netns.setns(self._own.home)


@contextmanager
def _opened(namespace: str) -> Iterator[int]:
    try:
        handle = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise WireError(f"the network namespace {namespace!r} can't be opened: {error.strerror}") from error
    try:
        yield handle
    finally:
        os.close(handle)


def _smallest_mtu(kernel: Any) -> int:
    """Return the smallest MTU of the node's links that are up and have an address; loopback, pods' and tunnels don't count."""
    addressed = {one["index"] for one in kernel.get_addr(scope=0)}
    links = [one for one in kernel.get_links() if one["index"] in addressed and one.get("operstate") == "UP"]
    others = (one for one in links if one.get("group") != GROUP and one.get("ifname") not in (VXLAN, IPIP))
    return min((one.get("mtu") for one in others), default=_ETHERNET)


def _need(found: Any, otherwise: str) -> Any:
    if not found:
        raise WireError(otherwise)
    return found


def _link(kernel: Any, name: str) -> Any:
    try:
        return next(iter(kernel.link("get", ifname=name)), None)
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise


def _wait_up(kernel: Netlink, name: str, index: int) -> None:
    """Return when a link that was set up sends: until the kernel's link watch has seen its carrier, packets are lost.

    Since Linux 6.13 asking for the link is enough (`rtnl_getlink`); before, another thread of the kernel's does it in time.
    """
    deadline = time.monotonic() + _UP
    while not kernel.is_up(index):
        if time.monotonic() > deadline:
            raise WireError(f"{name} is set up and doesn't come up within {_UP:g} s; the node's dmesg may say why")
        time.sleep(_GLANCE)


def _delete(kernel: Netlink, index: int) -> None:
    """Delete a link; index 0 is none."""
    if index:
        try:
            kernel.ask(netlink.delete(index))
        except NetlinkError as error:
            if error.code != errno.ENODEV:  # it went with its namespace meanwhile
                raise


def _delete_link(index: int) -> None:
    with Netlink() as kernel:
        _delete(kernel, index)


def pod_mac(host: str) -> str:
    """Return a locally administered MAC, the same for the same link."""
    digest = hashlib.sha256(host.encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (digest[0] & 0xFC | 0x02, *digest[1:6]))


def write_sysctl(name: str, value: str) -> None:
    """Set a sysctl of the namespace that this thread is in; unchanged ones are only read."""
    path = _SYSCTLS / name
    if path.read_text().strip() != value:
        path.write_text(value)


def _read(name: str) -> str:
    return (_SYSCTLS / name).read_text().strip()


_SENTENCES: dict[int, Callable[[str, str], str]] = {
    errno.EEXIST: lambda ifname, where: f"{where} has an interface {ifname} already, which isn't ours",
    errno.EINVAL: lambda _ifname, where: f"{where} is not a network namespace",
    errno.EPERM: lambda _ifname, _where: "the agent may not change the network: it needs the capability NET_ADMIN",
}


def _why(error: Exception, ifname: str, namespace: str) -> str:
    code = error.code if isinstance(error, NetlinkError) else getattr(error, "errno", 0)
    known = _SENTENCES.get(code)
    return known(ifname, namespace) if known else str(error)
