"""Who leads: the rules, without I/O.

Belongs here: what a candidate does with the lease that it saw, and until when a leader may act.
Does not: requests, sleeping.

Time is each one's own, counted steadily, and never compared with another's: a lease has expired when its record hasn't
changed for its duration *as seen from here*, as in client-go. A leader acts for `deadline` after it *sent* its last
successful renewal. Nobody can have seen that renewal before it was sent, so all others wait for `duration` after it at
least: no two lead at once while one's clock isn't faster than another's by duration / deadline, 1.5 by default.
"""

import math
from dataclasses import dataclass, replace

NEVER = -math.inf


@dataclass(frozen=True, slots=True)
class Timing:
    """When what happens, in seconds, with client-go's defaults. None may be zero; retry < deadline < duration.

    Attributes:
        duration: A record that hasn't changed for so long may be taken over. Default 15; whole seconds.
        deadline: For so long after its last renewal a leader acts; then it has lost. Default 10. The rest of `duration`
            is for requests that are still on their way, and for clocks of different speed.
        retry: Between two tries. Default 2.
    """

    duration: int = 15
    deadline: float = 10.0
    retry: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.retry < self.deadline < self.duration:
            raise ValueError(f"need 0 < retry < deadline < duration @ {self}")


@dataclass(frozen=True, slots=True)
class Record:
    """The lease as stored: `version` changes with every write and is empty while there is none."""

    version: str = ""
    holder: str = ""
    duration: float = 0.0


@dataclass(frozen=True, slots=True)
class Acquire:
    """Write oneself into the lease: it is free, or has expired."""


@dataclass(frozen=True, slots=True)
class Renew:
    """Write oneself into the lease again."""


@dataclass(frozen=True, slots=True)
class Wait:
    """It is another's for so many seconds, if that one doesn't renew it."""

    seconds: float


Decision = Acquire | Renew | Wait


def decide(record: Record, since: float, now: float, identity: str, default: float) -> Decision:
    """Say what to do with a record that has looked like this `since`; `default` is the duration where it says none."""
    if record.holder == identity:
        return Renew()
    left = since + (record.duration or default) - now
    return Wait(left) if record.holder and left > 0 else Acquire()


class Elector:
    """What one candidate knows. `now` is always its own steady clock."""

    def __init__(self, identity: str, timing: Timing) -> None:
        self.identity = identity
        self.timing = timing
        self._record = Record()
        self._since = NEVER
        self._leads_until = NEVER

    def observe(self, record: Record, now: float) -> None:
        """Take in the lease as it was read; `now` is when the answer was there, not when it was asked for."""
        if not record.version and self._record.holder != self.identity:
            record = replace(self._record, version="")  # deleted under another's feet: that one may still act
        elif record.version != self._record.version:
            self._since = now
        self._record = record
        if record.holder != self.identity:
            self._leads_until = NEVER

    def decide(self, now: float) -> Decision:
        """Say what to do."""
        return decide(self._record, self._since, now, self.identity, self.timing.duration)

    def renewed(self, sent: float) -> None:
        """Note that a write of ours succeeded, which was sent at `sent` (taken before it was sent)."""
        self._leads_until = sent + self.timing.deadline

    def resign(self) -> None:
        """Act no more, from now on."""
        self._leads_until = NEVER

    def left(self, now: float) -> float:
        """Return for how many seconds more this one leads, if it can't renew; 0 or less: it doesn't."""
        return self._leads_until - now

    def holds(self, now: float) -> bool:
        """Whether this one leads now, for certain."""
        return now < self._leads_until
