"""How soon BGP converges: so many BIRDs in network namespaces on one bridge, from nothing to all routes in all kernels.

Their configurations are those that agents would write. All BIRDs share this machine's processors, which is most of the time.
"""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.agent.namespaces import namespaces, run
from tortie.addressing.ranges import Range, parse
from tortie.agent import control
from tortie.api import lean
from tortie.api.bgp_input import Configuration, ConfigurationSpec, Peer, PeerSpec
from tortie.routing import bird, peering
from tortie.routing.bird import Advertised, Plan
from tortie.routing.carriage import node_address
from tortie.routing.peering import Objects, Speaker

_POOL = parse("10.0.0.0/16")
# Seconds for which a bench goes on waiting.
_PATIENCE = 180.0
_MESH = Objects((Configuration(lean.Metadata("default")),))
_BFD = Objects(
    (Configuration(lean.Metadata("default"), ConfigurationSpec(node_mesh_failure_detection_mode="BFDIfDirectlyConnected")),)
)
_REFLECTED = Objects(
    (Configuration(lean.Metadata("default"), ConfigurationSpec(node_to_node_mesh_enabled=False)),),
    (Peer(lean.Metadata("reflectors"), PeerSpec(node_selector="all()", peer_selector="has(reflector)")),),
)


def mesh() -> dict[str, float]:
    """Return the seconds for a full mesh of 100."""
    return {"bgp_converge_mesh_100": _converge(_MESH, 100, 0)}


def dead() -> dict[str, float]:
    """Return the milliseconds from the loss of a node's link until another node's kernel has no route to it, by BFD."""
    with _network(_BFD, 3, 0) as (hub, nodes, sockets):
        asyncio.run(_all_known(sockets))
        gone = str(_speakers(3, 0)[1].addresses[4].address)
        while "198.18.0.2" not in run(["birdc", "-s", str(sockets[0]), "show", "bfd", "sessions"], nodes[0]):
            time.sleep(0.1)
        began = time.monotonic()
        run(["ip", "link", "set", "port1", "down"], hub)
        while f"via {gone} " in run(["ip", "route"], nodes[0]):
            if time.monotonic() - began > _PATIENCE:
                raise RuntimeError(f"the route is there after {_PATIENCE:g} s")
        return {"bgp_dead_node_bfd": 1000 * (time.monotonic() - began)}


def reflectors() -> dict[str, float]:
    """Return the seconds for 200 with two reflectors among them."""
    return {"bgp_converge_rr_200": _converge(_REFLECTED, 200, 2)}


def _speakers(number: int, reflecting: int) -> list[Speaker]:
    found = []
    for one in range(number):
        reflects = one < reflecting
        found.append(
            Speaker(
                f"node-{one}",
                {4: node_address(f"198.18.{one // 250}.{one % 250 + 1}/16")},
                cluster_id="244.0.0.1" if reflects else "",
                labels={"reflector": "yes"} if reflects else {},
            )
        )
    return found


def _block(number: int) -> Range:
    return Range(4, _POOL.start + 64 * number, 26)


def _plan(objects: Objects, number: int, speakers: list[Speaker]) -> str:
    here = speakers[number]
    found, problems = peering.sessions(objects, here, speakers, {})
    assert not problems, problems
    plan = Plan(
        here.name,
        str(here.addresses[4].address),
        peering.configuration(objects, here.name),
        reflects=bool(here.cluster_id),
        blocks=(_block(number),),
        pools=(Advertised(_POOL, 26),),
        sessions=tuple(found),
    )
    return bird.render(plan)[0]


def _converge(objects: Objects, number: int, reflecting: int) -> float:
    """Return the seconds from the start of all BIRDs until each kernel has a route to each other's block."""
    with _network(objects, number, reflecting) as (_, _, sockets):
        began = time.monotonic()
        asyncio.run(_all_known(sockets))
        return time.monotonic() - began


@contextmanager
def _network(objects: Objects, number: int, reflecting: int) -> Iterator[tuple[str, list[str], list[Path]]]:
    """Give the namespaces of a bridge and of nodes on it, and the sockets of their BIRDs, which were just started."""
    speakers = _speakers(number, reflecting)
    with TemporaryDirectory(prefix="tortie-bird-") as made, namespaces(number + 1) as (hub, *nodes):
        folder = Path(made)
        run(["ip", "link", "add", "bridge", "type", "bridge"], hub)
        run(["ip", "link", "set", "bridge", "up"], hub)
        for one, path in enumerate(nodes):
            run(
                ["ip", "link", "add", f"port{one}", "master", "bridge", "type", "veth", "peer", "name", "eth0", "netns", path],
                hub,
            )
            run(["ip", "link", "set", f"port{one}", "up"], hub)
            run(["ip", "link", "set", "eth0", "address", _mac(one), "up"], path)
            run(["ip", "addr", "add", str(speakers[one].addresses[4]), "dev", "eth0"], path)
            _introduce(folder / "neighbours", path, speakers)
            (folder / f"{one}.conf").write_text(_plan(objects, one, speakers))
        with _birds(folder, nodes) as sockets:
            yield hub, nodes, sockets


def _mac(number: int) -> str:
    return f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"


def _introduce(batch: Path, path: str, speakers: list[Speaker]) -> None:
    """Tell a node the others' MACs: all namespaces together may find out no more than 1,024 (net.ipv4.neigh's gc_thresh3)."""
    lines = (f"neigh add {one.addresses[4].address} lladdr {_mac(n)} dev eth0 nud permanent" for n, one in enumerate(speakers))
    batch.write_text("\n".join(lines) + "\n")
    run(["ip", "-batch", str(batch)], path)


@contextmanager
def _birds(folder: Path, nodes: list[str]) -> Iterator[list[Path]]:
    """Start a BIRD in each namespace; they end with the block."""
    started = list[subprocess.Popen[bytes]]()
    sockets = [folder / f"{one}.ctl" for one in range(len(nodes))]
    try:
        for one, path in enumerate(nodes):
            words = ["nsenter", f"--net={path}", "setpriv", "--pdeathsig=KILL", "--", "bird", "-f"]
            words += ["-c", str(folder / f"{one}.conf"), "-s", str(sockets[one])]
            started.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ))
        yield sockets
    finally:
        for process in started:
            process.kill()
            process.wait()


async def _all_known(sockets: list[Path]) -> None:
    """Return when each BIRD has given the kernel a route to each other's block."""
    missing, deadline = set(sockets), time.monotonic() + _PATIENCE
    while missing:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(missing)} of {len(sockets)} don't know all routes after {_PATIENCE:g} s")
        for one in sorted(missing):
            if await _exported(one) < len(sockets) - 1:
                break  # whoever lacks one is asked again first
            missing.discard(one)
        await asyncio.sleep(0.1)


async def _exported(socket: Path) -> int:
    try:
        lines = await control.ask(socket, "show protocols all kernel4")
    except control.BirdError:
        return 0
    found = next((line.split() for line in lines if line.strip().startswith("Routes:")), ["", "", "", "0"])
    return int(found[3])
