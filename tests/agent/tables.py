"""The agent's table as nft shows it, whichever edition of its sets and maps it has."""

import json
import re
from collections import Counter

from tests.agent.namespaces import run

_EDITION = re.compile(r"((?:^|[\s@])[a-z][\w-]*)\.\d+\b")


def without_editions(listed: str) -> str:
    """Return what nft lists with the names that sets and maps have in a new table."""
    return _EDITION.sub(r"\1", listed)


def names_in(namespace: str) -> dict[str, list[str]]:
    """Return what the table has, by kind."""
    found: dict[str, list[str]] = {}
    for entry in json.loads(run(["nft", "-j", "list", "table", "inet", "tortie"], namespace))["nftables"]:
        for kind, one in entry.items():
            found.setdefault(kind, []).append(without_editions(one.get("name", "")))
    return {kind: sorted(names) for kind, names in found.items() if kind != "metainfo"}


def words(namespace: str) -> Counter[str]:
    """Return what the ruleset is made of, in any order."""
    return Counter(without_editions(run(["nft", "-s", "list", "ruleset"], namespace)).replace(",", " ").split())
