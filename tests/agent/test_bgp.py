"""When BIRD is told, and what is said of its sessions: with a BIRD that only remembers what it was told."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.routing.test_planning import B, around, node
from tortie.addressing.ranges import Range
from tortie.agent.bgp import LATE, NO_PORT, Bgp
from tortie.agent.control import BirdError, SessionState
from tortie.agent.notice import NOTICE
from tortie.api import lean
from tortie.api.bgp_input import Configuration, ConfigurationSpec, Peer, PeerSpec
from tortie.routing import planning
from tortie.routing.planning import Around, Known

DEFAULT = Configuration(lean.Metadata("default"))
OFF = Configuration(lean.Metadata("default"), ConfigurationSpec(node_to_node_mesh_enabled=False))


@dataclass
class Remembering:
    """In place of BIRD."""

    problem: str = ""
    is_current: bool = True
    is_wanted: bool = False
    recovering: bool = False
    told: list[tuple[str, bool]] = field(default_factory=list)
    states: list[SessionState] | None = field(default_factory=list)
    again: int = 0

    def want(self, text: str, *, ends: bool = False) -> None:
        self.told.append((text, ends))
        self.is_wanted = not ends

    async def is_recovering(self) -> bool:
        return self.recovering

    async def sessions(self) -> list[SessionState]:
        if self.states is None:
            raise BirdError("no answer within 10 s")
        return self.states

    async def tell_again(self) -> None:
        self.again += 1


@dataclass
class Copying:
    """In place of the copies of BIRD's routes."""

    is_settled: Any = None
    made: int = 0
    given_up: int = 0

    async def make(self, *, anew: bool = True) -> bool:
        assert not anew
        self.made += 1
        return True

    def give_up(self) -> None:
        self.given_up += 1


@dataclass
class Asked:
    """In place of passwords and Services: whether what is asked for is known."""

    is_known: bool = True
    changed: Any = None
    known: dict[tuple[str, str], str] = field(default_factory=dict)

    def want(self, _names: Iterable[str]) -> bool:
        return self.is_known

    def follow(self, _spec: ConfigurationSpec) -> bool:
        return True

    def said(self, _spec: ConfigurationSpec, _labels: Any) -> tuple[set[Range], dict[str, str]]:
        return set(), {}


