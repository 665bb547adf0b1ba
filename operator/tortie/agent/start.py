"""What is true after a start: ledger, kernel and boot are brought together. What any of them holds as in use is not handed out.

Crash points, each with what it leaves: after an ADD's record, before its wire: a record without a link; after a DEL's
unwiring, before its release: the same; a ledger that was lost: links without a record; a reboot: no link at all.
A record without a link whose namespace is gone too belongs to nobody: no process can use its address.

Records are missing when the file was damaged, when a link has an address that isn't on record (it is recorded before it
is wired), or when another node wrote the file. Then nothing goes out of a block before what it published was read.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tortie.addressing.allocator import Address
from tortie.agent.ledger import Entry, Ledger, Link
from tortie.agent.tunnels import is_tunnel

_log = logging.getLogger(__name__)

_BOOT, _NODE = "boot", "node"  # the keys under which the ledger keeps the boot's id and the node's name


def orphans(
    links: Sequence[tuple[Entry, ...]], kernel: Mapping[str, Sequence[Address]], there: Callable[[str], bool]
) -> list[str]:
    """Return the links on record that are neither in the kernel nor in a namespace that is there: no process uses them."""
    hosts = [entries[0].link for entries in links if not is_tunnel(entries[0].link.host)]  # those are made again
    return [link.host for link in hosts if link.host not in kernel and not (link.netns and there(link.netns))]


def strangers(links: Sequence[tuple[Entry, ...]], kernel: Mapping[str, Sequence[Address]]) -> dict[str, list[Address]]:
    """Return what the kernel's links have and isn't on record as theirs."""
    known = {(entry.link.host, entry.address) for entries in links for entry in entries}
    found = {host: [one for one in addresses if (host, one) not in known] for host, addresses in kernel.items()}
    return {host: addresses for host, addresses in found.items() if addresses}


async def reconcile(ledger: Ledger, kernel: Mapping[str, Sequence[Address]], boot: str, node: str) -> None:
    """Bring the ledger in line with the kernel; raises NotDurable.

    `boot` is the boot's id: after another one no namespace on record is there, whatever has its path now.
    """
    links, same = list(ledger.links()), ledger.meta.get(_BOOT) in (None, boot)
    unknown = strangers(links, kernel)
    if why := _missing(ledger, unknown, node):
        _log.warning("%s: what pods here use is taken from the kernel, what was published is waited for", why)
        await ledger.begin_anew(why)
    if not same:
        _log.info("the node was booted since: what %d links had is freed", len(links))
    for host in orphans(links, kernel, lambda path: same and Path(path).exists()):
        freed = await ledger.release(host)
        _log.info("%s: its pod is gone with its namespace: %s freed", host, ", ".join(str(e.address) for e in freed))
    for host, addresses in unknown.items():
        held = ledger.find(host)
        await ledger.adopt(held[0].link if held else Link(host), addresses)
        _log.info("%s: %s not handed out until it is deleted", host, ", ".join(map(str, addresses)))
    await ledger.note(_BOOT, boot)
    await ledger.note(_NODE, node)


def _missing(ledger: Ledger, unknown: Mapping[str, Sequence[Address]], node: str) -> str:
    """Return why records must be missing, "" where nothing says so."""
    if ledger.damage:
        return f"the ledger was damaged ({ledger.damage})"
    if unknown:
        return f"the ledger was lost in part or whole ({len(unknown)} links have addresses that it doesn't know)"
    if ledger.meta.get(_NODE, node) != node:
        return f"the ledger is that of node {ledger.meta[_NODE]}"
    return ""
