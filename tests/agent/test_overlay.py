"""The node's tunnels in the kernel, and whose addresses they have."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.agent.namespaces import namespaces, needs_root, run
from tortie.addressing.allocator import Address, OwnBlock, address
from tortie.addressing.ranges import parse
from tortie.agent import overlay
from tortie.agent.ledger import Ledger, Link
from tortie.agent.overlay import mac_of
from tortie.agent.start import reconcile
from tortie.agent.tunnels import Source, Tunnels
from tortie.agent.wire import VXLAN
from tortie.routing.carriage import Carried

_ENSURE = """
import json, sys
from pyroute2 import IPRoute
from tortie.addressing.allocator import address
from tortie.agent import overlay
from tortie.agent.overlay import Device
local, mtu, mac, vni, port, *addresses = sys.argv[1:]
device = Device("vxlan.tortie", address(local), int(mtu), frozenset(map(address, addresses)), mac, int(vni), int(port))
with IPRoute() as kernel:
    index = overlay.ensure(kernel, device)
print(json.dumps([index, {name: list(map(str, found)) for name, found in overlay.inventory().items()}]))
"""
_STRIP = """
import sys
from tortie.addressing.allocator import address
from tortie.agent import overlay
for one in sys.argv[1:]:
    overlay.strip("vxlan.tortie", address(one))
