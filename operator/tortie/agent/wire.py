"""The wire of one pod: a veth pair, the pod's addresses and default route, the host's route to it.

As Calico does it, so that `ip addr` and `ip route` show what people expect. Everything goes through netlink: no process a
pod. The functions are synchronous and are called in threads; a thread enters the pod's namespace for a moment.
"""

import errno
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, netns
from pyroute2.netlink.exceptions import NetlinkError

from tortie.addressing.allocator import Address, address
from tortie.agent.faults import point

GROUP = 0x746F7274  # "tort": the link group that tells our interfaces from others'
_ETHERNET = 1500  # bytes, where no link says another
PROTOCOL = 201  # of every route of ours; iproute2's rt_protos has no name for it
HOST_MAC = "ee:ee:ee:ee:ee:ee"
# What a pod takes for its router: RFC 3927's range for IPv4, HOST_MAC's EUI-64 for IPv6 (RFC 4291, appendix A).
GATEWAY = {4: "169.254.1.1", 6: "fe80::ecee:eeff:feee:eeee"}
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_WHOLE = {4: 32, 6: 128}
_LINK_SCOPE, _PERMANENT = 253, 0x80
_NODAD, _NOPREFIXROUTE = 0x02, 0x200
# proxy_arp: we answer for the gateway, which nobody has; at once, not after a random delay.
_HOST_SYSCTLS = {
    4: {"proxy_arp": "1", "forwarding": "1", "rp_filter": "0"},
    6: {"proxy_ndp": "1", "forwarding": "1", "accept_ra": "0", "accept_dad": "0"},
}
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
        self._node = node
        self._own = threading.local()
        self._sockets: list[IPRoute] = []

    def close(self) -> None:
        """Close what the threads opened; they must have ended, or be idle."""
        while self._sockets:
            self._sockets.pop().close()

    def prepare(self) -> None:
        """Let the node forward packets, and find out the MTU."""
        with self._kernel() as kernel:
            for name in _NODE_SYSCTLS:
                _write(name, "1")
            self.mtu = self.mtu or _smallest_mtu(kernel)

    def attach(self, namespace: str, ifname: str, host: str, addresses: Sequence[Address]) -> tuple[str, str]:
        """Make the link and return the MAC of the host's end and of the pod's; one that is there and whole is left alone."""
        with self._kernel() as kernel, _opened(namespace) as pod:
            if _index(host):
                try:
                    return self._check(kernel, pod, ifname, host, addresses)
                except WireError:
                    _delete(kernel, host)
            mac = _pod_mac(host)
            try:
                self._make(kernel, pod, ifname, host, mac)
                point("wire made")
                self._wire_pod(pod, ifname, addresses)
                point("pod wired")
                self._wire_host(kernel, host, mac, addresses)
                point("host wired")
            except (NetlinkError, OSError) as error:
                with suppress(NetlinkError):
                    _delete(kernel, host)
                raise WireError(_sentence(error, ifname, namespace, addresses)) from error
            return HOST_MAC, mac

    def detach(self, host: str) -> None:
        """Remove the link and with it all that leads there; one that isn't there is fine."""
        with self._kernel() as kernel:
            try:
                _delete(kernel, host)
            except NetlinkError as error:
                raise WireError(f"{host} can't be removed: {error}") from error

    def check(self, namespace: str, ifname: str, host: str, addresses: Sequence[Address]) -> None:
        """Raise WireError naming the first thing that isn't as `attach` made it."""
        with self._kernel() as kernel, _opened(namespace) as pod:
            self._check(kernel, pod, ifname, host, addresses)

    def inventory(self) -> dict[str, list[Address]]:
        """Return the host's ends that are there, with the addresses that our routes lead there."""
        with self._kernel() as kernel:
            links = {link["index"]: str(link.get("ifname")) for link in kernel.get_links() if link.get("group") == GROUP}
            found: dict[str, list[Address]] = {name: [] for name in links.values()}
            for family in (4, 6):
                for route in kernel.get_routes(family=_AF[family], proto=PROTOCOL):
                    if route.get("oif") in links and route["dst_len"] == _WHOLE[family]:
                        found[links[route.get("oif")]].append(address(route.get("dst")))
            return found

    def _make(self, kernel: Any, pod: int, ifname: str, host: str, mac: str) -> None:
        peer = {"ifname": ifname, "net_ns_fd": pod, "mtu": self.mtu, "address": mac}
        kernel.link("add", ifname=host, kind="veth", group=GROUP, address=HOST_MAC, mtu=self.mtu, peer=peer)

    def _wire_host(self, kernel: Any, host: str, mac: str, addresses: Sequence[Address]) -> None:
        index = _index(host)
        for one in addresses:
            for name, value in _HOST_SYSCTLS[one.family].items():
                _write(f"net/ipv{one.family}/conf/{host}/{name}", value)
        kernel.link("set", index=index, state="up")
        for one in addresses:
            kernel.neigh("replace", family=_AF[one.family], ifindex=index, dst=str(one), lladdr=mac, state=_PERMANENT)
            dst = f"{one}/{_WHOLE[one.family]}"
            kernel.route("replace", family=_AF[one.family], dst=dst, oif=index, scope=_LINK_SCOPE, proto=PROTOCOL)

    def _wire_pod(self, pod: int, ifname: str, addresses: Sequence[Address]) -> None:
        with self._inside(pod) as kernel:
            index = _index(ifname)
            for one in addresses:
                if one.family == 6:
                    _write(f"net/ipv6/conf/{ifname}/accept_ra", "0")
                    _write(f"net/ipv6/conf/{ifname}/accept_dad", "0")
            kernel.link("set", index=1, state="up")
            kernel.link("set", index=index, state="up")
            for one in addresses:
                family, gateway = _AF[one.family], GATEWAY[one.family]
                flags = _NODAD | _NOPREFIXROUTE if one.family == 6 else 0
                kernel.addr("add", index=index, family=family, address=str(one), prefixlen=_WHOLE[one.family], flags=flags)
                kernel.neigh("replace", family=family, ifindex=index, dst=gateway, lladdr=HOST_MAC, state=_PERMANENT)
                if one.family == 4:
                    kernel.route("add", dst=f"{gateway}/32", oif=index, scope=_LINK_SCOPE)
                kernel.route("add", family=family, dst="default", gateway=gateway, oif=index)

    def _check(self, kernel: Any, pod: int, ifname: str, host: str, addresses: Sequence[Address]) -> tuple[str, str]:
        outside = _need(_link(kernel, host), f"{host} is missing on the node")
        _need(outside.get("group") == GROUP and outside.get("operstate") == "UP", f"{host} is not ours or not up")
        for one in addresses:
            routes = kernel.get_routes(family=_AF[one.family], oif=outside["index"], proto=PROTOCOL)
            there = {route.get("dst") for route in routes if route["dst_len"] == _WHOLE[one.family]}
            _need(str(one) in there, f"the node's route to {one} is missing")
            for name, value in _HOST_SYSCTLS[one.family].items():
                key = f"net/ipv{one.family}/conf/{host}/{name}"
                _need(_read(key) == value, f"sysctl {key.replace('/', '.')} is {_read(key)}, not {value}")
        with self._inside(pod) as within:
            inside = _need(_link(within, ifname), f"{ifname} is missing in the pod")
            _need(inside["index"] == outside.get("link"), f"{ifname} is not the other end of {host}")
            _need(inside.get("operstate") == "UP", f"{ifname} is down in the pod")
            _need(inside.get("mtu") == outside.get("mtu") == self.mtu, f"the MTU is {inside.get('mtu')}, not {self.mtu}")
            here = {address(a.get("address")) for a in within.get_addr(index=inside["index"])}
            for one in addresses:
                _need(one in here, f"{ifname} hasn't the address {one}")
                routes = within.get_default_routes(family=_AF[one.family])
                wanted = GATEWAY[one.family]
                _need(any(r.get("gateway") == wanted for r in routes), f"the pod's default route via {wanted} is missing")
            return str(outside.get("address")), str(inside.get("address"))

    @contextmanager
    def _kernel(self) -> Iterator[Any]:
        """Give this thread's netlink socket in the node's namespace."""
        own = self._own
        if not hasattr(own, "kernel"):
            if self._node:
                with _opened(self._node) as node:
                    netns.setns(node)
            own.home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            own.kernel = IPRoute()
            self._sockets.append(own.kernel)
        yield own.kernel

    @contextmanager
    def _inside(self, pod: int) -> Iterator[Any]:
        """Let this thread be in the pod's namespace, with a netlink socket there; it comes back whatever happens."""
        netns.setns(pod)
        try:
            with IPRoute() as kernel:
                yield kernel
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
    """Return the smallest MTU of the node's own links that are up and have an address; loopback and pods' don't count."""
    addressed = {one["index"] for one in kernel.get_addr(scope=0)}
    links = [one for one in kernel.get_links() if one["index"] in addressed and one.get("group") != GROUP]
    return min((one.get("mtu") for one in links if one.get("operstate") == "UP"), default=_ETHERNET)


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


