"""`python -m tests.agent.clock FILE …`: `tortie …` with a wall clock that is wrong by the seconds that the file says now."""

import datetime as dt
import sys
import time
from pathlib import Path

OFFSET = Path(sys.argv[1])
_right = time.time


class Wrong(dt.datetime):
    """The time of day as that clock says it."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> "Wrong":
        return cls.fromtimestamp(time.time(), tz)


def wrong() -> float:
    return _right() + float(OFFSET.read_text() or 0)


if __name__ == "__main__":
    time.time = wrong
    dt.datetime = Wrong  # type: ignore[misc]
    from tortie.cli.main import main

    main(sys.argv[2:], prog_name="tortie")
