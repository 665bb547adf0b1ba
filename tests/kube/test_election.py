"""The rules of the lease, as a table, as properties, and with several candidates in a world that goes wrong."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tortie.kube.election import Acquire, Decision, Elector, Record, Renew, Timing, Wait, decide

TIMING = Timing()
MINE, OTHERS, FREE = Record("1", "me", 15), Record("1", "other", 15), Record("1", "", 1)


@pytest.mark.parametrize(
    ("record", "age", "expected"),
    [
        pytest.param(Record(), 0, Acquire(), id="there is no lease"),
        pytest.param(FREE, 0, Acquire(), id="it was released"),
        pytest.param(MINE, 0, Renew(), id="it is mine"),
        pytest.param(MINE, 100, Renew(), id="it is mine, expired, and nobody took it"),
        pytest.param(OTHERS, 0, Wait(15), id="it is another's"),
        pytest.param(OTHERS, 14, Wait(1), id="it is another's, who is late"),
        pytest.param(OTHERS, 15, Acquire(), id="it is another's, and expired"),
        pytest.param(Record("1", "other", 60), 30, Wait(30), id="the holder's own duration counts"),
        pytest.param(Record("1", "other", 0), 0, Wait(15), id="no duration: ours"),
    ],
)
def test_decide(record: Record, age: float, expected: Decision) -> None:
    assert decide(record, 100.0, 100.0 + age, "me", 15) == expected


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.sampled_from(["", "me", "other"]), st.floats(1, 100))
def test_nobody_takes_what_another_may_still_hold(since: float, now: float, holder: str, duration: float) -> None:
    decision = decide(Record("1", holder, duration), since, now, "me", 15)
    if holder == "other" and now < since + duration:
        assert isinstance(decision, Wait)
        assert 0 < decision.seconds <= since + duration - now + 1e-6
    else:
        assert not isinstance(decision, Wait)


def test_a_change_of_the_record_starts_the_count_anew() -> None:
    elector = Elector("me", TIMING)
    elector.observe(OTHERS, 0)
    elector.observe(OTHERS, 10)
    assert elector.decide(10) == Wait(5)
    elector.observe(Record("2", "other", 15), 10)
    assert elector.decide(10) == Wait(15)


def test_a_lease_deleted_under_another_is_waited_for_all_the_same() -> None:
    elector = Elector("me", TIMING)
    elector.observe(OTHERS, 0)
    elector.observe(Record(), 5)
    assert elector.decide(5) == Wait(10)
    assert elector.decide(15) == Acquire()


def test_holds_counts_from_when_the_renewal_was_sent() -> None:
    elector = Elector("me", TIMING)
    elector.observe(MINE, 3)
    elector.renewed(sent=1)
    assert elector.holds(10.9)
    assert not elector.holds(11)


def test_after_a_pause_holds_is_false_at_once() -> None:
    """SIGSTOP, a suspended machine: nothing runs in between that could have noticed."""
    elector = Elector("me", TIMING)
    elector.renewed(sent=0)
    assert elector.holds(1)
    assert not elector.holds(3600)


def test_seeing_another_ends_it_at_once() -> None:
    elector = Elector("me", TIMING)
    elector.renewed(sent=0)
    elector.observe(OTHERS, 1)
    assert not elector.holds(1)


@pytest.mark.parametrize("wrong", [(15, 10, 0), (15, 10, 10), (15, 15, 2), (10, 15, 2)])
def test_impossible_timings_are_refused(wrong: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="need 0 < retry < deadline < duration"):
        Timing(*wrong)


@dataclass
class Candidate:
    """One elector with its own clock, and the one request that it has under way."""

    elector: Elector
    offset: float
    rate: float
    read: Record | None = None  # an answer to its GET, on its way to it
    sent: tuple[float, str] | None = None  # its PUT, on its way to the server: when sent, on which version
    stored: tuple[float, Record | None] | None = field(default=None)  # the PUT's answer, on its way back

    def now(self, real: float) -> float:
        return self.offset + self.rate * real


class World(RuleBasedStateMachine):
    """Candidates, one stored lease, and messages that arrive late or never. Clocks differ, also in speed by ±15 %.

    A candidate that no rule picks is paused: that is what SIGSTOP does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.real = 0.0
        self.lease = Record()
        self.writes = 0
        self.candidates: list[Candidate] = []

    @initialize(data=st.data(), count=st.integers(2, 4))
    def begin(self, data: st.DataObject, count: int) -> None:
        for number in range(count):
            offset, rate = data.draw(st.floats(-1e5, 1e5)), data.draw(st.floats(0.85, 1.15))
            self.candidates.append(Candidate(Elector(f"c{number}", TIMING), offset, rate))

    @rule(seconds=st.one_of(st.floats(0, 3), st.floats(0, 30), st.sampled_from([5.0, 10.0, 15.0])))
    def time_passes(self, seconds: float) -> None:
        self.real += seconds

    @precondition(lambda self: self.candidates)
    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        self._pick(data).read = self.lease

    @precondition(lambda self: any(c.read for c in self.candidates))
    @rule(data=st.data())
    def answer_arrives(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from([c for c in self.candidates if c.read]))
        now, record, one.read = one.now(self.real), one.read, None
        assert record is not None
        one.elector.observe(record, now)
        if not isinstance(one.elector.decide(now), Wait):
            one.sent = (now, record.version)

    @precondition(lambda self: any(c.sent for c in self.candidates))
    @rule(data=st.data())
    def write_arrives(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from([c for c in self.candidates if c.sent]))
        assert one.sent is not None
        (sent, version), one.sent = one.sent, None
        stored = version == self.lease.version
        if stored:
            self.writes += 1
            self.lease = Record(str(self.writes), one.elector.identity, TIMING.duration)
        one.stored = (sent, self.lease if stored else None)

    @precondition(lambda self: any(c.stored for c in self.candidates))
    @rule(data=st.data())
    def write_is_confirmed(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from([c for c in self.candidates if c.stored]))
        assert one.stored is not None
        (sent, record), one.stored = one.stored, None
        if record:
            one.elector.observe(record, one.now(self.real))
            one.elector.renewed(sent)

    @precondition(lambda self: self.candidates)
    @rule(data=st.data(), what=st.sampled_from(["read", "sent", "stored"]))
    def message_is_lost(self, data: st.DataObject, what: str) -> None:
        setattr(self._pick(data), what, None)

    @precondition(lambda self: self.candidates)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        one = self._pick(data)
        if one.elector.holds(one.now(self.real)):
            one.elector.resign()
            one.sent = one.stored = None
            if self.lease.holder == one.elector.identity:
                self.writes += 1
                self.lease = Record(str(self.writes), "", 1)

    @precondition(lambda self: self.candidates)
    @rule(data=st.data(), rounds=st.integers(1, 4), seconds=st.floats(0.1, 4))
    def all_is_well_for_one(self, data: st.DataObject, rounds: int, seconds: float) -> None:
        """Whole rounds, as the executor makes them: without these the machine seldom gets as far as a takeover."""
        one = self._pick(data)
        for _ in range(rounds):
            self.real += seconds
            now, version = one.now(self.real), self.lease.version
            one.elector.observe(self.lease, now)
            if not isinstance(one.elector.decide(now), Wait):
                assert version == self.lease.version
                self.writes += 1
                self.lease = Record(str(self.writes), one.elector.identity, TIMING.duration)
                one.elector.observe(self.lease, now)
                one.elector.renewed(now)
            self.never_two()

    @invariant()
    def never_two(self) -> None:
        leading = [c.elector.identity for c in self.candidates if c.elector.holds(c.now(self.real))]
        assert len(leading) <= 1, f"{leading} lead at once"

    def _pick(self, data: st.DataObject) -> Candidate:
        return data.draw(st.sampled_from(self.candidates))


World.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestNeverTwoLeaders = World.TestCase
