"""What the commands of this package say, and how they end."""

import signal
import sys
from collections.abc import Callable
from typing import Never


class Foreseen(RuntimeError):
    """A failure whose message is all that a person needs."""


def say(text: str) -> None:
    """Say what is being done; standard output is for results."""
    print(f"tortie: {text}", file=sys.stderr, flush=True)


def run(main: Callable[[], None]) -> None:
    """Run a command so that Ctrl-C and SIGTERM let it clean up, and a foreseen failure is said without a traceback."""
    signal.signal(signal.SIGTERM, _ended)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except (Foreseen, TimeoutError) as error:
        sys.exit(f"tortie: {error}")


def _ended(number: int, _frame: object) -> Never:
    sys.exit(128 + number)
