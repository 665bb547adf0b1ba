"""What the log says of a stream that is lost and comes back.

Belongs here: one line when it is lost, one when a right turns out to be missing, one when it is back.
Does not: trying again.
"""

import logging
import time
from collections.abc import Callable

from tortie.kube.errors import ApiError, Forbidden, Unauthorized

_log = logging.getLogger(__name__)

# An API server that starts says "forbidden" to everybody until it has read its roles: a second or two, measured.
STARTING = 10.0


class Outage:
    """The present outage of one stream, if there is one."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._since: float | None = None
        self._refused_since: float | None = None
        self._said = False  # that a right is missing

    @property
    def is_on(self) -> bool:
        """Whether the stream is lost now."""
        return self._since is not None

    @property
    def is_refused(self) -> bool:
        """Whether a right has been missing for longer than an API server takes to start."""
        return self._refused_since is not None and self._clock() - self._refused_since >= STARTING

    def lost(self, error: ApiError, meanwhile: str) -> None:
        """Note a failure: the first of an outage is logged, and that a right is missing once that lasts ten seconds."""
        now, first = self._clock(), self._since is None
        refused = isinstance(error, Forbidden | Unauthorized)
        if refused and self._refused_since is None:
            self._refused_since = now
        lasts = refused and self._refused_since is not None and now - self._refused_since >= STARTING
        if first or (lasts and not self._said):
            _log.warning("%s: stream lost: %s; trying again, %s", self._what, error, meanwhile)
            self._said = refused
        self._since = now if self._since is None else self._since

    def back(self, how: str) -> None:
        """Note that the stream works, and by what it recovered."""
        if self._since is not None:
            _log.warning("%s: stream back after %.1f s: %s", self._what, self._clock() - self._since, how)
        self._since, self._refused_since, self._said = None, None, False