def _delete(kernel: Any, host: str) -> None:
    index = _index(host)
    if index:
        try:
            kernel.link("del", index=index)
        except NetlinkError as error:
            if error.code != errno.ENODEV:  # it went with its namespace meanwhile
                raise


def _index(name: str) -> int:
    """Return an interface's index in the namespace that this thread is in, 0 where there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def _pod_mac(host: str) -> str:
    """Return a locally administered MAC, the same for the same link."""
    digest = hashlib.sha256(host.encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (digest[0] & 0xFC | 0x02, *digest[1:6]))


def _write(name: str, value: str) -> None:
    """Set a sysctl of the namespace that this thread is in; unchanged ones are only read."""
    path = Path("/proc/sys", name)
    if path.read_text().strip() != value:
        path.write_text(value)


def _read(name: str) -> str:
    return Path("/proc/sys", name).read_text().strip()


_SENTENCES: dict[int, Callable[[str, str], str]] = {
    errno.EEXIST: lambda ifname, where: f"{where} has an interface {ifname} already, which isn't ours",
    errno.EINVAL: lambda _ifname, where: f"{where} is not a network namespace",
    errno.EPERM: lambda _ifname, _where: "the agent may not change the network: it needs the capability NET_ADMIN",
}


def _sentence(error: Exception, ifname: str, namespace: str, addresses: Sequence[Address]) -> str:
    code = error.code if isinstance(error, NetlinkError) else getattr(error, "errno", 0)
    known = _SENTENCES.get(code)
    what = known(ifname, namespace) if known else str(error)
    return f"{ifname} in {namespace} could not be given {', '.join(map(str, addresses))}: {what}"
