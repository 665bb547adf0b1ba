"""What is known of an object, whatever the order in which events, answers to writes and lists arrive."""

from typing import Any, cast

import pytest

from tortie.controller.manifests import POOLS, Manifests
from tortie.kube.client import Client

ROWS: dict[str, tuple[list[tuple[str, int] | None], int | None]] = {
    "the newest stays": ([("one", 2), ("one", 1)], 2),
    "the newest comes": ([("one", 1), ("one", 2)], 2),
    "gone is gone": ([("one", 1), None], None),
    "a write's answer after the deletion": ([("one", 1), None, ("one", 2)], None),
    "one of the same name": ([("one", 1), None, ("other", 3)], 3),
    "an old answer beside one of the same name": ([("one", 1), None, ("other", 3), ("one", 2)], 3),
    "the second is gone too": ([("one", 1), None, ("other", 3), None, ("one", 2), ("other", 3)], None),
}


@pytest.mark.parametrize(("said", "known"), ROWS.values(), ids=ROWS)
def test_what_is_known(said: list[tuple[str, int] | None], known: int | None) -> None:
    told: list[tuple[str, str]] = []
    manifests = Manifests(cast("Client", None), lambda kind, name: told.append((kind, name)))
    for one in said:
        body: Any = one and {"metadata": {"name": "pool", "uid": one[0], "resourceVersion": str(one[1])}}
        manifests.take(POOLS, "pool", body)
    found = manifests.of[POOLS].get("pool")
    assert (found and int(found["metadata"]["resourceVersion"])) == known
    assert set(told) == {(POOLS, "pool")}
