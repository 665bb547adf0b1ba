"""When BIRD is told of a change that ends sessions, and how long copies of its routes stay. Pure: the clock is passed in.

Such a change ends sessions here or on the other side, and with them routes, until others bring them again. So it is told only
after `NOTICE`, in which each node copies BIRD's routes to routes of its own. They stay until BIRD has brought its routes back
and these were steady for `STEADY`: no packet is lost. Reorderings: a node that hears of a change later than NOTICE loses the
routes that the others' sessions gave it, as it would without; an agent that ends before it has its copies is as one that was
never told.
"""

from collections.abc import Mapping

from tortie.addressing.ranges import Range
from tortie.agent.forwarding import Route

# Seconds between what nodes hear of a change, and its effect; for which BIRD's routes are unchanged until they are trusted; and
# after which they are in any case.
NOTICE, STEADY, PATIENCE = 2.0, 5.0, 60.0


class Notice:
    """The notice of one node. Times are seconds of a steady clock."""

    def __init__(self) -> None:
        self._due = 0.0  # when the change may be told; zero: none waits
        self._until = 0.0  # when copies are given up at the latest; zero: there are none
        self._routes: Mapping[Range, Route] = {}
        self._steady_since = 0.0

    @property
    def is_given(self) -> bool:
        """Whether a change waits for its time."""
        return self._due > 0

    @property
    def holds(self) -> bool:
        """Whether copies of BIRD's routes are to be there."""
        return self._until > 0

    def is_over(self, now: float, *, disturbs: bool) -> bool:
        """Whether BIRD may be told now; `disturbs`: whether what it would be told ends sessions."""
        if disturbs and not self._due:
            self._due, self._until = now + NOTICE, now + NOTICE + PATIENCE
        if disturbs and now < self._due:
            return False
        self._due = 0.0
        return True

    def settle(self, now: float, routes: Mapping[Range, Route], *, is_current: bool) -> None:
        """Give up the copies once BIRD's routes are steady; `is_current`: whether it has taken what it was told last."""
        if routes != self._routes or self._due or not is_current:
            self._routes, self._steady_since = dict(routes), now
        if self._until and (now - self._steady_since >= STEADY or now >= self._until):
            self._until = 0.0
