"""When BIRD is told of a change that ends sessions. Pure: the clock is passed in.

Such a change ends sessions here or on the other side, and with them routes, until others bring them again. So it is told only
after `NOTICE`, in which each node copies BIRD's routes (`tortie.agent.copies`): no packet is lost. Reorderings: a node that
hears of a change later than NOTICE loses the routes that the others' sessions gave it, as it would without.
"""

# Seconds between what nodes hear of a change, and its effect.
NOTICE = 2.0


class Notice:
    """The notice of one node. Times are seconds of a steady clock."""

    def __init__(self) -> None:
        self._due = 0.0  # when the change may be told; zero: none waits

    @property
    def is_given(self) -> bool:
        """Whether a change waits for its time."""
        return self._due > 0

    def is_over(self, now: float, *, disturbs: bool) -> bool:
        """Whether BIRD may be told now; `disturbs`: whether what it would be told ends sessions."""
        if disturbs and not self._due:
            self._due = now + NOTICE
        if disturbs and now < self._due:
            return False
        self._due = 0.0
        return True
