"""What is true after a start: ledger, kernel and boot are brought together. What any of them holds as in use is not handed out.

Crash points, each with what it leaves: after an ADD's record, before its wire: a record without a link; after a DEL's
unwiring, before its release: the same; a ledger that was lost: links without a record; a reboot: no link at all.
A record without a link whose namespace is gone too belongs to nobody: no process can use its address.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tortie.addressing.allocator import Address
from tortie.agent.ledger import Entry, Ledger, Link

_log = logging.getLogger(__name__)


def orphans(
    links: Sequence[tuple[Entry, ...]], kernel: Mapping[str, Sequence[Address]], there: Callable[[str], bool]
) -> list[str]:
    """Return the links on record that are neither in the kernel nor in a namespace that is there."""
    hosts = [entries[0].link for entries in links]
    return [link.host for link in hosts if link.host not in kernel and not (link.netns and there(link.netns))]


def strangers(links: Sequence[tuple[Entry, ...]], kernel: Mapping[str, Sequence[Address]]) -> dict[str, Sequence[Address]]:
    """Return the links in the kernel that are on no record, with their addresses."""
    known = {entries[0].link.host for entries in links}
    return {host: addresses for host, addresses in kernel.items() if host not in known}


async def reconcile(ledger: Ledger, kernel: Mapping[str, Sequence[Address]]) -> None:
    """Bring the ledger in line with the kernel; raises NotDurable."""
    links = list(ledger.links())
    for host in orphans(links, kernel, lambda path: Path(path).exists()):
        freed = await ledger.release(host)
        _log.info("%s: its pod is gone with its namespace: %s freed", host, ", ".join(str(e.address) for e in freed))
    for host, addresses in strangers(links, kernel).items():
        await ledger.adopt(Link(host), addresses)
        _log.warning(
            "%s: a link of ours that is on no record, the ledger was lost: %s not handed out until it is deleted",
            host, ", ".join(map(str, addresses)) or "it has no address; nothing",
        )  # fmt: skip
