"""A firewall of somebody else that drops forwarded packets: found and named, never overruled.

iptables shows here too: where it runs on nftables its chains are nftables' (`ip filter FORWARD`).
"""

import asyncio
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from typing import Any

_log = logging.getLogger(__name__)

# Seconds between two looks; a ruleset is large on some nodes, and this is a hint for people.
EVERY = 60.0


def dropping(ruleset: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence for each base chain that drops what it doesn't accept of forwarded packets (libnftables-json(5))."""
    for chain in (entry["chain"] for entry in ruleset.get("nftables", ()) if "chain" in entry):
        if chain.get("hook") == "forward" and chain.get("policy") == "drop":
            where = f"{chain['family']} {chain['table']} {chain['name']}"
            yield (
                f"chain `{where}` drops forwarded packets that no rule of it accepts, so pods of this node may not be reached;"
                f" see `nft list chain {where}`: set its policy to accept, or see that a rule of it accepts the pools' ranges"
                " (rules aren't judged here)"
            )


class Watch:
    """Looks from time to time; `changed` is told when there is another answer."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.found: frozenset[str] = frozenset()
        self._changed = changed

    async def run(self) -> None:
        """Say each such chain once, and when it is gone; for ever."""
        if shutil.which("nft") is None:
            _log.warning("`nft` is not here, so a firewall that drops forwarded packets is not noticed; install nftables")
            return
        while True:
            found = frozenset(dropping(await _ruleset()))
            for sentence in sorted(found - self.found):
                _log.warning("%s", sentence)
            for sentence in sorted(self.found - found):
                _log.info("no more: %s", sentence.partition(",")[0])
            if found != self.found:
                self.found = found
                self._changed()
            await asyncio.sleep(EVERY)


async def _ruleset() -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        "nft", "--json", "list", "chains", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    try:
        found: dict[str, Any] = json.loads(output)
    except ValueError:  # it may not look: then nothing is known
        return {}
    return found
