"""A firewall that drops forwarded packets is named, as the real nft says it."""

import json
import shutil

import pytest

from tests.agent.namespaces import namespaces, needs_root, run
from tortie.agent.foreign import dropping

CHAINS = {
    "drops what is forwarded": ("type filter hook forward priority 0; policy drop;", True),
    "accepts what is forwarded": ("type filter hook forward priority 0; policy accept;", False),
    "drops what comes in": ("type filter hook input priority 0; policy drop;", False),
}


@needs_root
@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is missing: apt-get install nftables")
@pytest.mark.parametrize("row", CHAINS)
def test_chains(row: str) -> None:
    rule, found = CHAINS[row]
    with namespaces(1) as (path,):
        run(["nft", f"add table inet filter; add chain inet filter FORWARD {{ {rule} }}"], path)
        sentences = list(dropping(json.loads(run(["nft", "--json", "list", "chains"], path))))
    assert ["inet filter FORWARD" in sentence for sentence in sentences] == [True] * found


def test_no_answer_is_no_news() -> None:
    assert list(dropping({})) == []