"""
_REMOVE = "from tortie.agent import overlay; overlay.remove_all(); overlay.remove_all()"
FIRST = ["192.0.2.1", "1450", "66:00:00:00:00:01", "4096", "4789"]
# What is another: what is asked for; whether it takes another device; what `ip -d link` says then.
CHANGES: dict[str, tuple[list[str], bool, dict[str, Any]]] = {
    "nothing": (FIRST, False, {}),
    "the MTU": (["192.0.2.1", "1400", *FIRST[2:]], False, {"mtu": 1400}),
    "the MAC": ([*FIRST[:2], "66:00:00:00:00:02", *FIRST[3:]], False, {"address": "66:00:00:00:00:02"}),
    "the port": ([*FIRST[:4], "8472"], True, {"port": 8472}),
    "the identifier": ([*FIRST[:3], "7", "4789"], True, {"id": 7}),
    "the node's address": (["192.0.2.2", *FIRST[1:]], True, {"local": "192.0.2.2"}),
    "its family": (["2001:db8::1", *FIRST[1:]], True, {"local6": "2001:db8::1"}),
}


def ensured(path: str, *arguments: str) -> tuple[int, dict[str, list[str]]]:
    index, held = json.loads(run([sys.executable, "-c", _ENSURE, *arguments], path))
    return index, held


def link(path: str) -> dict[str, Any]:
    """Return what is said of the device, in one dict."""
    (found,) = json.loads(run(["ip", "-d", "-j", "link", "show", VXLAN], path))
    return {**found, **found["linkinfo"]["info_data"]}


@needs_root
@pytest.mark.parametrize("row", CHANGES)
def test_a_device_becomes_what_is_asked_for(row: str) -> None:
    wanted, is_another, expected = CHANGES[row]
    with namespaces(1) as (path,):
        before, held = ensured(path, *FIRST, "10.0.0.1", "fd00::1")
        assert held == {"vxlan.tortie/4": ["10.0.0.1"], "vxlan.tortie/6": ["fd00::1"]}
        found = link(path)
        assert {key: found[key] for key in ("mtu", "address", "id", "port", "local", "learning")} == {
            "mtu": 1450, "address": FIRST[2], "id": 4096, "port": 4789, "local": "192.0.2.1", "learning": False,
        }  # fmt: skip
        assert "UP" in found["flags"]
        after, held = ensured(path, *wanted, "10.0.0.2", "fd00::1")
        assert held == {"vxlan.tortie/4": ["10.0.0.2"], "vxlan.tortie/6": ["fd00::1"]}
        assert (after != before) == is_another
        found = link(path)
        assert {key: found[key] for key in expected} == expected
        run([sys.executable, "-c", _REMOVE], path)
        assert VXLAN not in run(["ip", "link"], path)


@needs_root
def test_what_somebody_did_to_it_is_mended() -> None:
    with namespaces(1) as (path,):
        ensured(path, *FIRST, "10.0.0.1")
        for done in (f"ip link set {VXLAN} down", f"ip addr flush dev {VXLAN}", f"ip link del {VXLAN}"):
            run(done.split(), path)
            ensured(path, *FIRST, "10.0.0.1")
            assert "UP" in link(path)["flags"]
            assert "10.0.0.1/32" in run(["ip", "addr", "show", "dev", VXLAN], path)


@needs_root
def test_a_device_loses_an_address_and_nothing_else() -> None:
    with namespaces(1) as (path,):
        run([sys.executable, "-c", _STRIP, "10.0.0.1"], path)
        ensured(path, *FIRST, "10.0.0.1", "fd00::1")
        run([sys.executable, "-c", _STRIP, "10.0.0.9", "fd00::1"], path)
        assert "UP" in link(path)["flags"]
        found = run(["ip", "addr", "show", "dev", VXLAN, "scope", "global"], path)
        assert "10.0.0.1/32" in found
        assert "fd00::1" not in found


@needs_root
def test_a_device_that_loses_its_last_address_keeps_its_routes() -> None:
    """They lead into it until each has another way, and what others still send is taken."""
    with namespaces(1) as (path,):
        ensured(path, *FIRST, "10.0.0.1")
        run(["ip", "route", "add", "10.0.1.0/26", "via", "10.0.1.0", "dev", VXLAN, "onlink", "proto", "201"], path)
        run([sys.executable, "-c", _STRIP, "10.0.0.1"], path)
        assert "10.0.1.0/26" in run(["ip", "route", "show", "dev", VXLAN], path)
        _, held = ensured(path, *FIRST)
        assert held == {}, "its own address isn't one that a pool gave"


def test_each_node_has_a_mac_of_its_own() -> None:
    found = {mac_of(f"node-{n}") for n in range(5000)}
    assert len(found) == 5000
    assert all(int(one[:2], 16) & 3 == 2 for one in found), "locally administered, of one device"
    assert mac_of("node-1") == mac_of("node-1")


def test_the_room_that_encapsulation_takes() -> None:
    whole = parse("10.0.0.0/16")
    for pools, octets in (
        ([Carried(whole)], (0, 0)),
        ([Carried(whole, ipip="CrossSubnet")], (20, 20)),
        ([Carried(whole, ipip="Always"), Carried(whole, vxlan="CrossSubnet")], (50, 70)),
    ):
        assert (overlay.room(pools, 4), overlay.room(pools, 6)) == octets


async def nothing(_device: str, _one: Address) -> None:
    pass


async def held(ledger: Ledger) -> dict[str, str]:
    return {entries[0].link.host: str(entries[0].address) for entries in ledger.links()}


async def test_a_tunnel_s_address(tmp_path: Path) -> None:
    """Of its own blocks, the same as long as its pool may give it, and freed when nothing needs it."""
    ledger = Ledger(tmp_path / "ledger.db", cooldown=0)
    for name, block in (("one", "10.0.0.0/30"), ("two", "10.0.1.0/30"), ("six", "fd00::/126")):
        await ledger.put_block(OwnBlock(f"block-{name}", parse(block), name, active=True))
    stripped = list[str]()

    async def strip(device: str, one: Address) -> None:
        assert str(one) in (await held(ledger)).values(), "the device loses it before it is freed"
        stripped.append(f"{device} {one}")

    tunnels = Tunnels(ledger, strip, lambda: True)
    one, two, six = Source("one", 4, gives=True), Source("two", 4, gives=True), Source("six", 6, gives=True)
    disabled = one._replace(gives=False)
    # What pools there are, and what the tunnel has then.
    for sources, expected in (
        ([], {}),
        ([one], {"vxlan.tortie/4": "10.0.0.0"}),
        ([one, six], {"vxlan.tortie/4": "10.0.0.0", "vxlan.tortie/6": "fd00::"}),
        ([two, one, six], {"vxlan.tortie/4": "10.0.0.0", "vxlan.tortie/6": "fd00::"}),
        ([disabled, six], {"vxlan.tortie/4": "10.0.0.0", "vxlan.tortie/6": "fd00::"}),
        ([disabled, two], {"vxlan.tortie/4": "10.0.1.0"}),
        ([], {}),
    ):
        assert [str(found) for found in (await tunnels.addresses(VXLAN, sources)).values()] == [*expected.values()]
        assert await held(ledger) == expected
        assert tunnels.problems == {}
    assert stripped == [f"{VXLAN} 10.0.0.0", f"{VXLAN} fd00::", f"{VXLAN} 10.0.1.0"]
    # Nothing is left: it is said, tried again, and had as soon as it can be.
    for n in range(4):
        await ledger.adopt(Link(f"cali{n}"), [address(f"10.0.0.{n}")])
    assert await tunnels.addresses(VXLAN, [one]) == {}
    assert list(tunnels.problems) == ["IPv4 address of vxlan.tortie"]
    await ledger.put_block(OwnBlock("block-more", parse("10.0.3.0/30"), "one", active=True))
    assert [str(found) for found in (await tunnels.addresses(VXLAN, [one])).values()] == ["10.0.3.0"]
    assert tunnels.problems == {}
    await ledger.close()


async def test_what_is_asked_back_is_given_up_and_nothing_before_another_can_be_had(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    whole = parse("10.0.0.0/30")
    await ledger.put_block(OwnBlock("one", whole, "one", active=True))
    tunnels = Tunnels(ledger, nothing, lambda: True)
    one, two = Source("one", 4, gives=True), Source("two", 4, gives=True)
    assert await tunnels.addresses(VXLAN, [one]) == {4: address("10.0.0.0")}
    # The other pool has no address here, so the one of the disabled pool stays.
    assert await tunnels.addresses(VXLAN, [one._replace(gives=False), two]) == {4: address("10.0.0.0")}
    await ledger.adopt(Link("cali1"), [address("10.0.0.1")])
    await ledger.put_block(OwnBlock("one", whole, "one", active=True, cede=whole))
    assert await tunnels.addresses(VXLAN, [one]) == {4: address("10.0.0.0")}, "a pod keeps the block"
    await ledger.release("cali1")
    assert await tunnels.addresses(VXLAN, [one]) == {}
    assert await held(ledger) == {}
    await ledger.close()


async def test_a_tunnel_keeps_its_address_over_starts_boots_and_lost_ledgers(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(path)
    await ledger.put_block(OwnBlock("block", parse("10.0.0.0/26"), "pool", active=True))
    source = [Source("pool", 4, gives=True)]
    first = await Tunnels(ledger, nothing, lambda: True).addresses(VXLAN, source)
    await ledger.note("boot", "one")
    for boot in ("one", "two"):
        await reconcile(ledger, {}, boot, "a")
        assert await Tunnels(ledger, nothing, lambda: True).addresses(VXLAN, source) == first
    await ledger.close()
    path.unlink()
    lost = Ledger(path)
    await reconcile(lost, {"vxlan.tortie/4": [*first.values()]}, "two", "a")
    assert await held(lost) == {"vxlan.tortie/4": "10.0.0.0"}
    assert await Tunnels(lost, nothing, lambda: False).addresses(VXLAN, source) == first, "its block isn't known yet"
    await lost.put_block(OwnBlock("block", parse("10.0.0.0/26"), "pool", active=True))
    assert await Tunnels(lost, nothing, lambda: True).addresses(VXLAN, source) == first
    await lost.close()
