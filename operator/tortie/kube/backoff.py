"""How long to wait before trying again.

Belongs here: the one rule for delays after failures. Does not: the waiting.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackoffSettings:
    """How delays grow.

    Attributes:
        first: Seconds; the longest first delay. Default 0.1. Zero: try again at once, always.
        longest: Seconds that no delay exceeds. Default 10. Zero: as `first` zero.
    """

    first: float = 0.1
    longest: float = 10.0


class Backoff:
    """Delays that double after each failure, each shortened by chance to between half and the whole.

    Chance keeps 5,000 agents from coming back at the same moment.
    """

    def __init__(self, settings: BackoffSettings, chance: Callable[[], float] = random.random) -> None:
        self._settings = settings
        self._chance = chance
        self.failures = 0

    def next(self) -> float:
        """Count a failure and return the seconds to wait."""
        # 2**30 times any first delay is past any longest one, and far from overflowing a float.
        whole = min(self._settings.longest, self._settings.first * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return whole * (1 + self._chance()) / 2

    def reset(self) -> None:
        """Forget the failures: it worked."""
        self.failures = 0
