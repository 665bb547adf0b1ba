"""What an agent says wrongly costs its block nothing but the gifts."""

from typing import Any

import msgspec
import pytest

from tortie.addressing.ranges import parse
from tortie.api import lean
from tortie.controller import translate

SAID: dict[str, tuple[dict[str, Any], int, int]] = {  # status; how many allocations are read, and counted
    "all fine": ({"allocations": [{"address": "10.0.0.1", "sequence": 1}]}, 1, 1),
    "no address": ({"allocations": [{"address": "nonsense", "sequence": 1}, {"address": "10.0.0.2"}]}, 1, 2),
    "ceded": ({"ceded": "nonsense"}, 0, 0),
}


@pytest.mark.parametrize("row", SAID)
def test_a_status_that_can_t_be_read_leaves_the_range_owned(row: str) -> None:
    status, read, counted = SAID[row]
    spec = {"cidr": "10.0.0.0/26", "pool": {"name": "p", "uid": "u"}, "affinity": {"node": "a", "uid": "x"}}
    block = translate.block(msgspec.convert({"metadata": {"name": "b"}, "spec": spec, "status": status}, lean.Block))
    assert (block.range, block.ceded, len(block.held), block.allocated) == (parse("10.0.0.0/26"), None, read, counted)
