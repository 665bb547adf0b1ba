"""A firewall of somebody else that drops forwarded packets: found and named, never overruled.

iptables shows here too: where it runs on nftables its chains are nftables' (`ip filter FORWARD`).
"""

import asyncio
import json
import logging
import shutil
from collections.abc import Iterator
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
                f" see `nft list chain {where}`: let it accept the pools' ranges, or set its policy to accept"
            )


async def watch() -> None:
    """Say each such chain once, and when it is gone; for ever."""
    if shutil.which("nft") is None:
        _log.warning("`nft` is not here, so a firewall that drops forwarded packets is not noticed; install nftables")
        return
    said: set[str] = set()
    while True:
        found = set(dropping(await _ruleset()))
        for sentence in sorted(found - said):
            _log.warning("%s", sentence)
        for sentence in sorted(said - found):
            _log.info("no more: %s", sentence.partition(",")[0])
        said = found
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
