"""A router that is not ours: FRR (https://frrouting.org) as the top-of-rack router of a test's nodes."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.cluster.deploy import wait

DAEMONS = Path("/usr/lib/frr")
AS = 65001

# Any node of these subnets may peer, and connects: where both do at one moment FRR 8.4 may end the session that it made, in
# spite of graceful restart, and forget its routes. It passes each node's routes on to the others, and says two of its own, with
# the default route and a pool's whole range among what nodes must not take.
CONFIGURATION = """
ip route 203.0.113.0/24 blackhole
ipv6 route 2001:db8:113::/48 blackhole
router bgp {number}
 bgp router-id {router}
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp graceful-restart
 neighbor four peer-group
 neighbor four remote-as {nodes}
 neighbor four passive
 neighbor six peer-group
 neighbor six remote-as {nodes}
 neighbor six passive
 bgp listen range 198.18.0.0/16 peer-group four
 bgp listen range fd00:198:18::/48 peer-group six
 address-family ipv4 unicast
  network 203.0.113.0/24
  network 10.1.0.0/16
  neighbor four activate
  neighbor four default-originate
  neighbor four soft-reconfiguration inbound
 exit-address-family
 address-family ipv6 unicast
  network 2001:db8:113::/48
  neighbor six activate
  neighbor six default-originate
  neighbor six soft-reconfiguration inbound
 exit-address-family
"""


def why_no_frr() -> str:
    """Return why FRR can't be had here, "" where it can."""
    return "" if (DAEMONS / "bgpd").exists() else "FRR isn't installed: apt-get install frr"


class Router:
    """FRR in one namespace."""

    def __init__(self, enter: list[str], folder: Path) -> None:
        self._enter, self._folder = enter, folder

    def ask(self, command: str) -> Any:
        """Return what vtysh says of a `show … json`."""
        words = [*self._enter, "vtysh", "--vty_socket", str(self._folder), "-d", "bgpd", "-c", command]
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30)
        return json.loads(done.stdout)

    def routes(self, family: int) -> dict[str, list[str]]:
        """Return the next hops of each route that nodes told, by prefix."""
        listed = self.ask(f"show bgp ipv{family} unicast json").get("routes", {})
        return {
            prefix: [hop["ip"] for path in paths for hop in path.get("nexthops", ()) if path.get("peerId") != "(unspec)"]
            for prefix, paths in listed.items()
        }


@contextmanager
def frr(enter: list[str], router: str, nodes: int = 64512) -> Iterator[Router]:
    """Give a router in the namespace that `enter` enters; with it go its routes."""
    with TemporaryDirectory(prefix="tortie-frr-") as made:
        folder = Path(made)
        (folder / "bgpd.conf").write_text(CONFIGURATION.format(number=AS, router=router, nodes=nodes))
        statics = [line for line in CONFIGURATION.splitlines() if " route " in line]
        (folder / "staticd.conf").write_text("\n".join(statics) + "\n")
        (folder / "zebra.conf").write_text("")
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, "frr", "frr")  # whom the daemons become
        running = list[subprocess.Popen[bytes]]()
        try:
            for name in ("zebra", "staticd", "bgpd"):
                words = [str(DAEMONS / name), "-f", f"{folder}/{name}.conf", "-i", f"{folder}/{name}.pid"]
                words += ["-z", f"{folder}/zserv.api", "--vty_socket", made, "-A", "127.0.0.1", "-P", "0"]
                with (folder / f"{name}.log").open("wb") as log:
                    running.append(subprocess.Popen([*enter, *words], stdout=log, stderr=log))
                wait(f"{name} can be asked", (folder / f"{name}.vty").exists)
            yield Router(enter, folder)
        finally:
            for process in reversed(running):
                process.terminate()
                process.wait(30)