class Speaking:
    """A node's BGP, at a time that the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bird, self.passwords, self.now, self.woken = Remembering(), Asked(), 1000.0, 0
        self.copies = Copying()
        parts: list[Any] = [None, self.bird, self.copies, self.passwords, Asked()]
        self.bgp = Bgp(*parts)
        self.bgp.changed = self._wake
        self.bgp._speakers["b"] = B
        monkeypatch.setattr("tortie.agent.bgp.time.monotonic", lambda: self.now)

    def _wake(self) -> None:
        self.woken += 1

    def write(self, *objects: Configuration | Peer) -> None:
        """Have people write these and nothing else."""
        for kind, stream in self.bgp._streams.items():
            its = {"bgpconfigurations": Configuration, "bgppeers": Peer}.get(kind, type(None))
            stream.store = {one.metadata.name: one for one in objects if isinstance(one, its)}
            stream.synced.set()
        self.bgp._on_object(None, None)

    async def look(self, after: float = 0.0) -> int:
        """Look at all after so many seconds; return how often BIRD was told something by now."""
        self.now += after
        await self.bgp.tell(around(node()))
        return len(self.bird.told)


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> Speaking:
    return Speaking(monkeypatch)


async def test_nothing_is_told_while_something_isn_t_known(one: Speaking) -> None:
    assert await one.look() == 0
    one.write(DEFAULT)
    one.passwords.is_known = False
    assert await one.look() == 0
    assert one.bgp.problems == []
    assert await one.look(LATE) == 0
    assert "BGP waits" in one.bgp.problems[0]
    one.passwords.is_known = True
    assert await one.look() == 1
    assert one.bgp.problems == []


async def test_nobody_speaks_where_nobody_wrote_of_it(one: Speaking) -> None:
    one.write()
    assert await one.look() == 0
    assert not one.bgp.speaks
    assert one.bgp.said(node(), None) is None


async def test_what_ends_sessions_is_told_after_a_notice(one: Speaking) -> None:
    one.write(DEFAULT)
    assert await one.look() == 1
    assert await one.copies.is_settled()
    one.write(OFF, Peer(lean.Metadata("tor"), PeerSpec(peer_ip="192.0.2.254")))
    assert await one.look() == 1
    assert one.copies.made == 1
    assert one.bgp.changes
    assert not await one.copies.is_settled(), "the copies stay"
    assert await one.look(NOTICE) == 2
    assert one.copies.made == 2, "the first may have gone, where something wasn't known for long"
    one.bird.is_current = False
    assert not await one.copies.is_settled(), "BIRD hasn't taken it"
    one.bird.is_current = True
    assert await one.copies.is_settled()


async def test_a_bird_that_recovers_has_no_routes_of_its_own_yet(one: Speaking) -> None:
    one.bird.recovering = True
    assert not await one.copies.is_settled()


async def test_what_brings_no_news_is_decided_once(one: Speaking, monkeypatch: pytest.MonkeyPatch) -> None:
    decisions, real = list[Known](), planning.decide

    def decide(around: Around, known: Known) -> Any:
        decisions.append(known)
        return real(around, known)

    monkeypatch.setattr(planning, "decide", decide)
    one.write(DEFAULT)
    await one.look()
    await one.look()
    assert len(decisions) == 1
    one.bgp.put("b", None)
    await one.look()
    assert len(decisions) == 2


async def test_bird_ends_when_nobody_writes_of_it_any_more(one: Speaking) -> None:
    one.write(DEFAULT)
    await one.look()
    one.write()
    assert await one.look() == 2
    text, ends = one.bird.told[-1]
    assert ends
    assert one.copies.given_up
    assert "protocol bgp" not in text, "so that it takes its routes back"


async def test_as_long_as_nothing_is_known_the_node_says_what_it_said(one: Speaking) -> None:
    past = lean.NetworkBgp(64999)
    assert one.bgp.said(node(), past) == past
    one.write(DEFAULT)
    assert one.bgp.said(node(), past) == lean.NetworkBgp(64512)


def state(name: str, *, up: bool, error: str = "") -> SessionState:
    return SessionState(name, f"node {name}", "192.0.2.2", 64512, "Established" if up else "Active", "", error=error)


async def test_a_session_that_stays_down_is_a_problem_in_words_that_stay_the_same(one: Speaking) -> None:
    one.bird.states = [state("b", up=True), state("c", up=False, error="Socket: Connection refused")]
    await one.bgp.look()
    assert one.woken == 1, "b is up now"
    assert one.bgp.problems == []
    one.now += LATE
    (first,) = one.bgp.problems
    assert first.startswith("no session with node c (192.0.2.2) since 20")
    one.now += 1000
    one.bird.states = [state("b", up=True), state("c", up=False, error="Hold timer expired")]
    await one.bgp.look()
    assert one.bgp.problems == [first]
    assert one.woken == 1, "nothing new"


async def test_of_a_bird_that_doesn_t_answer_no_session_is_up(one: Speaking) -> None:
    one.bird.states = [state("b", up=True)]
    await one.bgp.look()
    one.bird.states = None
    (found,) = await one.bgp.look()
    assert (found.is_up, found.error) == (False, "no answer within 10 s")


async def test_a_port_that_was_another_program_s_is_tried_again(one: Speaking) -> None:
    one.bird.states = [state("b", up=False, error=f"Error: {NO_PORT}")]
    await one.bgp.look()
    assert one.bird.again == 1


def test_a_network_that_can_t_be_read_is_told(one: Speaking) -> None:
    status = lean.NetworkStatus(("fe80::1/64",), bgp=lean.NetworkBgp(1))
    one.bgp.put("c", lean.Network(lean.Metadata("c"), status=status))
    assert "c" in one.bgp._unsaid
    one.bgp.put("c", None)
    assert one.bgp._unsaid == {}
