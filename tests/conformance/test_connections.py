"""Connections that are open while policies change: what is forbidden ends, and nothing else is hurt."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.cluster.cluster import why_not
from tests.cluster.deploy import wait
from tests.conformance.connection_rows import CONNECTIONS, LABELS, ROWS
from tests.conformance.network_rows import egress, ingress
from tests.conformance.rows import FAMILIES, Asked, expected, network
from tests.conformance.talks import Talk, carrying, losing, say, talk
from tests.conformance.town import Town

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

_SECONDS = 30.0
_SOON = 10.0  # seconds until something that takes one at most
_PAUSE = 0.05  # seconds between two words


class Talking:
    """Opens the connections of rows, and lets all change, as many rows at once as there are worlds."""

    def __init__(self, town: Town) -> None:
        self._town, self._wrong = town, dict[str, list[str]]()

    def wrong(self, name: str) -> list[str]:
        """Return what was wrong with a row's connections, a sentence each."""
        if name not in self._wrong:
            names, worlds = list(ROWS), self._town.worlds
            start = names.index(name) // len(worlds) * len(worlds)
            together = dict(zip(names[start:], worlds, strict=False))
            self._town.restore_all()
            self._town.hold({world: ROWS[row].policies for row, world in together.items()})
            with ExitStack() as stack:
                opened: dict[str, list[Talk]] = {row: [] for row in together}
                for row, world in together.items():
                    asked = (one for one in CONNECTIONS if one.on.startswith(ROWS[row].protocols))
                    opened[row] += [stack.enter_context(talk(self._town, world, one)) for one in asked]
                self._wrong |= self._change(together, opened)
        return self._wrong[name]

    def _change(self, worlds: Mapping[str, int], opened: Mapping[str, list[Talk]]) -> dict[str, list[str]]:
        lasting, ending, labelled = list[Talk](), list[Talk](), list[Talk]()
        for row, talks in opened.items():
            lasts = expected(ROWS[row].after)
            lasting += [one for one in talks if lasts[one.asked._replace(via="")]]
            ending += (over := [one for one in talks if not lasts[one.asked._replace(via="")]])
            labelled += over if row in LABELS else []
        say([*lasting, *ending])
        silent = losing([*lasting, *ending])
        with _saying(lasting):
            for row, world in worlds.items():
                ROWS[row].do(self._town, world)
            wait("the policies are enforced", self._town.enforces, _SECONDS)
        with suppress(TimeoutError):  # that a set has other addresses is nowhere said; what follows says better what is wrong
            wait("what is no peer any more is cut", lambda: not carrying(self._town, labelled), _SOON)
        going = carrying(self._town, ending)
        say(lasting)
        lost = losing(lasting)
        sentences = (("it never carried anything", silent), ("it goes on, and must not", going), ("words were lost", lost))
        return {
            row: [f"{one.asked}: {why}" for one in talks for why, which in sentences if one in which]
            for row, talks in opened.items()
        }


@contextmanager
def _saying(talks: Sequence[Talk]) -> Iterator[None]:
    """Let these talk on meanwhile."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(_PAUSE):
            say(talks)

    with ThreadPoolExecutor(1) as threads:
        talking = threads.submit(go_on)
        try:
            yield
        finally:
            over.set()
        talking.result()


@pytest.fixture(scope="module")
def talking(town: Town) -> Iterator[Talking]:
    yield Talking(town)
    town.restore_all()


@pytest.mark.parametrize("row", ROWS)
def test_what_is_forbidden_ends_and_the_rest_goes_on(talking: Talking, row: str) -> None:
    assert talking.wrong(row) == []


_PAIRS = [("y/a", "x/a"), ("y/b", "x/a"), ("y/a", "x/b"), ("y/b", "x/b"), ("x/a", "x/a"), ("x/b", "x/b")]


@pytest.mark.parametrize("via", ["", "service"])
@pytest.mark.parametrize("family", FAMILIES)
def test_connections_of_isolated_pods(town: Town, family: str, via: str) -> None:
    """Both ends are isolated in both directions; what is allowed is the way of the first packet, and answers follow it."""
    ports = "ports: [{port: 80}, {port: 80, protocol: UDP}]"
    town.hold({
        1: network("podSelector: {}, policyTypes: [Ingress, Egress]")
        + network("podSelector: {}, policyTypes: [Ingress, Egress]", "y")
        + ingress(f"from: [OF_Y], {ports}")
        + egress(f"to: [{{namespaceSelector: {{matchLabels: {{ns: x}}}}}}], {ports}", "y")
    })  # fmt: skip
    for source, target in _PAIRS:
        for protocol in ("TCP", "UDP"):
            with talk(town, 1, Asked(source, target, f"{protocol} 80", family, via)) as one:
                say([one])
                assert losing([one]) == [], one.asked
